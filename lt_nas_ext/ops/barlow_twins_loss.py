"""The Barlow Twins loss of two embeddings: normalisation, cross-correlation and loss in one operator."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.nn.functional as F

from lt_nas_ext.errors import UserError
from lt_nas_ext.ops import _kernels

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Form = Literal["auto", "gram", "cross"]
FORMS: tuple[str, ...] = get_args(Form)

# 4 N² D multiply-adds against 3 N D²: the Gram form is the cheaper one below this share of D.
GRAM_BELOW = 0.75


def barlow_twins_loss(
    za: torch.Tensor,
    zb: torch.Tensor,
    lambd: float = 5e-3,
    scale: float = 1.0,
    eps: float = 1e-5,
    form: str = "auto",
    group: ProcessGroup | None = None,
) -> torch.Tensor:
    """L = scale · (Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij²) with C = ẑ_Aᵀ ẑ_B / N: Barlow Twins (arXiv:2103.03230, eq. 1, 2).

    ẑ is z normalised over the batch: mean 0 and variance 1 for every dimension (biased variance, `eps`, no affine).
    Differentiable twice. Deterministic: the same bits on every run of one device, PyTorch version and thread count.

    Args:
        za: (N, D) embeddings of the first views, N ≥ 2, floating point. float16 and bfloat16 are computed in float32.
        zb: (N, D) embeddings of the second views, of the same type, on the same device.
        lambd: λ ≥ 0, the weight of the off-diagonal terms.
        scale: constant factor of the loss; `1 / D` makes its size independent of the width.
        eps: added to the variances, > 0.
        form: "gram" uses Σ_ij C_ij² = ⟨ẑ_A ẑ_Aᵀ, ẑ_B ẑ_Bᵀ⟩ / N² and never allocates a D × D matrix; "cross" forms C;
            "auto" takes the cheaper one: "gram" where N < 0.75 D. The same loss to rounding.
        group: a `torch.distributed` process group: statistics and C are then those of the batch of all its processes
            (each with the same N), and so is the loss that each returns. The gradient is that of the sum of these
            losses, so averaging parameter gradients over the processes, as DistributedDataParallel does, gives exactly
            the gradient of one process with the whole batch.

    Returns:
        The loss, a scalar of type float32 (float64 for float64).

    Raises:
        UserError: a wrong shape, type, device or number, or batch sizes that differ between processes; names it.

    >>> import torch, lt_nas_ext as lt
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> lt.ops.barlow_twins_loss(z, z).round(decimals=4)  # uncorrelated dimensions, equal views: nothing to reduce
    tensor(0.)
    >>> lt.ops.barlow_twins_loss(z, -z).round(decimals=3)  # Σ (1 − (−1))²
    tensor(8.)
    """
    za, zb, gram = _arguments(za, zb, lambd, scale, eps, form, group)
    if not _kernels.use_kernels(za):
        return _eager(za, zb, lambd, scale, eps, gram)
    loss, _ = torch.ops.lt_nas_ext.barlow_twins_loss(za, zb, lambd, scale, eps, gram)
    return loss


def barlow_twins_loss_eager(
    za: torch.Tensor,
    zb: torch.Tensor,
    lambd: float = 5e-3,
    scale: float = 1.0,
    eps: float = 1e-5,
    form: str = "auto",
    group: ProcessGroup | None = None,
) -> torch.Tensor:
    """The eager twin of `barlow_twins_loss` in plain PyTorch: the reference of its tests and benchmarks, the fallback.

    `form="cross"` is the loss as its authors published it.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> barlow_twins_loss_eager(z, z.roll(1, dims=1)).round(decimals=3)  # C = [[0, 1], [1, 0]]: 2 + 2 λ
    tensor(2.0100)
    """
    za, zb, gram = _arguments(za, zb, lambd, scale, eps, form, group)
    return _eager(za, zb, lambd, scale, eps, gram)


def _eager(za: torch.Tensor, zb: torch.Tensor, lambd: float, scale: float, eps: float, gram: bool) -> torch.Tensor:
    computed = _computed(torch.promote_types(za.dtype, zb.dtype))
    with _no_autocast(za.device.type):
        n, d = za.shape
        a = F.batch_norm(za.to(computed), None, None, training=True, eps=eps)
        b = F.batch_norm(zb.to(computed), None, None, training=True, eps=eps)
        if gram:
            diagonal = (a * b).sum(dim=0) / n
            off = ((a @ a.T) * (b @ b.T)).sum() / n**2 - diagonal.square().sum()
        else:
            c = (a.T @ b) / n
            diagonal = c.diagonal()
            # After its first element, C in rows of D + 1 has its diagonal as the last column.
            off = c.flatten()[1:].view(d - 1, d + 1)[:, :-1].square().sum()
        return scale * ((1 - diagonal).square().sum() + lambd * off)


def _computed(dtype: torch.dtype) -> torch.dtype:
    """The type in which everything is computed, and of the loss."""
    return torch.promote_types(dtype, torch.float32)


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    """Float32 also inside an autocast region: correlations of half-precision products are noise."""
    return torch.autocast(device, enabled=False) if _autocast_on(device) else nullcontext()


def _autocast_on(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def check_settings(lambd: float, scale: float, eps: float = 1e-5, form: str = "auto") -> None:
    """Raise `UserError` where a number is out of range or `form` is not one of `FORMS`."""
    if not (_finite(lambd) and lambd >= 0):
        raise UserError(f"lambd: got {lambd!r}; wanted a finite number ≥ 0, such as 5e-3")
    if not _finite(scale):
        raise UserError(f"scale: got {scale!r}; wanted a finite number, such as 1.0 or 1 / D")
    if not (_finite(eps) and eps > 0):
        raise UserError(f"eps: got {eps!r}; wanted a finite number > 0, such as 1e-5")
    if form not in FORMS:
        raise UserError(f"form: got {form!r}; wanted one of {', '.join(map(repr, FORMS))}")


def check_group(group: ProcessGroup | None) -> None:
    """Raise `UserError` where `group` is neither None nor a process group."""
    if group is not None:
        import torch.distributed as dist

        if not isinstance(group, dist.ProcessGroup):
            raise UserError(f"group: got {type(group).__name__}; wanted a process group of torch.distributed, or None")


def _finite(value: float) -> bool:
    # Not math.isfinite: torch.compile(dynamic=True) of PyTorch 2.13 makes symbols of the numbers.
    return isinstance(value, int | float) and abs(value) < math.inf


def _arguments(
    za: torch.Tensor,
    zb: torch.Tensor,
    lambd: float,
    scale: float,
    eps: float,
    form: str,
    group: ProcessGroup | None,
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Every argument checked; the embeddings of the global batch, and whether the Gram form serves them."""
    for name, z in (("za", za), ("zb", zb)):
        if not _kernels.computable(z):
            raise UserError(
                f"{name}: got {_kernels.came(z)}; wanted a floating-point tensor of shape (N, D) ({_kernels.KINDS})"
            )
        if z.dim() != 2 or z.shape[1] < 1:
            raise UserError(f"{name}: got shape {tuple(z.shape)}; wanted (N, D), a row an image (as z.flatten(1))")
    if za.shape != zb.shape:
        raise UserError(f"zb: got shape {tuple(zb.shape)}; wanted {tuple(za.shape)}, as za: a row for each of its rows")
    if za.dtype != zb.dtype and not _autocast_on(za.device.type):
        raise UserError(f"zb: got {zb.dtype}; wanted {za.dtype}, as za (or use autocast)")
    if za.device != zb.device:
        raise UserError(f"zb: got device {zb.device}; wanted {za.device}, as za")
    check_settings(lambd, scale, eps, form)
    if group is not None:
        check_group(group)
        za, zb = gather(za, zb, group=group)
    n, d = za.shape
    if n < 2:
        raise UserError(f"za: got N = {n}; wanted at least 2 rows, since a variance over one image is zero")
    return za, zb, n < GRAM_BELOW * d if form == "auto" else form == "gram"


