"""The candidate operations of the DARTS search space (arXiv:1806.09055, section 3.1), for images of any size.

Inside a module the parameters keep the names of the original code (`op.1.weight`, `conv_1.weight`, …), so that a
checkpoint of it converts by renaming prefixes only.
"""

from __future__ import annotations

import torch
from torch import nn

from lt_nas_ext.errors import UserError
from lt_nas_ext.nn.diagonal_pixels import diagonal_pixels

DARTS: tuple[str, ...] = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The 8 candidates in the order of the paper's code: columns of α follow it [paper: DARTS]."""

FAIR_DARTS: tuple[str, ...] = DARTS[1:]
"""The 7 candidates without `none`, the default of FairDARTS' code [paper: FairDARTS]."""


def check_primitives(primitives: tuple[str, ...]) -> None:
    """Raise `UserError` where a name is unknown or repeated, or nothing but `none` is there."""
    for name in primitives:
        if name not in DARTS:
            raise UserError(f"primitives: got {name!r}; wanted names out of {', '.join(DARTS)}")
    if len(set(primitives)) != len(primitives):
        raise UserError(f"primitives: got {primitives}; wanted every name once")
    if not set(primitives) - {"none"}:
        raise UserError(f"primitives: got {primitives}; wanted at least one candidate that is not 'none'")


def make_primitive(
    name: str, channels: int, stride: int, affine: bool = True, pool_bn: bool = False
) -> nn.Module | None:
    """The candidate operation called `name`, from (N, channels, H, W) to (N, channels, ⌈H/stride⌉, ⌈W/stride⌉).

    Args:
        name: one of `nn.DARTS`.
        channels: channels of input and output.
        stride: 1, or 2 on the edges from the inputs of a reduction cell.
        affine: batch norms have a weight and a bias: True in a derived network, False in a supernet [paper: DARTS].
        pool_bn: a pool is followed by a batch norm without them, as in a supernet [paper: DARTS].

    Returns:
        The module, or None for "none": a candidate that is identically zero needs nothing.

    Raises:
        UserError: the name is unknown, channels are no positive number, or the stride is neither 1 nor 2.

    >>> import torch, lt_nas_ext as lt
    >>> lt.nn.make_primitive("sep_conv_5x5", channels=4, stride=2)(torch.ones(2, 4, 7, 9)).shape
    torch.Size([2, 4, 4, 5])
    >>> lt.nn.make_primitive("none", channels=4, stride=1) is None
    True
    """
    if name not in DARTS:
        raise UserError(f"name: got {name!r}; wanted one of {', '.join(DARTS)}")
    if type(channels) is not int or channels < 1:
        raise UserError(f"channels: got {channels!r}; wanted the channels of the input, at least 1")
    if stride not in (1, 2):
        raise UserError(f"stride: got {stride}; wanted 1 or 2")
    if name == "none":
        return None
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    kernel = int(name[-1])
    if name.startswith("sep_conv"):
        return SepConv(channels, channels, kernel, stride, affine)
    if name.startswith("dil_conv"):
        return DilConv(channels, channels, kernel, stride, affine)
    pool: nn.Module = (
        nn.MaxPool2d(kernel, stride, padding=1)
        if name.startswith("max")
        # The border is averaged over the pixels that exist.
        else nn.AvgPool2d(kernel, stride, padding=1, count_include_pad=False)
    )
    return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False)) if pool_bn else pool


class ReLUConvBN(nn.Module):
    """ReLU, convolution without bias, batch norm: brings a cell's input to the cell's width.

    >>> ReLUConvBN(3, 8)(torch.ones(2, 3, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, padding: int = 0, affine: bool = True
    ) -> None:
        super().__init__()
        self.op = nn.Sequential(
            # Never in place: other edges read the same input.
            nn.ReLU(),
            nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(c_out, affine=affine),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, …)."""
        return self.op(x)


def _separable_unit(c_in: int, c_out: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    """ReLU, depthwise k x k, pointwise, batch norm; padded so that only the stride shrinks the image."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(c_in, c_in, kernel, stride, padding, dilation, groups=c_in, bias=False),
        nn.Conv2d(c_in, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    ]


class SepConv(nn.Module):
    """Separable convolution: ReLU, depthwise, pointwise, batch norm, twice; the stride on the first.

    >>> SepConv(4, 6, kernel=3, stride=2)(torch.ones(2, 4, 8, 8)).shape
    torch.Size([2, 6, 4, 4])
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__()
        self.op = nn.Sequential(
            *_separable_unit(c_in, c_in, kernel, stride, 1, affine),
            *_separable_unit(c_in, c_out, kernel, 1, 1, affine),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.op(x)


class DilConv(nn.Module):
    """Dilated separable convolution: ReLU, depthwise with dilation 2, pointwise, batch norm, once.

    >>> DilConv(4, 4, kernel=5)(torch.ones(2, 4, 3, 3)).shape
    torch.Size([2, 4, 3, 3])
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__()
        self.op = nn.Sequential(*_separable_unit(c_in, c_out, kernel, stride, 2, affine))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return self.op(x)


class FactorizedReduce(nn.Module):
    """Halves an image without losing a pixel: a pointwise convolution of every second pixel, another of those between.

    The pixels are picked before the convolution: the same products as its stride of 2, whose weight gradient in oneDNN
    writes past its workspace where channels_last images have fewer channels than a vector (uxlfoundation/oneDNN#6035).
    On even sizes it is the original's [paper: DARTS]; an odd size, at which the original fails, gives ⌈H/2⌉ x ⌈W/2⌉:
    the offset half sees one row or column of zeros beyond the border [ours].

    >>> FactorizedReduce(4, 6)(torch.ones(2, 4, 7, 8)).shape
    torch.Size([2, 6, 4, 4])
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out - c_out // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, ⌈H/2⌉, ⌈W/2⌉)."""
        return self.of(*diagonal_pixels(x))

    def of(self, upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        """The same of an image's `diagonal_pixels`, which several reductions of one image may share."""
        return self.bn(torch.cat([self.conv_1(upper), self.conv_2(lower)], dim=1))
