"""What pixels become: colour jitter, grey, blur, solarise, intensity, noise; a draw per sample, no loop over samples.

In YIQ a pixel is luma and chroma. Saturation scales the chroma, a hue turn rotates it, contrast scales pixel and mean
luma against each other, brightness scales all: linear maps that commute. So the four together, and grey (chroma 0), are
one 3×3 matrix per sample, whatever their order, and the pixels are read and written once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from lt_nas_ext.data.draws import normal, uniform
from lt_nas_ext.data.geometry import separable

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's and torchvision's grey


def colour_jitter(
    images: torch.Tensor,
    strengths: tuple[float, float, float, float],
    probability: float,
    generator: torch.Generator | None,
    grey_probability: float = 0.0,
) -> torch.Tensor:
    """Brightness, contrast, saturation and hue, each by a factor of its own; then, on some, grey.

    Factors are uniform in [max(0, 1 − s), 1 + s], the hue turn uniform in ±s of a full circle [torchvision's
    ColorJitter]. Unlike there, hue turns in YIQ, which keeps the luma, and values are clamped to [0, 1] once, at the
    end; then the four commute, and no order needs to be drawn. On grey images saturation, hue and grey do nothing.

    Args:
        images: (N, C, H, W) float, C = 1 or 3.
        strengths: s of brightness, contrast, saturation, hue.
        probability: share of the samples that are jittered.
        generator: the source of the draws.
        grey_probability: share of the samples that end grey.
    """
    n, c, h, w = images.shape
    jittered, greyed, *drawn, turn = uniform((6, n, 1, 1), 0, 1, images, generator)
    active = jittered < probability

    def factor(draw: torch.Tensor, strength: float) -> torch.Tensor:
        low = max(0.0, 1 - strength)
        return torch.where(active, low + (1 + strength - low) * draw, 1.0)

    brightness, contrast, saturation = map(factor, drawn, strengths[:3])
    saturation = torch.where(greyed < grey_probability, 0.0, saturation)
    angle = torch.where(active, (2 * turn - 1) * (2 * math.pi * strengths[3]), 0.0)

    luma, chroma, quarter = _constants(c, images.device, images.dtype)
    turned = saturation * (torch.cos(angle) * chroma + torch.sin(angle) * quarter)
    flat = images.reshape(n, c, h * w)
    mean = luma @ flat.mean(2, keepdim=True)
    pixels = torch.baddbmm(brightness * (1 - contrast) * mean, brightness * contrast * (luma + turned), flat)
    return pixels.clamp_(0, 1).view(n, c, h, w)


def gaussian_blur(
    images: torch.Tensor, probability: float, generator: torch.Generator | None, sigma: tuple[float, float] = (0.1, 2.0)
) -> torch.Tensor:
    """Gaussian blur with σ uniform in `sigma` pixels, per sample; the kernel is renormalised at the border.

    [paper: official Barlow Twins code; σ is in pixels whatever the image size, so it weighs more on small images.]
    """
    n = len(images)
    blurred = uniform((n, 1, 1), 0, 1, images, generator) < probability
    drawn = uniform((n, 1, 1), *sigma, images, generator)
    # a σ of 1e-3 pixels is the identity to the last bit: the kernel is one pixel wide
    drawn = torch.where(blurred, drawn, 1e-3)
    rows, columns = (_gaussian(drawn, length) for length in images.shape[-2:])
    return separable(images, rows, columns).clamp_(0, 1)


def solarise(images: torch.Tensor, probability: float, generator: torch.Generator | None) -> torch.Tensor:
    """x ↦ 1 − x where x ≥ ½ [paper: official Barlow Twins code, threshold 128 of 255], on a share of the samples."""
    chosen = uniform((len(images), 1, 1, 1), 0, 1, images, generator) < probability
    return images - chosen.to(images) * (2 * images - 1).clamp_(min=0)  # three passes: `where` on a mask takes thrice


def intensity_noise(
    images: torch.Tensor, intensity: float, noise: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Each image times 1 ± intensity, plus normal noise of standard deviation `noise`, clamped to [0, 1]."""
    factor = uniform((len(images), 1, 1, 1), 1 - intensity, 1 + intensity, images, generator)
    changed = images * factor
    if noise:
        changed = changed + noise * normal(tuple(images.shape), images, generator)
    return changed.clamp_(0, 1)


def _gaussian(sigma: torch.Tensor, length: int) -> torch.Tensor:
    """(N, 1, 1) σ -> (N, length, length), each row a Gaussian about its own pixel, cut at 4 σ, with sum 1."""
    pixel = torch.arange(length, device=sigma.device, dtype=sigma.dtype)
    exponent = -0.5 * ((pixel[:, None] - pixel) / sigma) ** 2
    # cut, and clamped before exp: denormal numbers would make exp ten times and the product fifty times as slow
    weights = torch.where(exponent >= -8, torch.exp(exponent.clamp(min=-8)), 0.0)
    return weights / weights.sum(2, keepdim=True)


@lru_cache(maxsize=16)
def _constants(
    channels: int, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(C, C) matrices: luma in every channel; chroma (pixel minus luma); chroma turned by a quarter circle in YIQ.

    Cached: a copy to the device in every step would wait for it.
    """
    eye = torch.eye(channels, dtype=torch.float64)
    if channels == 1:
        matrices = eye, torch.zeros_like(eye), torch.zeros_like(eye)
    else:
        yiq = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], dtype=torch.float64)
        yiq[1:] -= yiq[1:].mean(1, keepdim=True)  # exactly no chroma in grey
        quarter = torch.tensor([[0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
        luma = yiq[:1].expand(3, 3)
        matrices = luma, eye - luma, torch.linalg.inv(yiq) @ quarter @ yiq
    luma, chroma, turned = (m.to(device, dtype) for m in matrices)
    return luma, chroma, turned
