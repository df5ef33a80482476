"""BarlowTwinsLoss as a drop-in criterion, and its projector."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lt_nas_ext as lt
from lt_nas_ext.errors import UserError
from lt_nas_ext.nn import BarlowTwinsLoss, projector


def test_without_a_projector_it_is_the_operator():
    za, zb = torch.randn(2, 12, 20, requires_grad=True)
    value = BarlowTwinsLoss(lambd=0.1, scale=0.5, form="cross")(za, zb)
    assert torch.equal(value, lt.ops.barlow_twins_loss(za, zb, lambd=0.1, scale=0.5, form="cross"))


def test_each_view_goes_through_the_projector_on_its_own():
    torch.manual_seed(0)
    crit = BarlowTwinsLoss(projector((6, 16, 16, 8)), lambd=0.1).double()
    za, zb = torch.randn(2, 10, 6, dtype=torch.float64)
    value = crit(za, zb)
    values = [crit.projector(z) for z in (za, zb)]
    torch.testing.assert_close(value, lt.ops.barlow_twins_loss_eager(*values, lambd=0.1, form="cross"))
    assert int(crit.projector[1].num_batches_tracked) == 4  # two views, twice


def test_it_drops_into_a_training_loop():
    torch.manual_seed(0)
    x = torch.randn(64, 10)
    net = nn.Linear(10, 8)
    crit = BarlowTwinsLoss(projector((8, 16, 16)))
    optimizer = torch.optim.SGD([*net.parameters(), *crit.parameters()], lr=0.05)
    losses = []
    for _ in range(30):
        views = (net(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        loss = crit(*views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_its_state_is_the_projectors():
    crit = BarlowTwinsLoss(projector((4, 5, 6)))
    again = BarlowTwinsLoss(projector((4, 5, 6)))
    again.load_state_dict(crit.state_dict())
    assert set(crit.state_dict()) >= {"projector.0.weight", "projector.1.running_mean", "projector.3.weight"}
    assert list(BarlowTwinsLoss().parameters()) == []
    assert "lambd=0.005, scale=1.0, form='auto'" in repr(BarlowTwinsLoss())


def test_the_official_projector():
    with torch.device("meta"):
        layers = list(projector((2048, 8192, 8192, 8192)))
    assert [type(layer) for layer in layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert all(layer.bias is None for layer in layers if isinstance(layer, nn.Linear))
    assert layers[-1].weight.shape == (8192, 8192)


def test_the_projector_of_ssnas():
    assert [type(layer) for layer in projector((64, 64, 128), relu_bn=False)] == [nn.Linear, nn.ReLU, nn.Linear]


@pytest.mark.parametrize("sizes", [(), (8,), (8, 0), (8, -1, 4), (8, 2.5)])
def test_bad_sizes(sizes):
    with pytest.raises(UserError, match=r"sizes: got .*; wanted two or more positive integers"):
        projector(sizes)


def test_bad_input_names_the_argument():
    with pytest.raises(UserError, match="zb: got shape"):
        BarlowTwinsLoss()(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(UserError, match="form: got 'dxd'"):
        BarlowTwinsLoss(form="dxd")
    with pytest.raises(UserError, match="lambd: got -1"):
        BarlowTwinsLoss(lambd=-1)
