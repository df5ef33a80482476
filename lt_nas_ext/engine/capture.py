"""Steps recorded once and replayed. On CUDA a step of a search is thousands of launches; as a graph it is one.

What is recorded is the whole step: forward, backward, clipping, optimiser. Its inputs are copied into buffers that
stay, learning rates are tensors that stay, and nothing in it waits for the device. Whatever cannot be recorded runs as
written, and the reason is told once.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import torch

Result = TypeVar("Result")
Work = Callable[[], Result]

WARM_CALLS = 3
"""Calls before a recording: libraries choose their algorithms, optimisers make their buffers."""

MOST_RECORDINGS = 4
"""Of one step at a time: for batches of so many shapes. Others run as written."""


class CaptureFallbackWarning(UserWarning):
    """A step could not be recorded and runs as written: the same numbers, more launches."""


class Recorder(Protocol):
    """What records work: `CudaGraphs`."""

    def warm(self, work: Work[Result]) -> Result:
        """Do work as it will be recorded later."""

    def record(self, work: Work[Result]) -> tuple[Result, Callable[[], None]]:
        """Record work without doing it: where its results will stand, and what does it."""


class CudaGraphs:
    """Records on a stream of its own; all recordings share memory, so one runs at a time, and never beside another.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm(self, work: Work[Result]) -> Result:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def record(self, work: Work[Result]) -> tuple[Result, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            result = work()
        return result, graph.replay


def recorder_for(device: torch.device, wanted: bool = True) -> Recorder | None:
    """What records steps on this device; None: nothing does, they run as written."""
    return CudaGraphs(device) if wanted and device.type == "cuda" else None


@dataclasses.dataclass
class _Recording(Generic[Result]):
    inputs: tuple[Any, ...]
    result: Result
    replay: Callable[[], None]


class Captured(Generic[Result]):
    """A step by its recording.

    Calls do what `step` does. The first `WARM_CALLS` of a shape do it as written, the next one records it and from then
    on it is replayed. A result is overwritten by the next call.

    Args:
        step: takes tensors, or dataclasses or named tuples of them, and returns such. Called twice with equal shapes
            and the same `key`, it must do the same work: what changes from call to call must be a tensor that stays
            where it is.
        recorder: None: every call does the step as written.
        name: of the step, for the message of a fallback.
        recover: called after a failed recording, which has left traces in Python and none on the device.

    Attributes:
        reason: why nothing is recorded any more, or None.
    """

    def __init__(
        self,
        step: Callable[..., Result],
        recorder: Recorder | None,
        name: str,
        recover: Callable[[], None] = lambda: None,
    ) -> None:
        self._step, self._recorder, self._name, self._recover = step, recorder, name, recover
        self._key: object = None
        self._warm: dict[object, int] = {}
        self._recordings: dict[object, _Recording[Result]] = {}
        self.reason: str | None = None

    def begin(self, key: object) -> None:
        """Say under which circumstances the calls that follow stand; under others everything is recorded anew.

        After one call as written: others may train what had no optimiser state before.
        """
        if key != self._key:
            self._key = key
            self._recordings.clear()  # before the next are made: their memory is free again
            self._warm = {shapes: min(calls, WARM_CALLS - 1) for shapes, calls in self._warm.items()}

    def __call__(self, *inputs: Any) -> Result:
        if self._recorder is None or self.reason is not None:
            return self._step(*inputs)
        shapes = tuple(_shapes(one) for one in inputs)
        recording = self._recordings.get(shapes)
        if recording is None:
            if self._warm.get(shapes, 0) < WARM_CALLS:
                self._warm[shapes] = self._warm.get(shapes, 0) + 1
                return self._recorder.warm(lambda: self._step(*inputs))
            if len(self._recordings) >= MOST_RECORDINGS:
                return self._recorder.warm(lambda: self._step(*inputs))
            recording = self._record(self._recorder, inputs)
            if recording is None:
                return self._step(*inputs)
            self._recordings[shapes] = recording
        for buffer, given in zip(recording.inputs, inputs, strict=True):
            _copy(buffer, given)
        recording.replay()
        return recording.result

    def _record(self, recorder: Recorder, inputs: tuple[Any, ...]) -> _Recording[Result] | None:
        buffers = tuple(_map(one, torch.empty_like) for one in inputs)
        try:
            return _Recording(buffers, *recorder.record(lambda: self._step(*buffers)))
        except Exception as error:
            self._recover()
            self.reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                CaptureFallbackWarning(f"{self._name} runs as written, for it could not be recorded: {self.reason}"),
                stacklevel=4,
            )
            return None


def _map(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same dataclass with every tensor in it, however deep, replaced."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _map(getattr(value, field.name), function) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, tuple):  # a named one: of labels that are mixed
        return type(value)(*(_map(one, function) for one in value))
    return value


def _shapes(value: Any) -> object:
    """What must agree for two inputs to share a recording."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), *(_shapes(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        return type(value), *map(_shapes, value)
    return value


def _copy(buffer: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        buffer.copy_(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _copy(getattr(buffer, field.name), getattr(value, field.name))
    elif isinstance(value, tuple):
        for one, other in zip(buffer, value, strict=True):
            _copy(one, other)
