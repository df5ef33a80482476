"""One run in several processes, a device each, as torchrun starts them (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR).

All processes hold the same networks and take the same steps: each computes the gradient of its share of every batch,
the gradients are averaged, and the optimisers do the same everywhere. They are averaged in one `all_reduce` after
backward, before clipping, in place of `DistributedDataParallel`: the steps call the losses of a method on its networks
directly, and α and w take turns in requiring gradients, neither of which goes through that wrapper's forward. After
every epoch the bits of all that is trained are compared.

Batch norms use the statistics of their process's share in training; running statistics are averaged over the processes
at the end of every epoch. A loss that is a weighted mean is averaged over the means of the shares.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from lt_nas_ext.engine.checkpoint import checksum
from lt_nas_ext.engine.device import choose_device
from lt_nas_ext.engine.heartbeat import Heartbeat, ended
from lt_nas_ext.engine.stop import Interrupted, StopSignal
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Loss
from lt_nas_ext.nn import BarlowTwinsLoss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

SECONDS_TO_MEET = 60.0
"""For all processes to start and find each other."""

SECONDS_TO_WAIT = 600.0
"""For what another process is to send. A process may be slow, as while it writes files; that it is gone is noticed by
`Heartbeat`, long before."""


class ProcessEnded(UserError):
    """The run ended because one of its other processes did."""


class ProcessesDiffer(UserError):
    """The run ended because its processes do not hold the same numbers any more."""


class Place(NamedTuple):
    """Which of how many processes this is."""

    rank: int
    size: int


def asked() -> Place:
    """What the environment asks for; (0, 1) where nobody set RANK and WORLD_SIZE.

    Raises:
        UserError: they are no numbers that fit together.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Place(0, 1)
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    if rank >= size:
        raise UserError(f"RANK: got {rank} with WORLD_SIZE={size}; wanted 0 … {size - 1}, as torchrun sets it")
    return Place(rank, size)


def check_alone(what: str, why: str) -> None:
    """Raise `UserError` where several processes were started for what takes one."""
    size = asked().size
    if size > 1:
        raise UserError(f"{what}: got {size} processes (WORLD_SIZE, set by torchrun); wanted one: {why}")


