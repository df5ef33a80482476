"""Two views of a batch for self-supervised losses, by the names of the papers that use them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch

from lt_nas_ext.data.colour import colour_jitter, gaussian_blur, intensity_noise, solarise
from lt_nas_ext.data.draws import as_floats
from lt_nas_ext.data.geometry import erase, random_affine, random_resized_crop
from lt_nas_ext.errors import UserError


class Augmentation(Protocol):
    """(N, C, H, W) images in [0, 1] and a generator -> images of the same shape, each sample with its own draw."""

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor: ...


@dataclass(frozen=True)
class PhotoView:
    """Random resized crop, flip, colour jitter, grey, blur, solarise, in this order [paper: Barlow Twins, SimCLR].

    Attributes:
        crop: range of the crop's area, as a share of the image.
        flip: probability of mirroring.
        jitter: strengths of brightness, contrast, saturation, hue.
        jitter_probability: of jittering.
        grey: probability of losing colour.
        blur: probability of a Gaussian blur, σ in .1 … 2 pixels.
        solarise: probability of inverting what is above ½.

    Grey images (C = 1): saturation, hue and `grey` have no meaning and do nothing.
    """

    crop: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grey: float = 0.2
    blur: float = 0.0
    solarise: float = 0.0

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """One view of each image."""
        view = random_resized_crop(as_floats(images), self.crop, self.flip, generator)
        view = colour_jitter(view, self.jitter, self.jitter_probability, generator, self.grey)
        if self.blur:
            view = gaussian_blur(view, self.blur, generator)
        return solarise(view, self.solarise, generator) if self.solarise else view


@dataclass(frozen=True)
class DigitView:
    """Rotation, scale, shift, intensity, noise and one erased square; no flip, no colour [ours].

    A mirrored digit is another sign, and colour is not in it. Black (0) is the background that moves in and erases.

    Attributes:
        rotation: ± degrees.
        scale: ± share of the size.
        shift: ± pixels, each way.
        intensity: ± share of the brightness.
        noise: standard deviation of normal noise.
        erase: side of the erased square, pixels; 0 erases nothing.
    """

    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 1.0
    intensity: float = 0.3
    noise: float = 0.08
    erase: int = 2

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """One view of each image."""
        view = random_affine(as_floats(images), self.rotation, self.scale, self.shift, generator)
        if self.intensity or self.noise:
            view = intensity_noise(view, self.intensity, self.noise, generator)
        return erase(view, self.erase, 0.0, generator) if self.erase else view


@dataclass(frozen=True)
class TwoViews:
    """Two independent views of a batch: `a, b = views(images, generator)`.

    Args of the call: `images` (N, C, H, W), float in [0, 1] (or uint8), C = 1 or 3, on any device; `generator`, the
    source of every draw, on the same device or on the CPU (PyTorch's global one by default). Both results have the
    shape of `images`, their float type (float32 for uint8), and values in [0, 1].
    """

    a: Augmentation
    b: Augmentation

    def __call__(
        self, images: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """View A and view B of each image."""
        images = as_floats(images)
        return self.a(images, generator), self.b(images, generator)


_BARLOW_CIFAR = PhotoView(solarise=0.0), PhotoView(solarise=0.2)
# SimCLR with its full colour strength; the crop, the flip and the blur's probability are SimCLR's [ours]
_SSNAS = PhotoView(jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5)

VIEWS: dict[str, TwoViews] = {
    "barlow": TwoViews(PhotoView(blur=1.0, solarise=0.0), PhotoView(blur=0.1, solarise=0.2)),
    "barlow-cifar": TwoViews(*_BARLOW_CIFAR),
    "ssnas": TwoViews(_SSNAS, _SSNAS),
    "digits": TwoViews(DigitView(), DigitView()),
}


def two_views(name: str) -> TwoViews:
    """The pair of views of that name.

    `barlow` [paper: Zbontar et al. 2021]: crop .08 … 1, flip, jitter .4/.4/.2/.1 with p .8, grey .2; A blurs always, B
    blurs with p .1 and solarises with p .2. `barlow-cifar`: the same without blur. `ssnas`: jitter .8/.8/.8/.2 with
    p .8, grey .2, blur .5. `digits` [ours]: see `DigitView`.

    Raises:
        UserError: an unknown name.

    >>> a, b = two_views("digits")(torch.rand(4, 1, 8, 8), torch.Generator().manual_seed(0))
    >>> a.shape, torch.equal(a, b)
    (torch.Size([4, 1, 8, 8]), False)
    """
    if name not in VIEWS:
        raise UserError(f"views: got {name!r}; wanted one of {', '.join(VIEWS)}")
    return VIEWS[name]


def normalize(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """(x − mean) / std by channel; uint8 is brought to [0, 1] first.

    Args:
        images: (N, C, H, W), uint8 or float in [0, 1].
        mean: C values, as `Dataset.mean`.
        std: C values, as `Dataset.std`.

    Raises:
        UserError: not C values each.

    >>> normalize(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), (0.5,), (0.25,)).item()
    2.0
    """
    images = as_floats(images)
    if len(mean) != images.shape[1] or len(std) != images.shape[1]:
        raise UserError(f"mean, std: got {len(mean)} and {len(std)} values for {images.shape[1]} channels")
    centre, width = _channel_values(tuple(mean), tuple(std), images.device, images.dtype)
    return (images - centre) / width


@lru_cache(maxsize=32)
def _channel_values(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cached: a copy to the device in every step would wait for it."""
    centre, width = (torch.tensor(v, device=device, dtype=dtype).view(-1, 1, 1) for v in (mean, std))
    return centre, width
