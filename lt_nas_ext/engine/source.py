"""Where an adaptation starts: a searched supernet, read from the run directory of its search or taken from memory."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lt_nas_ext.engine.checkpoint import load_checkpoint
from lt_nas_ext.engine.run_dir import read_config
from lt_nas_ext.engine.search import SearchResult
from lt_nas_ext.engine.seeds import isolated_rng
from lt_nas_ext.errors import UserError
from lt_nas_ext.methods import Bbn, Problem, SearchSettings, method_class
from lt_nas_ext.methods.settings import overridden
from lt_nas_ext.methods.supernet_method import SupernetMethod
from lt_nas_ext.space import Genotype, PartialSupernet, Supernet, load_genotype


@dataclass(frozen=True)
class Source:
    """A searched supernet and what is known of it.

    Attributes:
        supernet: a copy of its own, on the CPU.
        genotype: what the search found; None of a supernet from memory.
        class_names: of its head; None where unknown.
        head_trained: False of a search without labels.
        run: the directory of the search; None of a supernet from memory.
    """

    supernet: Supernet
    genotype: Genotype | None = None
    class_names: tuple[str, ...] | None = None
    head_trained: bool = True
    run: Path | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What identifies it, for config.json: its sizes, and a digest of its weights and statistics."""
        supernet = self.supernet
        return {
            "run": None if self.run is None else str(self.run),
            "gate": supernet.gate,
            "primitives": list(supernet.primitives),
            "layers": len(supernet.cells),
            "features": supernet.feature_dim,
            "digest": _digest(supernet.state_dict()),
        }


def read_source(source: Supernet | SearchResult | str | Path) -> Source:
    """The supernet to adapt.

    Args:
        source: a supernet; a finished search with a run directory, or that directory.

    Raises:
        UserError: it is no such thing, the search is not finished, has no supernet with one head, or its checkpoint is
            of another space or size than its settings say.
    """
    if isinstance(source, SearchResult):
        if source.out is None:
            raise UserError(
                "source: the search kept its supernet in no run directory; wanted one with out=DIR, or a Supernet"
            )
        source = source.out
    if isinstance(source, Supernet):
        if isinstance(source.classifier, nn.Linear) or hasattr(source.classifier, "out_features"):
            return Source(_whole(copy.deepcopy(source)))
        raise UserError("source: got a supernet without a classifier; wanted one with num_classes")
    if not isinstance(source, str | Path):
        raise UserError(
            f"source: got {type(source).__name__}; wanted a Supernet, or the run directory of a finished search"
        )
    return _read(Path(source))


def _read(path: Path) -> Source:
    config = read_config(path)
    if config.get("kind") != "search":
        raise UserError(f"run: {path} is no search ({config.get('kind')!r}); wanted the run directory of a search")
    if not (path / "genotype.json").exists():
        raise UserError(f"run: {path} holds no genotype yet; finish the search first (--resume)")
    method = _method(path, config)
    saved = load_checkpoint(path / "checkpoint.pt")
    if saved is None:
        raise UserError(
            f"run: {path} holds no supernet (checkpoint.pt); wanted the run directory of one search, with its seed"
        )
    with isolated_rng(torch.device("cpu")):
        networks = method.build()
    _load(path, networks, saved)
    method.begin(networks, method.at(method.epochs - 1))  # as the search left it
    found = load_genotype(path / "genotype.json")
    assert isinstance(found, Genotype)
    names = tuple(config["data"]["class_names"])
    return Source(_whole(method.supernet(networks)), found, names, not method.label_free, path)


def _method(path: Path, config: Mapping[str, Any]) -> SupernetMethod:
    """The method of a run, with the settings that it had."""
    try:
        settings = overridden(SearchSettings(), config["settings"])
        data = config["data"]
        channels, height, width = data["image_shape"]
        problem = Problem(data["num_classes"], (channels, height, width), tuple(data["counts"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"run: {path}/config.json does not say which images the search was made from") from None
    kind = method_class(settings.method)
    if not issubclass(kind, SupernetMethod) or issubclass(kind, Bbn):
        raise UserError(
            f"run: {path} is a search by {settings.method!r}, which has no supernet with one head; wanted one by "
            "darts, fair-darts, ssf-nas or ssnas"
        )
    return kind(settings, problem)


def _load(path: Path, networks: nn.Module, saved: Mapping[str, Any]) -> None:
    """Load the networks of a search, all or nothing."""
    try:
        state = saved["trainer"]["networks"]
        own = networks.state_dict()
        wrong = [name for name in {**own, **state} if not _same_shape(own.get(name), state.get(name))]
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"run: {path}/checkpoint.pt is no checkpoint of a search") from None
    if wrong:
        name = wrong[0]
        raise UserError(
            f"run: {path}/checkpoint.pt holds a supernet of another space or size than {path}/config.json says: "
            f"{name} is {_shape(state.get(name))}, and wanted {_shape(own.get(name))}"
        )
    networks.load_state_dict(state)


def _same_shape(one: object, other: object) -> bool:
    both = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return both and one.shape == other.shape  # type: ignore[union-attr, attr-defined]


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else "not there"


def _whole(supernet: Supernet) -> Supernet:
    if isinstance(supernet, PartialSupernet):
        raise UserError(
            "source: got a supernet of partial channels, whose sub-networks are not its genotypes; wanted one searched "
            "with partial_channels=1"
        )
    return supernet.cpu()


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    sums = hashlib.blake2b(digest_size=8)
    for name, value in state.items():
        sums.update(name.encode())
        sums.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sums.hexdigest()
