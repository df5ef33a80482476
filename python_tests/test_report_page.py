"""Figures and the page: well formed, self-contained, safe, and there whatever is missing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_runs import COUNTS, GENOTYPE, demo_runs, search_run, training_run

from lt_nas_ext.errors import UserError
from lt_nas_ext.report import curves, palette
from lt_nas_ext.report.gates import gates_over_epochs
from lt_nas_ext.report.page import render, write_report
from lt_nas_ext.report.reproduce import flags, reproduce
from lt_nas_ext.report.runs import read_networks, read_run
from lt_nas_ext.space import BbnGenotype


class Outline(HTMLParser):
    """What the page refers to, and the ids that it defines."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    return parsed


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    demo_runs(path)
    return path


@pytest.fixture(scope="module")
def page(demo: Path) -> str:
    return write_report(demo_runs(demo), demo / "report.html").read_text(encoding="utf-8")


def test_figures_are_well_formed_svg(demo: Path) -> None:
    networks = read_networks([demo])
    search = read_run(demo / "ssf-nas")
    for svg in (
        curves.per_class_accuracy(networks),
        curves.search_curves(networks),
        curves.training_curves(networks),
        curves.label_distribution(COUNTS, [str(c) for c in range(10)]),
        gates_over_epochs(search, "SSF-NAS"),
    ):
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg") and root.attrib["viewBox"] and root.attrib["role"] == "img"
        assert root[0].tag.endswith("title") and root[0].text


