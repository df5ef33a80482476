"""DARTS with the two classical remedies for a long tail: the plain systems that HLS is compared with."""

from __future__ import annotations

from lt_nas_ext.errors import UserError
from lt_nas_ext.methods.base import Problem, Stream
from lt_nas_ext.methods.darts import Darts
from lt_nas_ext.methods.settings import SearchSettings


class DartsResampling(Darts):
    """DARTS whose images are drawn class-uniformly, p_c = 1/C [paper: HLS].

    [ours] On both halves: the paper does not say whether the validation side is resampled too.
    """

    name = "darts+resampling"
    paper_preset = "paper-hls-resampling"
    weight_stream = Stream("labelled", ("class_uniform",))
    alpha_stream = Stream("labelled", ("class_uniform",))


class DartsReweighting(Darts):
    """DARTS whose loss weighs classes; in the preset by their effective numbers, (1 − β)/(1 − β^n_c).

    [paper: HLS] Its abstract names re-weighting.

    [ours] β = .9999, the form of the weights (Cui et al. 2019, eq. 2, normalised to sum C), and that both losses have
    them; n_c are the images of a class in the half that the loss is of.

    Raises:
        UserError: the loss is the cross-entropy, which weighs all classes alike.
    """

    name = "darts+reweighting"
    paper_preset = "paper-hls-reweighting"

    def __init__(self, settings: SearchSettings, problem: Problem) -> None:
        super().__init__(settings, problem)
        if settings.loss == "cross_entropy":
            raise UserError(
                f"loss: got 'cross_entropy' for {self.name}, and it weighs all classes alike; "
                "wanted 'class_balanced' or 'inverse_frequency'"
            )
