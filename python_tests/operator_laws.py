"""What the tests of every operator share: layouts, and the laws that hold for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import settings

import lt_nas_ext as lt

needs_kernels = pytest.mark.skipif(not lt.ops.status().active, reason=lt.ops.status().reason)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
LAYOUTS = ["contiguous", "channels_last", "permuted", "sliced"]

fuzzed = settings(max_examples=max(64, settings().max_examples))
"""With five operators more than 300 cases in the normal tests; `make fuzz` takes 2500 of each."""

Results = Callable[[], Sequence[torch.Tensor]]


def layout(x: torch.Tensor, name: str) -> torch.Tensor:
    """Images of the same values, laid out as one of `LAYOUTS`."""
    if name == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if name == "sliced":  # every second image, without the last column, of a larger tensor
        larger = x.new_full((2 * x.shape[0], *x.shape[1:-1], x.shape[-1] + 1), float("nan"))
        larger[::2, ..., :-1] = x
        return larger[::2, ..., :-1]
    return x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0) if name == "permuted" else x


def equal_to_the_bit(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def assert_a_graph_of_the_gradient_changes_nothing(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]
) -> None:
    """create_graph=True gives the same gradients; `gradgradcheck`, which asks for no others, cannot tell."""
    y = function(*inputs)
    weights = torch.randn_like(y)
    plain = torch.autograd.grad(y, list(inputs), weights, retain_graph=True)
    graphed = torch.autograd.grad(y, list(inputs), weights, create_graph=True)
    torch.testing.assert_close(graphed, plain, rtol=1e-9, atol=1e-9)


def assert_same_bits_on_every_thread_count(results: Results) -> None:
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 3, 7, 2):
            torch.set_num_threads(count)
            runs.append(results())
    finally:
        torch.set_num_threads(threads)
    assert all(equal_to_the_bit(run, runs[0]) for run in runs)


def assert_eight_python_threads_agree(results: Results, expected: Sequence[torch.Tensor] | None = None) -> None:
    """Each thread finds the same bits ten times: `expected`, or what it found first."""
    right: list[bool] = []

    def work() -> None:
        first = results() if expected is None else expected
        right.extend(equal_to_the_bit(results(), first) for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 80


def assert_error_is_at_most_twice_eagers(
    ours: Sequence[torch.Tensor], eagers: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]
) -> None:
    for got, eager, wanted in zip(ours, eagers, exact, strict=True):
        assert got.shape == wanted.shape and got.dtype == eager.dtype
        # One unit in the last place of room: where eager happens to be exact, twice nothing is nothing.
        room = torch.finfo(eager.dtype).eps * wanted.norm()
        assert (got.double() - wanted).norm() <= 2 * (eager.double() - wanted).norm() + room


def assert_same_bits_on_another_stream_and_in_a_graph(results: Results) -> None:
    """Of an operator on CUDA: the default stream, another one, and a captured graph replayed twice."""
    expected = [one.clone() for one in results()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert equal_to_the_bit(results(), expected)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results()
    for _ in range(2):
        for one in captured:
            one.zero_()
        graph.replay()
        assert equal_to_the_bit(captured, expected)