class Group:
    """The processes of a run, seen from one of them. A group of one does nothing at all.

    All processes call the same methods in the same order.

    Args:
        rank, size: which of how many this is.
        process_group: what connects them; None for a group of one.
        heartbeat: who is alive; None for a group of one.

    >>> ALONE.first, ALONE.any(False), ALONE.share({"α": 1})
    (True, False, {'α': 1})
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        process_group: ProcessGroup | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.rank, self.size, self.process_group, self._heartbeat = rank, size, process_group, heartbeat

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes files and talks."""
        return self.rank == 0

    @property
    def mark(self) -> tuple[str | int, ...]:
        """What a seed is derived from beside all else, where the processes are to draw differently."""
        return ("process", self.rank) if self.size > 1 else ()

    @property
    def identity(self) -> dict[str, Any]:
        """What config.json says of it."""
        return {"processes": self.size} if self.size > 1 else {}

    def device(self, name: str) -> torch.device:
        """The device of a setting: of several processes on CUDA each has that of its LOCAL_RANK.

        Raises:
            UserError: as `choose_device`; one device for several processes; fewer devices than processes.
        """
        device = choose_device(name)
        if self.size == 1 or device.type != "cuda":
            return device
        if name not in ("auto", "cuda"):
            raise UserError(
                f"device: got {name!r} for {self.size} processes, each of which takes the device of its LOCAL_RANK; "
                "wanted 'auto', 'cuda' or 'cpu'"
            )
        local, there = _number("LOCAL_RANK"), torch.cuda.device_count()
        if local >= there:
            raise UserError(
                f"device: process {self.rank} is number {local + 1} on a machine with {there} CUDA device(s); wanted "
                f"at most {there} processes there (--nproc-per-node={there}), or device 'cpu'"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)  # NCCL communicates from the current one
        return device

    def check_batch(self, batch_size: int) -> None:
        """Raise `UserError` where a batch cannot be shared evenly."""
        if batch_size % self.size:
            raise UserError(
                f"batch_size: got {batch_size} for {self.size} processes, which share every batch; wanted a multiple "
                f"of {self.size}"
            )
        if self.size > 1 and batch_size < 2 * self.size:
            raise UserError(
                f"batch_size: got {batch_size} for {self.size} processes, which share every batch; wanted at least "
                f"{2 * self.size}, two images each"
            )

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Within this context a run is under way: no process outlives another by long.

        Raises:
            ProcessEnded: another process ended before the run did.
        """
        if self._heartbeat is None:
            yield
            return
        self._heartbeat.watch(True)
        try:
            with warnings.catch_warnings():
                if not self.first:  # the first says the same
                    warnings.simplefilter("ignore")
                yield
            self.any(False)  # the first may hold the store: it does not leave before the others are through
        except (Interrupted, ProcessesDiffer):  # which all have agreed on
            raise
        except RuntimeError as error:
            with StopSignal():  # torchrun sends SIGTERM at once, and who is gone takes seconds to find out
                who = self._heartbeat.found()
            if who is None:
                self._heartbeat.say(_in_words(error))
                raise
            atexit.unregister(dist.destroy_process_group)  # it might wait for who is gone
            raise ProcessEnded(ended(who)) from error
        except BaseException as error:
            self._heartbeat.say(_in_words(error))
            raise
        finally:
            self._heartbeat.watch(False)

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX, self.process_group)
        return bool(said)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """What each process gives, by its rank: (size, ...), for tensors of one shape, type and kind of device."""
        if self.size == 1:
            return tensor[None]
        own = tensor.contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own, group=self.process_group)
        return torch.stack(parts)

    def share(self, value: Any, device: torch.device | str = "cpu") -> Any:
        """The first process's value: tensors (on `device` in the others), numbers, text and containers of them."""
        if self.size == 1:
            return value
        content = io.BytesIO()
        if self.first:
            torch.save(value, content)
        length = torch.tensor(content.tell())
        dist.broadcast(length, 0, self.process_group)
        sent = torch.empty(int(length), dtype=torch.uint8)
        if self.first:
            sent.copy_(torch.frombuffer(content.getbuffer(), dtype=torch.uint8))
        dist.broadcast(sent, 0, self.process_group)
        if self.first:
            return value
        return torch.load(io.BytesIO(sent.numpy().tobytes()), map_location=device, weights_only=True)

    @torch.no_grad()
    def spread(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        if self.size > 1:
            for tensor in tensors:
                same = tensor.detach().contiguous()
                dist.broadcast(same, 0, self.process_group)
                tensor.copy_(same)

    @torch.no_grad()
    def average(self, tensors: Sequence[torch.Tensor], exact: bool = False) -> None:
        """Give floating-point tensors their mean over the processes, the same bits in each.

        Args:
            tensors: of the same shapes in every process.
            exact: sum in float64: what is equal in all processes then stays as it is, to the bit.
        """
        if self.size == 1:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for same in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            flat = flat.double() if exact else flat
            dist.all_reduce(flat, group=self.process_group)
            flat.div_(self.size)
            for tensor, mean in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def average_buffers(self, buffers: Iterator[torch.Tensor] | Sequence[torch.Tensor]) -> None:
        """Running statistics: the mean of what the processes saw. Those that count are whole numbers, and agree."""
        self.average([buffer for buffer in buffers if buffer.is_floating_point()], exact=True)

    def average_gradients(self, parameters: Sequence[torch.Tensor], figures: Sequence[torch.Tensor] = ()) -> None:
        """The gradients of the whole batch from those of its shares; `figures`, of the same step, on the way.

        A parameter that has a gradient in one process has one in all of them: where it took no part, 0 is averaged in.
        """
        if self.size == 1 or not parameters:
            return
        here = [parameter.grad is not None for parameter in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        share = gradients[0].new_tensor(here)
        self.average([*gradients, *figures, share])
        if all(here):
            return
        for parameter, gradient, there in zip(parameters, gradients, share.tolist(), strict=True):
            if there:
                parameter.grad = gradient

    def averaged(self, loss: Loss, parameters: Sequence[torch.Tensor]) -> Loss:
        """After backward: the loss over all processes, with their gradients averaged; all then take the same step."""
        if self.size == 1:
            return loss
        parts = {name: term.clone() for name, term in loss.terms.items()}
        self.average_gradients(parameters, list(parts.values()))
        return replace(loss, parts=parts)

    def over_global_batch(self, module: nn.Module) -> None:
        """Let every Barlow Twins loss in a module take the batch of all processes."""
        for one in module.modules():
            if isinstance(one, BarlowTwinsLoss):
                one.group = self.process_group

    def check_alike(self, parts: Mapping[str, Any], epoch: int) -> None:
        """Raise `ProcessesDiffer` unless every part has the same bits in all processes after an epoch."""
        if self.size == 1 or not parts:
            return
        own = torch.tensor([list(bytes.fromhex(checksum({name: part}))) for name, part in parts.items()])
        digests = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(digests, own, group=self.process_group)
        for place, name in enumerate(parts):
            others = [rank for rank in range(self.size) if not torch.equal(digests[rank][place], digests[0][place])]
            if others:
                raise ProcessesDiffer(
                    f"processes: after epoch {epoch + 1} the {name} of process {', '.join(map(str, others))} of "
                    f"{self.size} are not those of process 0: another machine, PyTorch or code may be at work there, "
                    "or memory is at fault. The epochs before are saved where the run has an out directory: resume "
                    "continues from there"
                )


ALONE = Group()
"""The group of a process that nobody started together with others."""


def join() -> Group:
    """The group that the environment asks for: joined once in a process, and kept to its end.

    Raises:
        UserError: the environment says too little, or the processes do not find each other.
    """
    rank, size = asked()
    return ALONE if size == 1 else _joined(rank, size)


@functools.cache
def _joined(rank: int, size: int) -> Group:
    if not dist.is_available():
        raise UserError(f"processes: got {size}, but PyTorch {torch.__version__} was built without torch.distributed")
    if dist.is_initialized():
        raise UserError(
            "processes: torch.distributed is initialised already; wanted this to be left to search, adapt and retrain"
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(f"{missing[0]}: not set, with WORLD_SIZE={size}; wanted it as torchrun sets it")
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=SECONDS_TO_MEET)))
        dist.init_process_group(
            _backend(),
            store=dist.PrefixStore("lt_nas_ext", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=SECONDS_TO_WAIT),
        )
        signs = dist.PrefixStore("heartbeat", store.clone())
    except (RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"processes: {size} did not find each other at {address}: {said}") from None
    atexit.register(dist.destroy_process_group)
    # torchrun keeps the store itself.
    holder = "torchrun" if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else f"process 0 of {size}"
    return Group(rank, size, dist.group.WORLD, Heartbeat(signs, rank, size, holder))


def _backend() -> str:
    """Figures that the steering needs go by gloo on CPUs, whatever computes: no step waits for a device by them."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def _number(name: str) -> int:
    came = os.environ.get(name, "")
    if not came.isdecimal():
        raise UserError(f"{name}: got {came!r} in the environment; wanted a whole number, as torchrun sets it")
    return int(came)


def _in_words(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
