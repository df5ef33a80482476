"""Random numbers of a batch, one draw a sample, and the checks that every augmentation shares."""

from __future__ import annotations

import torch

from lt_nas_ext.errors import UserError


def uniform(
    shape: tuple[int, ...], low: float, high: float, like: torch.Tensor, generator: torch.Generator | None
) -> torch.Tensor:
    """Uniform in [low, high), drawn on the generator's device, brought to the device and type of `like`.

    So a CPU generator gives the same draws whatever device the images are on.
    """
    device = like.device if generator is None else generator.device
    return (torch.rand(shape, generator=generator, device=device) * (high - low) + low).to(like)


def normal(shape: tuple[int, ...], like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Standard normal, drawn and brought as in `uniform`."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device).to(like)


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) with C = 1 or 3, uint8 or float in [0, 1] -> float in [0, 1] (float32 for uint8).

    >>> as_floats(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)).max()
    tensor(1.)
    """
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        came = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise UserError(f"images: got {came}; wanted a tensor (N, C, H, W) with C = 1 (grey) or 3 (RGB)")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise UserError(f"images: got {images.dtype}; wanted floats in [0, 1] or uint8 in 0 … 255")
    return images
