"""Randomness as a pure function of (seed, purpose, epoch, step), and the caller's own left untouched.

Nothing is drawn from a generator that carries on from what came before, so a run that continues after a kill draws
what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as `derived_seed(0, "views", epoch, step)`; the same on every machine.

    >>> derived_seed(0, "init") == derived_seed(0, "init"), derived_seed(0, "init") == derived_seed(1, "init")
    (True, False)
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(device: torch.device, seed: int, *purpose: str | int) -> torch.Generator:
    """A generator of its own on `device`, seeded for one purpose."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *purpose))


def seed_global(device: torch.device, seed: int, *purpose: str | int) -> None:
    """Seed PyTorch's global generator of the CPU and that of `device`, and of no other device."""
    torch.default_generator.manual_seed(derived_seed(seed, *purpose))
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(derived_seed(seed, *purpose))


@contextlib.contextmanager
def isolated_rng(device: torch.device) -> Iterator[None]:
    """Restore PyTorch's global random state (of the CPU, and of `device`) at the end.

    Initial weights and drop-path draw from the global generators; the caller's must not notice.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
