"""Views and augmentations: laws that hold for all of them, and each operation against its definition."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lt_nas_ext import data
from lt_nas_ext.data import VIEWS, DigitView, PhotoView
from lt_nas_ext.data.colour import LUMA, colour_jitter, gaussian_blur, intensity_noise, solarise
from lt_nas_ext.data.geometry import cutout, erase, pad_crop_flip, random_affine, random_resized_crop, separable
from lt_nas_ext.errors import UserError

AUGMENTS = [(name, cut) for name in data.AUGMENTATIONS for cut in (False, True)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n, c=3, h=16, w=None, seed=0, dtype=torch.float32):
    return torch.rand(n, c, h, w or h, generator=seeded(seed), dtype=dtype)


SIZES = st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(4, 20), st.integers(4, 20))


@given(st.sampled_from(sorted(VIEWS)), SIZES, st.integers(0, 2**31))
def test_laws_of_the_views(name, size, seed):
    n, c, h, w = size
    images = pictures(n, c, h, w, seed)
    before = images.clone()
    views = data.two_views(name)(images, seeded(seed))
    assert torch.equal(images, before)
    again = data.two_views(name)(images, seeded(seed))
    for view, same in zip(views, again, strict=True):
        assert view.shape == images.shape
        assert view.dtype == torch.float32
        assert view.min() >= 0
        assert view.max() <= 1
        assert torch.equal(view, same)


@given(st.sampled_from(AUGMENTS), SIZES, st.integers(0, 2**31))
def test_laws_of_the_supervised_augmentations(name_cutout, size, seed):
    n, c, h, w = size
    images = pictures(n, c, h, w, seed)
    transform = data.augment(*name_cutout)
    result = transform(images, seeded(seed))
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(result, transform(images, seeded(seed)))


@pytest.mark.parametrize("name", sorted(VIEWS))
@pytest.mark.parametrize("channels", [1, 3])
def test_each_sample_draws_its_own(name, channels):
    same = pictures(1, channels, 16).expand(32, -1, -1, -1)
    a, b = data.two_views(name)(same, seeded())
    for views in (a, b, torch.cat([a, b])):
        flat = views.flatten(1)
        distances = (flat[:, None] - flat).abs().amax(2)
        assert (distances + torch.eye(len(flat)) > 1e-3).all()


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_types(name):
    images = pictures(3)
    a, _ = data.two_views(name)((images * 255).round().to(torch.uint8), seeded())
    expected, _ = data.two_views(name)((images * 255).round() / 255, seeded())
    assert torch.equal(a, expected)
    assert data.two_views(name)(images.double(), seeded())[0].dtype == torch.float64
    torch.manual_seed(0)
    first = data.two_views(name)(images)[0]  # no generator: the global one
    torch.manual_seed(0)
    assert torch.equal(first, data.two_views(name)(images)[0])


def test_the_views_are_those_of_the_papers():
    jitter = {"jitter": (0.4, 0.4, 0.2, 0.1), "jitter_probability": 0.8, "grey": 0.2, "crop": (0.08, 1.0), "flip": 0.5}
    assert VIEWS["barlow"].a == PhotoView(blur=1.0, solarise=0.0, **jitter)
    assert VIEWS["barlow"].b == PhotoView(blur=0.1, solarise=0.2, **jitter)
    assert VIEWS["barlow-cifar"].a == PhotoView(blur=0.0, solarise=0.0, **jitter)
    assert VIEWS["barlow-cifar"].b == PhotoView(blur=0.0, solarise=0.2, **jitter)
    assert VIEWS["ssnas"].a.jitter == (0.8, 0.8, 0.8, 0.2)
    assert VIEWS["digits"].a == VIEWS["digits"].b == DigitView(15.0, 0.15, 1.0, 0.3, 0.08, 2)


# ---------------------------------------------------------------------------------------------------------- geometry


def test_a_crop_of_everything_is_the_image_or_its_mirror():
    images = pictures(64, h=9, w=12, dtype=torch.float64)
    whole = random_resized_crop(images, (1.0, 1.0), 0.5, seeded(), ratio=(1.0, 1.0))
    # 12×9 with ratio 1 in pixels does not fit at full area: the fallback is the whole image
    mirrored = (whole - images.flip(3)).abs().amax((1, 2, 3)) < 1e-12
    kept = (whole - images).abs().amax((1, 2, 3)) < 1e-12
    assert (mirrored ^ kept).all()
    assert 15 < mirrored.sum() < 49


def test_crops_stay_inside_and_have_the_drawn_area():
    """On a ramp the view's own slope and values give the box away."""
    n, side = 1000, 32
    ramp = ((torch.arange(side) + 0.5) / side).expand(n, 1, side, side).double()
    for flip in (0.0, 1.0):
        across = random_resized_crop(ramp, (0.08, 1.0), flip, seeded(1))[:, 0, side // 2]
        down = random_resized_crop(ramp.transpose(2, 3), (0.08, 1.0), flip, seeded(1))[:, 0, :, side // 2]
        width = (across[:, 20] - across[:, 10]) * side / 10
        height = (down[:, 20] - down[:, 10]) * side / 10
        assert ((width < 0) == (flip == 1.0)).all()
        area, ratio = width.abs() * height, width.abs() / height
        assert area.min() > 0.08 - 1e-9
        assert area.max() <= 1 + 1e-9
        assert ratio.min() > 3 / 4 - 1e-9
        assert ratio.max() < 4 / 3 + 1e-9
        # accepted areas are a little smaller than uniform ones (mean .54): large boxes often do not fit
        assert 0.45 < area.mean() < 0.54
        assert across.min() >= 0.5 / side - 1e-9
        assert across.max() <= 1 - 0.5 / side + 1e-9


def test_separable_is_two_matrix_products():
    images, rows, columns = pictures(2, 3, 5, 6), torch.rand(2, 4, 5), torch.rand(2, 7, 6)
    expected = torch.einsum("nij,ncjk,nlk->ncil", rows, images, columns)
    torch.testing.assert_close(separable(images, rows, columns), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pad_crop_flip_moves_pixels_without_changing_them(dtype):
    side, pad = 8, 2
    images = (torch.arange(1, side * side + 1).view(1, 1, side, side) * torch.ones(400, 3, 1, 1)).to(dtype)
    padded = torch.nn.functional.pad(images[0], (pad,) * 4)
    windows = {}
    for dy, dx in itertools.product(range(2 * pad + 1), repeat=2):
        window = padded[:, dy : dy + side, dx : dx + side]
        windows[(dy, dx, False)], windows[(dy, dx, True)] = window, window.flip(2)
    seen = []
    for moved in pad_crop_flip(images, pad, 0.5, seeded()):
        seen.append(next(key for key, window in windows.items() if torch.equal(moved, window)))
    assert len(set(seen)) == len(windows)  # all 25 places, both ways round
    assert 150 < sum(mirrored for *_, mirrored in seen) < 250


def test_affine_identity_rotation_and_shift():
    images = pictures(8, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(random_affine(images, 0, 0, 0, seeded()), images)
    spot = torch.zeros(200, 1, 21, 21, dtype=torch.float64)
    spot[:, :, 10, 10] = 1.0  # the centre
    turned = random_affine(spot, 15, 0, 0, seeded())
    torch.testing.assert_close(turned[:, 0, 10, 10], spot[:, 0, 10, 10])  # a rotation keeps it
    where = torch.arange(21, dtype=torch.float64)
    moved = random_affine(spot, 0, 0, 1, seeded())
    centre_x = (moved.sum(2) * where).sum(2) - 10
    assert centre_x.abs().max() <= 1 + 1e-9
    assert centre_x.min() < -0.9
    assert centre_x.max() > 0.9


def test_affine_angle_and_scale_on_oblong_images():
    """A spot right of the centre: its place after the map gives angle and scale away."""
    spot = torch.zeros(500, 1, 41, 61, dtype=torch.float64)
    spot[:, :, 19:22, 41:44] = 1.0  # 12 pixels right of (20, 30)
    y, x = torch.arange(41.0, dtype=torch.float64) - 20, torch.arange(61.0, dtype=torch.float64) - 30
    moved = random_affine(spot, 15, 0.15, 0, seeded())[:, 0]
    mass = moved.sum((1, 2))
    cx, cy = (moved.sum(1) * x).sum(1) / mass, (moved.sum(2) * y).sum(1) / mass
    angle, radius = torch.atan2(cy, cx) * (180 / math.pi), torch.hypot(cx, cy) / 12
    assert 14 < angle.abs().max() < 15.2
    assert 13 < (angle.max() - angle.min()) / 2 < 15.2
    assert 0.84 < radius.min() < 0.87
    assert 1.13 < radius.max() < 1.16


def test_erase_is_one_whole_square():
    erased = erase(torch.ones(300, 1, 8, 8), 2, 0.0, seeded()) == 0
    assert (erased.sum((1, 2, 3)) == 4).all()
    assert (erased.any(2).sum(2) == 2).all()
    assert erased.any(0).all()  # every pixel can go


@pytest.mark.parametrize(("side", "expected"), [(15, 0), (16, 8), (32, 16)])
def test_cutout_side(side, expected):
    cut = cutout(torch.ones(500, 3, side, side), seeded()) == 0
    assert cut.sum((1, 2, 3)).max() == 3 * expected**2
    if expected:
        assert cut.sum((1, 2, 3)).min() <= 3 * (expected // 2 + 1) ** 2  # cut at the border
        assert cut.any(0).all()
        assert len({tuple(row.nonzero().flatten().tolist()) for row in cut[:, 0].any(2)}) > 5


def test_cutout_fills_with_the_mean():
    mean = (0.2, 0.4, 0.6)
    filled = data.augment("none", cutout=True, fill=mean)(torch.ones(4, 3, 32, 32), seeded())
    for image in filled:
        hole = image[:, (image[0] != 1)]
        torch.testing.assert_close(hole, torch.tensor(mean)[:, None].expand_as(hole))
    normalized = data.normalize(filled, mean, (1.0,) * 3)
    assert (normalized[:, 0][filled[:, 0] != 1] == 0).all()  # as DARTS: zero after normalisation


# ------------------------------------------------------------------------------------------------------------ colour


def test_brightness_contrast_and_saturation_alone():
    x = 0.3 + 0.3 * pictures(500, dtype=torch.float64)  # far from the clamp
    luma = (x * torch.tensor(LUMA, dtype=x.dtype).view(3, 1, 1)).sum(1, keepdim=True)
    for k, centre in ((0, torch.zeros(())), (1, luma.mean((2, 3), keepdim=True)), (2, luma)):
        strengths = [0.0] * 4
        strengths[k] = 0.3
        changed = colour_jitter(x, tuple(strengths), 1.0, seeded())
        factor = ((changed - centre) / (x - centre)).flatten(1)
        # away from its own centre every pixel of a sample has the same factor
        reliable = (x - centre).abs().flatten(1) > 1e-3
        spread = torch.where(reliable, (factor - factor.median(1, keepdim=True).values).abs(), 0)
        assert spread.max() < 1e-9
        assert 0.7 <= factor.median(1).values.min() < 0.72
        assert 1.28 < factor.median(1).values.max() <= 1.3


def test_hue_turns_chroma_and_keeps_luma():
    x = 0.4 + 0.2 * pictures(300, h=4, dtype=torch.float64)
    turned = colour_jitter(x, (0.0, 0.0, 0.0, 0.1), 1.0, seeded())
    weights = torch.tensor(LUMA, dtype=x.dtype).view(3, 1, 1)
    torch.testing.assert_close((turned * weights).sum(1), (x * weights).sum(1))
    assert (turned - x).abs().max() > 0.02
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(colour_jitter(grey, (0.0, 0.0, 0.0, 0.5), 1.0, seeded()), grey)


def test_a_half_turn_of_hue_makes_red_cyan():
    red = torch.tensor([0.6, 0.4, 0.4], dtype=torch.float64).view(1, 3, 1, 1).expand(2000, 3, 2, 2)
    turned = colour_jitter(red, (0.0, 0.0, 0.0, 0.5), 1.0, seeded())[:, :, 0, 0]
    luma = (red[0, :, 0, 0] * torch.tensor(LUMA, dtype=red.dtype)).sum()
    opposite = 2 * luma - red[0, :, 0, 0]
    assert (turned - opposite).abs().amax(1).min() < 1e-3


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_four_changes_commute(order, monkeypatch):
    """Why no order is drawn: one after another, in any order, they give what the one matrix gives."""
    from lt_nas_ext.data import colour

    x = 0.4 + 0.2 * pictures(6, h=5, dtype=torch.float64)
    draws = torch.rand(6, 6, 1, 1, generator=seeded(), dtype=torch.float64)
    monkeypatch.setattr(colour, "uniform", lambda *args: draws.clone())
    strengths = (0.3, 0.3, 0.3, 0.1)
    at_once = colour_jitter(x, strengths, 1.0, None)
    stepwise = x
    for k in order:
        only = tuple(s if i == k else 0.0 for i, s in enumerate(strengths))
        stepwise = colour_jitter(stepwise, only, 1.0, None)
    torch.testing.assert_close(at_once, stepwise)


def test_shares_of_jitter_grey_blur_and_solarise():
    n = 4000
    x = pictures(1, h=4).expand(n, -1, -1, -1)

    def share(changed):
        return (changed - x).abs().amax((1, 2, 3)).gt(1e-6).double().mean().item()

    def close(found, p):
        return abs(found - p) < 3 * math.sqrt(p * (1 - p) / n)

    assert close(share(colour_jitter(x, (0.4, 0.4, 0.2, 0.1), 0.8, seeded())), 0.8)
    greyed = colour_jitter(x, (0.0,) * 4, 0.0, seeded(), grey_probability=0.2)
    assert close(share(greyed), 0.2)
    assert close((greyed[:, :1] - greyed).abs().amax((1, 2, 3)).lt(1e-6).double().mean().item(), 0.2)
    assert close(share(gaussian_blur(x, 0.1, seeded(), sigma=(0.5, 2.0))), 0.1)
    assert close(share(solarise(x, 0.2, seeded())), 0.2)


def test_grey_images_skip_what_is_colour():
    grey = 0.3 + 0.3 * pictures(50, 1)
    torch.testing.assert_close(colour_jitter(grey, (0.0, 0.0, 0.8, 0.2), 1.0, seeded(), grey_probability=1.0), grey)
    assert not torch.equal(colour_jitter(grey, (0.4, 0.4, 0.0, 0.0), 1.0, seeded()), grey)
    # three equal channels and one are the same picture
    three = colour_jitter(grey.expand(-1, 3, -1, -1), (0.4, 0.4, 0.2, 0.1), 0.8, seeded(), 0.2)
    one = colour_jitter(grey, (0.4, 0.4, 0.2, 0.1), 0.8, seeded(), 0.2)
    torch.testing.assert_close(three, one.expand(-1, 3, -1, -1))


def test_blur_is_a_gaussian():
    spot = torch.zeros(50, 1, 41, 41, dtype=torch.float64)
    spot[:, :, 20, 20] = 1.0
    x = torch.arange(41.0, dtype=torch.float64) - 20
    blurred = gaussian_blur(spot, 1.0, seeded(), sigma=(1.5, 1.5))
    profile = torch.exp(-0.5 * (x / 1.5) ** 2) * (x.abs() <= 6)
    expected = profile[:, None] * profile / profile.sum() ** 2
    torch.testing.assert_close(blurred, expected.expand_as(blurred))
    drawn = gaussian_blur(spot, 1.0, seeded())
    sigma = ((drawn.sum(2)[:, 0] * x**2).sum(1)).sqrt()
    assert sigma.max() < 2.0
    assert len(sigma.unique()) > 40
    flat = torch.full((3, 3, 12, 12), 0.4)
    torch.testing.assert_close(gaussian_blur(flat, 1.0, seeded()), flat)  # the border stays as light as the rest
    same = pictures(3)
    torch.testing.assert_close(gaussian_blur(same, 0.0, seeded()), same, rtol=0, atol=0)


def test_blur_has_no_denormal_weights():
    """They would make the matrix product fifty times as slow on a CPU."""
    from lt_nas_ext.data.colour import _gaussian

    weights = _gaussian(torch.linspace(0.1, 2.0, 200).view(-1, 1, 1), 64)
    assert ((weights == 0) | (weights > 1e-5)).all()


def test_solarise():
    x = pictures(2)
    torch.testing.assert_close(solarise(x, 1.0, seeded()), torch.where(x >= 0.5, 1 - x, x))


def test_intensity_and_noise():
    x = torch.full((3000, 1, 8, 8), 0.5, dtype=torch.float64)
    scaled = intensity_noise(x, 0.3, 0.0, seeded())
    assert (scaled.amax((1, 2, 3)) == scaled.amin((1, 2, 3))).all()
    assert 0.35 <= scaled.min() < 0.352
    assert 0.648 < scaled.max() <= 0.65
    noisy = intensity_noise(x, 0.0, 0.08, seeded())
    assert noisy.std().item() == pytest.approx(0.08, rel=0.01)


# ---------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.cuda
@pytest.mark.parametrize("name", [*sorted(VIEWS), "cifar", "digits-light"])
def test_devices_agree(name):
    transforms = {"cifar": data.augment("cifar", cutout=True), "digits-light": data.augment("digits")}
    transform = transforms.get(name) or data.two_views(name)
    images = pictures(8, 3, 32)
    here, there = transform(images, seeded()), transform(images.cuda(), seeded())
    for a, b in zip(here, there, strict=True):
        assert b.is_cuda
        torch.testing.assert_close(a, b.cpu(), rtol=0, atol=2e-3)  # TF32 may serve the matrix products
    on_device = transform(images.cuda(), torch.Generator("cuda").manual_seed(0))
    assert on_device[0].is_cuda


def test_normalize():
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = (images.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(data.normalize(images, mean, std), expected)
    torch.testing.assert_close(data.normalize(images.float() / 255, mean, std), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.two_views("simclr"), "views: got 'simclr'; wanted one of barlow, barlow-cifar, ssnas, digits"),
        (lambda: data.augment("autoaugment"), "augment: got 'autoaugment'; wanted one of none, cifar, digits"),
        (lambda: data.two_views("digits")(torch.rand(8, 8)), r"images: got \(8, 8\); wanted a tensor \(N, C, H, W\)"),
        (lambda: data.two_views("digits")(torch.rand(2, 2, 8, 8)), r"C = 1 \(grey\) or 3 \(RGB\)"),
        (lambda: data.two_views("digits")([1]), "images: got list"),
        (lambda: data.two_views("barlow")(torch.ones(2, 3, 8, 8).long()), "images: got torch.int64; wanted floats"),
        (
            lambda: data.normalize(torch.rand(2, 3, 8, 8), (0.5,), (0.5,)),
            "mean, std: got 1 and 1 values for 3 channels",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call()
