"""The definitions of the multi-domain bundle, and what its experiments make of several data sets."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tools.commands.experiment import BUNDLES, carry_out, experiment, selected_runs
from tools.data.checks import DataError
from tools.data.files import write_csv
from tools.experiments.confusion import read_rows
from tools.experiments.definition import Run
from tools.experiments.reading import find_definition, read_definition
from tools.experiments.runs import Experiment
from tools.experiments.table import write_table

BUNDLE = BUNDLES / "multidomain_segmentation"
DOMAINS = {
    "scarce": ("cardiac_cine", "spine_vb1", "spine_vb2", "spine_vb3"),
    "scarce_long": ("cardiac_cine", "spine_vb1", "spine_vb2", "spine_vb3"),
    "all_cases": ("cardiac_cine", "spine_vb1", "spine_vb2", "spine_vb3"),
    "shipped": ("ankle", "hippocampus", "knee", "shoulder"),
}


@pytest.fixture
def work(tmp_path, tiny_dataset):
    """Makes the experiment of a definition of the bundle, on copies of a tiny data set for domains."""

    def work(name: str, execute=None) -> Experiment:
        for domain in DOMAINS[name]:
            shutil.copytree(tiny_dataset, tmp_path / "data" / domain, dirs_exist_ok=True)
        definition = read_definition(find_definition(BUNDLE, name))
        return Experiment(definition, BUNDLE, tmp_path / "data", tmp_path / "out", quick=True, execute=execute)

    return work


def answer(command, log, environment):
    """What stands for the child processes: results with Dice by scheme, in the domains that the command names."""
    options = dict(zip((key[2:] for key in command[5::2]), command[6::2], strict=True))
    folder = Path(options["output_dir"])
    log.touch()
    if "foreign_dir" in options:
        rows = [{"case": "1", "expected": "refused", "auto_answer": given} for given in ("refused", "spine_vb1")]
        write_csv(folder / "metrics.csv", rows)
    elif command[4] == "evaluating":
        domains = options.get("target", options["domains"]).split(",")
        dice = 0.9 if "full" in folder.parent.name else 0.8
        rows = [{"case": "1", "domain": d, "dice_mean": dice, f"dice_{d} bone": dice, "auto_answer": d} for d in domains]
        write_csv(folder / "metrics.csv", rows)
    return 0


@pytest.mark.parametrize("name", DOMAINS)
def test_a_definition_holds_for_the_configs(work, name):
    made = work(name)
    made.check(list(made.definition.runs)[:: 1 if name == "shipped" else 12])


@pytest.mark.parametrize(("name", "number"), [("scarce", 1600), ("scarce_long", 3200), ("all_cases", 1600)])
def test_schemes_learn_for_as_many_steps(name, number):
    definition = read_definition(find_definition(BUNDLE, name))
    made = Experiment(definition, BUNDLE, None, Path("nowhere"))
    for run, value in definition.runs.items():
        if "fold0" in run:
            # a transferred network learns from its own domain in the second half
            steps = made.steps(run)["network"] / (2 if "target" in value.overrides else 1)
            assert steps == number, run
            settings = made.overrides(run)
            assert settings["epochs"] % settings["validation_interval"] == 0, f"{run} is not validated at its end"


def test_scarce_is_the_default_and_has_all_schemes():
    """One seed of each by default; three of those that are compared first, and further questions, are optional."""
    definition = read_definition(find_definition(BUNDLE))
    assert definition.name == "scarce"
    names = selected_runs(definition, None)
    schemes = [name.split("_")[0] for name in names]
    joint = dict.fromkeys(("shared", "dsl", "dsbn", "contrastive", "prior", "full"), 5)
    assert {scheme: schemes.count(scheme) for scheme in schemes} == {**joint, "individual": 20, "transfer": 20}
    optional = [name.split("_")[0] for name, run in definition.runs.items() if run.optional]
    assert {scheme: optional.count(scheme) for scheme in optional} == {
        **dict.fromkeys(("shared", "full"), 10),
        "individual": 40,
        "narrow": 20,
        "unlabelled": 45,
        "labelled": 25,
    }
    assert len(selected_runs(definition, definition.quick_runs)) == 4


def test_scarce_says_how_long_it_takes(capsys):
    experiment("multidomain_segmentation", list=True)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("by default 70 runs, ")
    assert line[1:] in json.loads(find_definition(BUNDLE).read_text())["_desc_"]


def test_data_of_several_domains_are_named_in_the_settings(work):
    settings = work("scarce").settings("full_seed0_fold3")
    assert settings["dataset"] == "; ".join(f"{domain}, 6 cases" for domain in DOMAINS["scarce"])
    assert (settings["fold"], settings["seed"]) == (3, 0)


def test_an_evaluation_is_of_the_domains_of_its_run(work):
    made = work("scarce")
    assert made.settings("individual_spine_vb2_seed0_fold1", "network")["domains"] == "spine_vb2"
    assert made.settings("transfer_spine_vb2_seed0_fold1", "network")["target"] == "spine_vb2"


def test_few_labels_in_one_domain_only():
    definition = read_definition(find_definition(BUNDLE, "all_cases"))
    few = [name for name, run in definition.runs.items() if run.overrides.get("label_limit") == {"spine_vb3": 10}]
    assert few == [f"ten_vb3_seed0_fold{k}" for k in range(5)]
    assert definition.overrides["label_limit"] == "all"
    row = definition.rows["full, spine_vb3 with 10 labelled cases"]
    assert [run for run, _ in row.of] == few
    assert row.domain == "spine_vb3"
    assert not set(row.of) & set(definition.rows["full"].of)


def foreign_images(folder, number):
    """A folder of files that have the names of images."""
    folder.mkdir()
    for k in range(number):
        (folder / f"{k}.nii.gz").touch()
    return folder


def test_foreign_images_are_those_of_the_command(work, tmp_path, capsys):
    """Without a folder they are passed over, in so many words; with one the share that is refused is judged."""
    passed_over = carry_out(work("shipped", answer), ["weights"])
    assert "weights: trained, evaluated (network), not evaluated (foreign): give --foreign_dir\n" in capsys.readouterr().out
    assert passed_over["requirements"]["foreign volumes refused"]["reached"] is None

    given = replace(work("shipped", answer), foreign_dir=foreign_images(tmp_path / "atria", 3))
    table = carry_out(given, ["weights"])
    assert given.record("weights", "foreign")["settings"]["foreign_dir"] == "atria, 3 images"
    assert f"--foreign_dir {tmp_path / 'atria'}" in given.record("weights", "foreign")["command"]
    assert table["confusions"]["foreign volumes refused"]["counts"] == {"refused": {"refused": 1, "spine_vb1": 1}}
    assert table["requirements"]["foreign volumes refused"] == {"limit": "at_least", "required": 1, "value": 0.5, "reached": False}
    # known from then on, whether or not the folder is named again
    assert carry_out(work("shipped", answer), ["weights"])["requirements"]["foreign volumes refused"]["value"] == 0.5
    other = replace(given, foreign_dir=foreign_images(tmp_path / "hearts", 2))
    with pytest.raises(DataError, match='foreign_dir = "atria, 3 images", now it is "hearts, 2 images"'):
        other.check(["weights"])


def test_a_folder_without_foreign_images(work, tmp_path):
    with pytest.raises(DataError, match="atria: no image found"):
        replace(work("shipped"), foreign_dir=foreign_images(tmp_path / "atria", 0)).check([])


def test_foreign_images_that_no_evaluation_is_of(work, tmp_path):
    with pytest.raises(DataError, match="all_cases.json: no evaluation is of the images of --foreign_dir"):
        replace(work("all_cases"), foreign_dir=foreign_images(tmp_path / "atria", 1)).check([])


def test_embeddings_are_drawn_of_the_first_fold_only():
    definition = read_definition(find_definition(BUNDLE))
    drawn = [name for name, run in definition.runs.items() if "embeddings" in run.evaluations]
    assert drawn == ["dsbn_seed0_fold0", "contrastive_seed0_fold0"]


def test_a_row_of_a_domain_that_the_data_lack(work, tmp_path):
    made = work("scarce")
    shutil.rmtree(tmp_path / "data" / "spine_vb3")
    with pytest.raises(DataError, match="of the row 'individual, spine_vb3': 'spine_vb3'"):
        made.check([])


def test_overrides_that_make_no_schedule(work):
    made = work("scarce")
    broken = replace(made, definition=replace(made.definition, runs={"x": Run(overlays=("transfer",))}))
    with pytest.raises(DataError, match=r"run 'x': the stage 'pretraining' needs a target"):
        broken.steps("x")


def test_table_of_schemes_and_domains(work):
    made = work("all_cases", answer)
    for name, run in made.definition.runs.items():
        made.train(name)
        made.evaluate(name, *run.evaluations)
    table = write_table(made)
    assert table["rows"]["full"]["cases"] == 4
    assert table["rows"]["individual, spine_vb1"]["runs"] == 5
    assert table["rows"]["full, spine_vb1"]["metrics"]["dice_mean"]["mean"] == pytest.approx(0.9)
    assert table["comparisons"]["full less individual"]["n"] == 4
    assert table["comparisons"]["spine_vb1: full less individual"]["mean_difference"] == pytest.approx(0.1)
    reached = {name: item["reached"] for name, item in table["requirements"].items()}
    assert reached["full less individual, Dice"] is True
    assert reached["full less individual, p"] is False
    assert reached["domain found, between spine and heart"] is True
    text = (made.folder / "table.md").read_text()
    assert "steps (network + prior)" in text
    assert "domain found for held-out volumes: 100.0% of 20 right" in text
    assert "| full | spine_vb1 | spine_vb1 bone | 0.900 |  |" in text
    lines = read_rows(made.folder / "structures.csv")
    assert len(lines) == 4 + 4 + 1
    assert [line["row"] for line in lines if line["domain"] == "spine_vb3"] == [*made.definition.structures.rows]
    cases = (made.folder / "cases.csv").read_text()
    assert cases.startswith("row,domain,case,dice_mean")
    assert "dice_spine_vb1 bone" in cases.splitlines()[0]


def test_a_patient_in_two_domains_counts_once_in_a_row_of_all(work):
    """As in comparisons: one has 0.9 and 0.5 in two domains, another 0.3 in a third."""
    made = work("all_cases", answer)
    made.train("full_seed0_fold0")
    made.evaluate("full_seed0_fold0", "network_auto")
    rows = [("spine_vb1", "7", 0.9), ("spine_vb2", "7", 0.5), ("spine_vb3", "8", 0.3)]
    table = [{"case": "1", "domain": domain, "patient": patient, "dice_mean": dice} for domain, patient, dice in rows]
    write_csv(made.run_dir("full_seed0_fold0") / "network_auto" / "metrics.csv", [row | {"auto_answer": row["domain"]} for row in table])
    found = write_table(made)["rows"]
    assert found["full"]["metrics"]["dice_mean"] == pytest.approx({"mean": 0.5, "std": 0.08**0.5, "n": 2})
    assert found["full"]["cases"] == 2
    assert [found[f"full, {domain}"]["metrics"]["dice_mean"]["mean"] for domain, _, _ in rows] == [0.9, 0.5, 0.3]
    assert len(read_rows(made.folder / "cases.csv")) == 3 + 3


def test_optional_seeds_count_once_they_are_done(work):
    made = work("scarce", answer)
    table = carry_out(made, selected_runs(made.definition, "shared_seed0_*,shared_seed1_fold0"))
    row = table["rows"]["shared"]
    assert (row["done"], row["runs"], row["complete"]) == (6, 6, True)
    assert table["rows"]["full"]["runs"] == 5


@pytest.mark.parametrize("options", [{"bundle": "deepatlas"}, {"bundle": "multidomain_segmentation", "definition": "shipped"}])
def test_list(options, capsys):
    experiment(**options, list=True)
    assert "runs selected" in capsys.readouterr().out


def test_definitions_are_json_of_one_kind():
    contents = [json.loads(path.read_text()) for path in (BUNDLE / "configs" / "experiments").glob("*.json")]
    assert sum("runs" in content for content in contents) == 4
    assert sum(content.get("default") is True for content in contents) == 1
