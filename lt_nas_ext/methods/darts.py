"""DARTS: differentiable architecture search with softmax gates (Liu et al., arXiv:1806.09055)."""

from __future__ import annotations

from torch import nn

from lt_nas_ext.methods.base import Batch, Epoch, Loss
from lt_nas_ext.methods.supernet_method import SupernetMethod


class Darts(SupernetMethod):
    """min_α L_val(w*(α), α) with w* = argmin_w L_train(w, α) [paper, eqs. 3, 4].

    One step of α and one of w in turn. `order` first: ∇_α L_val(w, α) at the present w [paper, section 2.3 with ξ = 0];
    second: through the step of w that follows, with ξ its learning rate [paper, eqs. 6 to 8]; exact: the same without
    the finite difference [ours]. The engine differentiates, for every method alike. Cross-entropy on either half
    [paper], or another `loss` [ours]. A softmax over an edge's candidates gates them.
    """

    name = "darts"
    paper_preset = "darts"
    takes_loss = True

    def weight_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return self.labelled_loss(networks, batch, "weights")

    def alpha_loss(self, networks: nn.Module, batch: Batch, epoch: Epoch) -> Loss:
        return self.regularised(self.labelled_loss(networks, batch, "alpha"), networks, epoch)
