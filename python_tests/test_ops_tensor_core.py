"""A warp's product on tensor cores, run on the host: which lane holds what, by the tables of the PTX ISA."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from host_bodies import address, build

# Lane 0's elements, low half of a register first, and by how much lane 4 g + t lies further: of mma.m16n8k16 in 16 bits
# and of mma.m16n8k8 in tf32, (row, column) each.
LEFT = {
    "half": ([(0, 0), (0, 1), (8, 0), (8, 1), (0, 8), (0, 9), (8, 8), (8, 9)], lambda g, t: (g, 2 * t)),
    "tf32": ([(0, 0), (8, 0), (0, 4), (8, 4)], lambda g, t: (g, t)),
}
RIGHT = {
    "half": ([(0, 0), (1, 0), (8, 0), (9, 0)], lambda g, t: (2 * t, g)),
    "tf32": ([(0, 0), (4, 0)], lambda g, t: (t, g)),
}
SUMS = ([(0, 0), (0, 1), (8, 0), (8, 1)], lambda g, t: (g, 2 * t))
LEFT["bfloat16"], RIGHT["bfloat16"] = LEFT["half"], RIGHT["half"]
TYPES = {"half": torch.float16, "bfloat16": torch.bfloat16, "tf32": torch.float32}


@pytest.fixture(scope="session")
def bodies(tmp_path_factory) -> ctypes.CDLL:
    return build(Path(__file__).parent / "host_bodies" / "tensor_core.cpp", tmp_path_factory)


def matrix(held: torch.Tensor, layout, rows: int, columns: int) -> torch.Tensor:
    """What 32 lanes hold together; every element is held once."""
    first, further = layout
    whole, times = torch.zeros(rows, columns, dtype=torch.float64), torch.zeros(rows, columns)
    for lane in range(32):
        down, right = further(lane // 4, lane % 4)
        for element, (row, column) in enumerate(first):
            whole[row + down, column + right] = held[lane, element].double()
            times[row + down, column + right] += 1
    assert (times == 1).all()
    return whole


def bits(x: torch.Tensor) -> torch.Tensor:
    """Of each element, in 32 bits."""
    narrow = x.view(torch.int16).int() & 0xFFFF if x.element_size() == 2 else x.view(torch.int32)
    return narrow.contiguous()


def elements(registers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return registers.view(dtype)  # little-endian: the low half comes first


@pytest.mark.parametrize("name", TYPES)
def test_lanes_hold_what_the_instruction_reads(bodies, name):
    dtype, depth = TYPES[name], 8 if name == "tf32" else 16
    generator = torch.Generator().manual_seed(0)

    def integers(*shape):
        """Products and sums of these are exact, in any order."""
        return torch.randint(-99, 100, shape, generator=generator).to(dtype)

    a, b, sums = integers(16, depth), integers(depth, 8), integers(32, 4).float()
    before = matrix(sums, SUMS, 16, 8)
    of_a, of_b = torch.zeros(32, 4, dtype=torch.int32), torch.zeros(32, 2, dtype=torch.int32)
    given = bits(a), bits(b)
    getattr(bodies, f"warp_{name}")(*[address(t) for t in (*given, of_a, of_b, sums)])
    left, right = (
        matrix(elements(held, dtype), table[name], *shape)
        for held, table, shape in ((of_a, LEFT, (16, depth)), (of_b, RIGHT, (depth, 8)))
    )
    assert torch.equal(left, a.double()) and torch.equal(right, b.double())
    assert torch.equal(matrix(sums, SUMS, 16, 8), before + left @ right)


def tf32(bodies, x: torch.Tensor) -> torch.Tensor:
    rounded = torch.zeros_like(x)
    bodies.round_all_to_tf32(address(x), ctypes.c_int64(x.numel()), address(rounded))
    return rounded


def test_tf32_has_ten_bits_and_ties_go_away_from_zero(bodies):
    tie, last = 1 + 2**-11, 2**-23
    table = {
        1.0: 1.0,
        tie: 1 + 2**-10,
        -tie: -1 - 2**-10,
        tie - last: 1.0,
        1 + 3 * 2**-11: 1 + 2**-9,
        2 - last: 2.0,
        0.0: 0.0,
        3.4e38: 3.4e38 // 2**117 * 2**117,
        float("inf"): float("inf"),
        -float("inf"): -float("inf"),
    }
    rounded = tf32(bodies, torch.tensor(list(table)))
    assert rounded.tolist() == torch.tensor(list(table.values())).tolist()
    assert tf32(bodies, torch.tensor([float("nan")])).isnan().all()


def test_tf32_of_any_number(bodies):
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 2.0 ** torch.arange(-64, 64).repeat(32)
    mantissa, exponent = torch.frexp(x.double())
    expected = mantissa.sign() * (mantissa.abs() * 2**11 + 0.5).floor() / 2**11 * 2.0**exponent
    assert torch.equal(tf32(bodies, x).double(), expected)
