from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

from tools.commands.experiment import BUNDLES
from tools.data.checks import DataError
from tools.data.files import write_csv, write_json
from tools.experiments.definition import Projection
from tools.experiments.projections import draw_projection, read_maps, read_silhouettes
from tools.experiments.reading import find_definition, read_definition
from tools.experiments.runs import Experiment
from tools.experiments.table import write_table

BUNDLE = BUNDLES / "multidomain_segmentation"
WITH, WITHOUT = ("with", "maps"), ("without", "maps")


def write_maps(folder: Path, score: float) -> Path:
    """What an evaluation writes of two scales and two domains; at the coarser one nothing is defined."""
    places = [("knee", 0.0, 1.0), ("heart", 5.0, 2.0), ("knee", 0.5, 1.5)]
    rows = [{"case": "a", "slice": 0, "domain": d, "scale": scale, "x": x, "y": y} for scale in (1, 2) for d, x, y in places]
    write_csv(folder / "embeddings.csv", rows)
    found = {"silhouette": {"1": score, "2": None}, "slices": 3} | ({"projected": {"1": 0.9, "2": 0.8}} if score > 0 else {})
    write_json(folder / "summary.json", {"cases": 1, "embeddings": found})
    return folder


@pytest.fixture
def folders(tmp_path) -> dict[tuple[str, str], Path]:
    return {WITH: write_maps(tmp_path / "a", 0.5), WITHOUT: write_maps(tmp_path / "b", -0.25)}


def test_maps_by_scale_and_domain(folders):
    maps = read_maps(folders[WITH] / "embeddings.csv")
    assert list(maps) == ["1", "2"]
    assert maps["1"] == maps["2"] == {"knee": [(0.0, 1.0), (0.5, 1.5)], "heart": [(5.0, 2.0)]}


def test_a_row_for_each_title(folders, tmp_path):
    found = draw_projection(tmp_path / "both.png", "both", Projection({"with": WITH, "without": WITHOUT}, "both.png"), folders)
    assert found == {
        "picture": "both.png",
        "of": {
            "with": {"source": "with/maps", "silhouette": {"1": 0.5, "2": None}, "projected": {"1": 0.9, "2": 0.8}},
            "without": {"source": "without/maps", "silhouette": {"1": -0.25, "2": None}},
        },
    }
    draw_projection(tmp_path / "one.png", "one", Projection({"with": WITH}, "one.png"), folders)
    both, one = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("both", "one"))
    assert both.shape[0] > 1.5 * one.shape[0]
    assert both.shape[1] == one.shape[1]
    assert one.std() > 0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,domain,scale,x\na,knee,1,0\n", "has no column 'y'"),
        ("domain,scale,x,y\nknee,1,0,left\n", "could not convert"),
        ("domain,scale,x,y\nknee,1,0,\n", "could not convert"),
        ("domain,scale,x,y\nknee,1,0,nan\n", "is not finite"),
        ("domain,scale,x,y\n", "is empty"),
        (None, "missing"),
    ],
)
def test_unreadable_maps(tmp_path, text, message):
    if text is not None:
        (tmp_path / "embeddings.csv").write_text(text)
    with pytest.raises(DataError, match=f"embeddings.csv: .*{message}"):
        read_maps(tmp_path / "embeddings.csv")


@pytest.mark.parametrize("content", [[], {}, {"embeddings": {}}, {"embeddings": {"silhouette": 0.5}}])
def test_a_summary_without_silhouettes(tmp_path, content):
    write_json(tmp_path / "summary.json", content)
    with pytest.raises(DataError, match="has no silhouettes"):
        read_silhouettes(tmp_path / "summary.json")


@pytest.fixture
def work(tmp_path, tiny_dataset):
    """The scarce experiment, on copies of a tiny data set for domains, with results that it takes for those of evaluations."""

    def answer(command, log, environment):
        folder = Path(command[command.index("--output_dir") + 1])
        log.touch()
        if command[4] == "evaluating":
            write_csv(folder / "metrics.csv", [{"case": "1", "domain": "spine_vb1", "dice_mean": 0.5}])
            if "--embeddings" in command:
                write_maps(folder, 0.5 if "contrastive" in folder.parent.name else -0.25)
        return 0

    for domain in ("cardiac_cine", "spine_vb1", "spine_vb2", "spine_vb3"):
        shutil.copytree(tiny_dataset, tmp_path / "data" / domain)
    definition = read_definition(find_definition(BUNDLE, "scarce"))
    return Experiment(definition, BUNDLE, tmp_path / "data", tmp_path / "out", quick=True, execute=answer)


def test_the_table_has_the_figure_once_both_are_evaluated(work):
    (name,) = work.definition.projections
    picture = work.folder / work.definition.projections[name].picture
    for run in ("dsbn_seed0_fold0", "contrastive_seed0_fold0"):
        assert write_table(work)["projections"] == {}
        assert not picture.exists()
        work.train(run)
        for evaluation in work.definition.runs[run].evaluations:
            work.evaluate(run, evaluation)
    table = write_table(work)
    assert [item["silhouette"]["1"] for item in table["projections"][name]["of"].values()] == [-0.25, 0.5]
    assert json.loads((work.folder / "table.json").read_text())["projections"] == table["projections"]
    text = (work.folder / "table.md").read_text()
    assert f"]({picture.name})" in text
    assert "| with the contrastive term | 0.500 |  |" in text
    assert "| with the contrastive term, after the projection | 0.900 | 0.800 |" in text
    assert picture.is_file()


def test_results_from_before_an_evaluation_and_an_option_stay(work):
    """A finished folder of an older definition and config: only the new evaluation is left to do."""
    run = "dsbn_seed0_fold0"
    older = replace(work.definition.runs[run], evaluations=("network",))
    before = replace(work, definition=replace(work.definition, runs={**work.definition.runs, run: older}))
    before.train(run)
    before.evaluate(run, "network")
    path = work.run_dir(run) / "network" / "run.json"
    record = json.loads(path.read_text())
    assert record["settings"].pop("embeddings") is False
    assert record["settings"].pop("worst_pictures") == 0
    write_json(path, record)
    work.check([run])
    assert work.train(run) is False
    assert work.evaluate(run, "network") is False
    assert work.usable(run, "network")
    assert work.evaluate(run, "embeddings") is True


def test_an_option_that_is_set_now_and_was_not_there_then_is_a_change(work):
    run = "dsbn_seed0_fold0"
    work.train(run)
    work.evaluate(run, "embeddings")
    path = work.run_dir(run) / "embeddings" / "run.json"
    record = json.loads(path.read_text())
    del record["settings"]["embeddings"]
    write_json(path, record)
    with pytest.raises(DataError, match="was made with embeddings = false, now it is true"):
        work.check([run])