def gather(*tensors: torch.Tensor, group: ProcessGroup) -> tuple[torch.Tensor, ...]:
    """The rows of all processes of `group`, in rank order, for each (N, D) tensor; differentiable.

    Backward sums the gradients of all processes and returns the own rows.

    Raises:
        UserError: the processes have tensors of different shapes.
    """
    import torch.distributed as dist

    world = dist.get_world_size(group)
    if world == 1:
        return tensors
    first = tensors[0]
    if not (first.is_cuda and torch.cuda.is_current_stream_capturing()):  # a captured step has been checked before
        own = torch.tensor(first.shape, device=first.device)
        shapes = [torch.empty_like(own) for _ in range(world)]
        dist.all_gather(shapes, own, group=group)
        if any(not torch.equal(shape, own) for shape in shapes):
            came = [tuple(shape.tolist()) for shape in shapes]
            raise UserError(f"za: got shapes {came} by process; wanted the same in each (drop_last=True in the loader)")
    gathered: torch.Tensor = _AllGather.apply(torch.cat(tensors, dim=1), group)
    return tuple(gathered.split([z.shape[1] for z in tensors], dim=1))


class _AllGather(torch.autograd.Function):
    """Concatenates the rows of all processes; their losses all depend on them, so backward sums over the processes."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        import torch.distributed as dist

        ctx.group, ctx.rows = group, own.shape[0]
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, own.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = _AllReduce.apply(grad, ctx.group)
        import torch.distributed as dist

        start = dist.get_rank(ctx.group) * ctx.rows
        return total[start : start + ctx.rows], None


class _AllReduce(torch.autograd.Function):
    """Sum over the processes; the gradient of a sum that each process uses is again the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, group: ProcessGroup) -> torch.Tensor:
        import torch.distributed as dist

        ctx.group = group
        total = own.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _AllReduce.apply(grad, ctx.group), None


if _kernels.status().active:

    @torch.library.register_fake("lt_nas_ext::barlow_twins_loss")
    def _(
        za: torch.Tensor, zb: torch.Tensor, lambd: float, scale: float, eps: float, gram: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, d = za.shape
        computed = _computed(za.dtype)
        return za.new_empty((), dtype=computed), za.new_empty((2, n, n) if gram else (d, d), dtype=computed)

    @torch.library.register_fake("lt_nas_ext::barlow_twins_loss_backward")
    def _(
        grad: torch.Tensor,
        za: torch.Tensor,
        zb: torch.Tensor,
        products: torch.Tensor,
        lambd: float,
        scale: float,
        eps: float,
        gram: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return za.new_empty(za.shape), zb.new_empty(zb.shape)
