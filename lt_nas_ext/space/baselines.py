"""Networks that no search found, to stand beside every result: two designed by hand, and published cells."""

from __future__ import annotations

import torch
from torch import nn as tnn
from torch.nn import functional as F

from lt_nas_ext.space.genotype import Genotype
from lt_nas_ext.space.layout import check_images, check_sizes

DARTS_V2: Genotype = Genotype.from_darts(
    "Genotype("
    "normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
    " ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],"
    " normal_concat=[2, 3, 4, 5],"
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),"
    " ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],"
    " reduce_concat=[2, 3, 4, 5])"
)
"""The cells that second-order DARTS found on CIFAR-10 (arXiv:1806.09055, figures 4 and 5) [paper]."""

FAIR_DARTS_A: Genotype = Genotype.from_darts(
    "Genotype("
    "normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0), ('sep_conv_3x3', 5, 0)],"
    " normal_concat=range(2, 6),"
    "reduce=[('max_pool_3x3', 2, 0), ('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1),"
    " ('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), ('skip_connect', 5, 1)],"
    " reduce_concat=[2, 3, 4, 5])"
)
"""FairDARTS-a, the first of the seven that FairDARTS' authors found on CIFAR-10, and what their training command names
(arXiv:1911.12126; its edges as in fairdarts/genotypes.py of github.com/xiaomi-automl/FairDARTS) [paper]. Node 3 of the
normal cell has no input, so it vanishes. At 36 channels and 20 layers it has 2.36 M parameters; the 2.83 M that they
state include the auxiliary classifier."""


class ResNet32(tnn.Module):
    """ResNet-32 for small images: 6n + 2 layers with n = 5, widths 16, 32, 64 (arXiv:1512.03385, section 4.2).

    Shortcuts have no parameters (option A): where the width doubles, every second pixel, the new channels zero, half
    of them on each side. Convolutions and the classifier start as in arXiv:1502.01852, with the fan in
    [paper: LDAM-DRW].

    Args:
        num_classes: outputs of the classifier.
        in_channels: channels of an image.

    >>> import torch, lt_nas_ext as lt
    >>> net = lt.space.ResNet32(num_classes=10, in_channels=1)
    >>> net(torch.ones(2, 1, 9, 8)).shape, net.features(torch.ones(2, 1, 9, 8)).shape
    (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    feature_dim = 64

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels)
        self.in_channels = in_channels
        self.stem = tnn.Sequential(
            tnn.Conv2d(in_channels, 16, 3, padding=1, bias=False), tnn.BatchNorm2d(16), tnn.ReLU()
        )
        widths = [16] * 5 + [32] * 5 + [64] * 5
        self.blocks = tnn.Sequential(
            *(_ResidualBlock(c_in, c_out) for c_in, c_out in zip([16, *widths], widths, strict=False))
        )
        self.classifier = tnn.Linear(self.feature_dim, num_classes)
        for module in self.modules():
            if isinstance(module, tnn.Conv2d | tnn.Linear):
                tnn.init.kaiming_normal_(module.weight)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the classifier sees, (N, 64), of images (N, in_channels, H, W)."""
        check_images(x, self.in_channels)
        return self.blocks(self.stem(x)).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        return self.classifier(self.features(x))


class _ResidualBlock(tnn.Module):
    """Two 3x3 convolutions beside a shortcut; halves the image where it doubles the width."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.stride = c_out // c_in
        self.new_channels = c_out - c_in
        self.conv1 = tnn.Conv2d(c_in, c_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = tnn.BatchNorm2d(c_out)
        self.conv2 = tnn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = tnn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.new_channels:
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride],
                (0, 0, 0, 0, self.new_channels // 2, self.new_channels // 2),
            )
        return F.relu(x + y)


class SmallConvNet(tnn.Module):
    """A small network designed by hand: three layers of convolution 3x3, batch norm and ReLU, widths C, 2C, 4C.

    The second and the third layer halve the image, as the reduction cells of a searched network do.

    Args:
        num_classes: outputs of the classifier.
        in_channels: channels of an image.
        channels: C.

    >>> import torch, lt_nas_ext as lt
    >>> lt.space.SmallConvNet(num_classes=10, in_channels=1, channels=8)(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, channels: int = 32) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels, channels=channels)
        self.in_channels = in_channels
        self.feature_dim = 4 * channels
        self.layers = tnn.Sequential(
            *_conv_bn_relu(in_channels, channels, stride=1),
            *_conv_bn_relu(channels, 2 * channels, stride=2),
            *_conv_bn_relu(2 * channels, 4 * channels, stride=2),
        )
        self.classifier = tnn.Linear(self.feature_dim, num_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the classifier sees, (N, 4C), of images (N, in_channels, H, W)."""
        check_images(x, self.in_channels)
        return self.layers(x).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        return self.classifier(self.features(x))


def _conv_bn_relu(c_in: int, c_out: int, stride: int) -> list[tnn.Module]:
    return [tnn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), tnn.BatchNorm2d(c_out), tnn.ReLU()]
