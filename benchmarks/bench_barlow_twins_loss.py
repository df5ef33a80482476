"""barlow_twins_loss against the published form and its eager twin: forward, backward and both, float32.

Official: nn.BatchNorm1d(affine=False), C = bn(za).T @ bn(zb), and the two sums over the D × D matrix, as in the
authors' code. Compiled: torch.compile of the same. Twin: ops.barlow_twins_loss_eager in the form that the size takes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch._functorch.config
from harness import Harness, Run, Variant
from torch import nn

import lt_nas_ext as lt

LAMBD = 5e-3
SIZES = [(256, 8192), (128, 2048), (64, 2048), (256, 256), (512, 512), (512, 128)]
QUICK = {"cpu": [(128, 2048), (256, 256)], "cuda": [(256, 8192), (256, 256)]}

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def official(d: int, device: torch.device) -> Loss:
    norm = nn.BatchNorm1d(d, affine=False).to(device)

    def loss(za: torch.Tensor, zb: torch.Tensor) -> torch.Tensor:
        c = norm(za).T @ norm(zb)
        c.div_(len(za))
        on = torch.diagonal(c).add(-1).pow(2).sum()
        off = c.flatten()[:-1].view(d - 1, d + 1)[:, 1:].pow(2).sum()
        return on + LAMBD * off

    return loss


def variant(name: str, loss: Loss, z: torch.Tensor, part: str) -> Variant:
    def make() -> Run:
        za, zb = z.clone().requires_grad_(), z.roll(1, 0).add(z).requires_grad_()
        if part == "forward":
            return lambda: loss(za, zb)
        if part == "both":
            return lambda: torch.autograd.grad(loss(za, zb), (za, zb))
        value = loss(za, zb)
        return lambda: torch.autograd.grad(value, (za, zb), retain_graph=True)

    return Variant(name, make)


def main() -> None:
    bench = Harness.from_command_line(__doc__)
    torch._functorch.config.donated_buffer = False  # so that the compiled backward can be timed alone
    for n, d in QUICK[bench.device.type] if bench.quick else SIZES:
        torch.compiler.reset()
        z = torch.randn(n, d, device=bench.device)
        gram = n < 0.75 * d
        multiply_adds = 4 * n * n * d if gram else 3 * n * d * d
        forward = 2 * n * n * d if gram else n * d * d
        flop = {"forward": 2 * forward, "backward": 2 * (multiply_adds - forward), "both": 2 * multiply_adds}
        losses: dict[str, Loss] = {
            "fused": lambda a, b: lt.ops.barlow_twins_loss(a, b, lambd=LAMBD),
            "official": official(d, bench.device),
            "official, compiled": torch.compile(official(d, bench.device), dynamic=False),
            "eager twin": lambda a, b: lt.ops.barlow_twins_loss_eager(a, b, lambd=LAMBD),
        }
        for part in ("forward", "backward", "both"):
            variants = [variant(name, loss, z, part) for name, loss in losses.items()]
            title = f"barlow_twins_loss N={n} D={d} {'gram' if gram else 'cross'} form, {part}"
            bench.compare(title, variants, baseline="official", work={"flop": flop[part]})
    bench.finish()


if __name__ == "__main__":
    main()