def test_page_holds_everything_and_asks_for_nothing(page: str) -> None:
    found = outline(page)
    assert all(link.startswith("#") for link in found.links)
    assert not {"script", "link", "iframe", "img"} & set(found.tags)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    # Name spaces are no addresses that a browser opens; there is no other address.
    assert set(re.findall(r"https?://[^\"'<> ]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_ids_are_unique_and_every_reference_has_its_target(page: str) -> None:
    found = outline(page)
    assert len(found.ids) == len(set(found.ids))
    references = set(re.findall(r"url\(#([^)]+)\)", page)) | {link[1:] for link in found.links}
    assert references <= set(found.ids)


def test_page_says_what_was_run(page: str) -> None:
    expected = ["SSF-NAS", "SmallConvNet", "527 training images", "imbalance ratio 10", "PyTorch 2.11.0", "61 of 196"]
    expected += ["without labels", "Health of the search", "One run each", "alpha_lr", "Genotype(normal="]
    for words in expected:
        assert words in page
    assert "lt-nas search --method ssf-nas --preset demo-ssf --data digits --imbalance exp --factor 0.1" in page
    assert "lt-nas retrain --network small-conv-net" in page


def test_names_from_users_are_text(tmp_path: Path) -> None:
    evil = "<script>alert('$x$')</script>"
    path = search_run(tmp_path / "a", class_names=[evil, "$\\frac{", "a&b", *map(str, range(7))])
    training_run(path / "retrain")
    config = json.loads((path / "retrain" / "config.json").read_text())
    config["data"]["class_names"] = [evil, "$\\frac{", "a&b", *map(str, range(7))]
    config["settings"]["augment"] = evil
    (path / "retrain" / "config.json").write_text(json.dumps(config))
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["health"]["warnings"] = [evil]
    (path / "metrics.json").write_text(json.dumps(metrics))
    page = render(read_networks([path]))
    assert "<script" not in page and "&lt;script&gt;" in page and "$\\frac{" in page


def test_warnings_of_the_engine_and_our_own_are_shown(tmp_path: Path) -> None:
    path = search_run(tmp_path / "a")
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["health"] |= {"warnings": ["the gate cannot be reached"], "skip_share": 0.75}
    (path / "metrics.json").write_text(json.dumps(metrics))
    page = render(read_networks([path]))
    assert "the gate cannot be reached" in page and "75 % of the chosen operations are skip connections" in page


def test_several_seeds_are_told_apart(tmp_path: Path, page: str) -> None:
    for seed in range(2):
        path = search_run(tmp_path / f"s{seed}", seed=seed)
        config = json.loads((path / "config.json").read_text())
        config["data"]["seed"] = seed
        (path / "config.json").write_text(json.dumps(config))
        training_run(path / "retrain", 0.9 + 0.02 * seed, seed=seed, data=config["data"])
    metrics = json.loads((tmp_path / "s1" / "metrics.json").read_text())
    metrics["health"]["skip_share"] = 0.75
    (tmp_path / "s1" / "metrics.json").write_text(json.dumps(metrics))
    both = render(read_networks([tmp_path]))
    assert both.count("; subset seeds 0, 1.") == 1 and "; subset seed 0." in page
    assert "<summary>every seed</summary>" in both and "every seed" not in page
    assert "<strong>SSF-NAS, seed 1</strong>: 75 % of the chosen" in both
    ids = outline(both).ids
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("epochs", [0, 1, 2])
@pytest.mark.parametrize("finished", [True, False])
def test_short_and_unfinished_runs(tmp_path: Path, epochs: int, finished: bool) -> None:
    path = search_run(tmp_path / "a", epochs=epochs, finished=finished)
    training_run(path / "retrain", epochs=epochs, finished=False)
    alone = training_run(tmp_path / "b", epochs=epochs, finished=False)
    page = render(read_networks([path, alone]))
    assert ("the search is not finished" in page) is not finished
    assert f"the training is not finished ({epochs} epochs so far)" in page


def test_empty_groups_and_classes_without_test_images(tmp_path: Path) -> None:
    path = training_run(tmp_path / "a")
    metrics = json.loads((path / "metrics.json").read_text())
    metrics |= {"few": None, "many": None, "per_class": [None, *metrics["per_class"][1:]]}
    (path / "metrics.json").write_text(json.dumps(metrics))
    assert "<svg" in render(read_networks([path]))


def test_a_hundred_classes(tmp_path: Path) -> None:
    counts = [max(5, 500 - 5 * c) for c in range(100)]
    path = training_run(tmp_path / "a")
    config = json.loads((path / "config.json").read_text())
    config["data"] |= {"counts": counts, "class_names": [f"class {c}" for c in range(100)]}
    (path / "config.json").write_text(json.dumps(config))
    metrics = json.loads((path / "metrics.json").read_text()) | {"per_class": [0.5] * 100}
    (path / "metrics.json").write_text(json.dumps(metrics))
    ET.fromstring(curves.per_class_accuracy(read_networks([path])))


def test_alpha_is_drawn_where_no_gates_were_written(tmp_path: Path) -> None:
    path = search_run(tmp_path / "a", epochs=2)
    rows = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    for row in rows:
        del row["gates"]
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "Architecture parameters of every edge" in gates_over_epochs(read_run(path))


def test_heads_are_drawn_beside_the_backbone(tmp_path: Path) -> None:
    path = search_run(tmp_path / "a", "darts", epochs=2)
    rows = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    for row in rows:
        row["gates"] |= {"instance_head": row["gates"]["normal"], "class_head": row["gates"]["reduce"]}
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    BbnGenotype(GENOTYPE, GENOTYPE.reduce, GENOTYPE.normal).save(path / "genotype.json")
    network = read_networks([path])[0]
    assert isinstance(network.genotype, BbnGenotype)
    titles = ["Normal cell", "Reduction cell", "Instance head", "Class head"]
    picture = gates_over_epochs(read_run(path))
    assert re.findall(">(" + "|".join(titles) + ")<", picture) == titles
    places = re.findall(r'translate\((\d+) (\d+)\)"><text x="0" y="16"', picture)
    assert len(set(places)) == 4 and len({x for x, _ in places}) == len({y for _, y in places}) == 2
    text = render([network])
    assert all(text.count(f"<title>{title}</title>") == 1 for title in titles)
    assert "instance_head=[" in text


def test_searched_networks_are_coloured_and_controls_are_grey(demo: Path) -> None:
    chosen = curves.colours(read_networks([demo]))
    assert {chosen["SSF-NAS"], chosen["DARTS"]} <= set(palette.SEARCHED)
    assert {chosen["SmallConvNet"], chosen["random genotype"]} <= set(palette.CONTROLS)


def test_the_commands_give_the_settings_again(demo: Path) -> None:
    networks = {n.name: n for n in read_networks([demo])}
    search, train = reproduce(networks["DARTS"])
    assert search.startswith("lt-nas search --method darts --preset demo-darts --data digits")
    assert "--seed 1" in search and search.endswith(f"--out {demo / 'darts'}")
    assert "--alpha-lr" not in search  # as in the preset
    assert train.startswith(f"lt-nas retrain --run {demo / 'darts'} --epochs 30 ")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"a_b": 1}, ["--a-b", "1"]),
        ({"a": None}, []),
        ({"a": True, "b": False}, ["--a", "--no-b"]),
        ({"a": (1, 2)}, ["--a", "1", "2"]),
        ({"same": [1]}, []),
    ],
)
def test_flags(values: dict[str, object], words: list[str]) -> None:
    assert flags(values, {"same": (1,)}) == words


def test_a_page_that_cannot_be_written_is_an_error(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report([demo / "small-convnet"], tmp_path / "file" / "report.html")
