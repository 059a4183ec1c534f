from __future__ import annotations

import copy
import csv
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon
from torch.utils.tensorboard import SummaryWriter

from tools.commands.experiment import BUNDLES, carry_out, experiment, selected_runs
from tools.data.checks import DataError
from tools.data.files import write_csv, write_json
from tools.experiments.definition import Requirement, Row
from tools.experiments.reading import read_definition
from tools.experiments.runs import Children, Experiment, RunFailed
from tools.experiments.table import compare, judge, read_metrics, row_cases, row_spreads, write_table

DEFINITION = {
    "overrides": {"fold": "all", "holdout": 2, "epochs": 3, "epoch_length": 4},
    "quick": {"epochs": 1},
    "runs": {
        "one_a": {"overlays": ["both"], "overrides": {"label_limit": 1, "label_seed": 0}, "minutes": 30},
        "one_b": {"overlays": ["both.json"], "overrides": {"label_limit": 1, "label_seed": 1}, "evaluations": ["network"], "minutes": 30},
        "none": {"overlays": ["unsupervised"], "evaluations": ["network"], "minutes": 60},
        "extra": {"overrides": {"diffeomorphic": False}, "evaluations": ["network"], "optional": True},
    },
    "evaluations": {"network": {}, "instance": {"iterations": 5}},
    "metrics": {"dice": {"title": "Dice"}, "seconds": {"title": "s", "decimals": 1}},
    "rows": {
        "joint": {"of": ["one_a/network", "one_b/network"]},
        "joint, optimised": {"of": ["one_a/instance"], "metrics": ["dice"]},
        "unsupervised": {"of": ["none/network"], "metrics": ["dice"]},
        "plain": {"of": ["extra/network"]},
    },
    "comparisons": {"gain": {"a": "joint", "b": "unsupervised", "metric": "dice"}},
    "requirements": {
        "Dice": {"row": "joint", "metric": "dice", "at_least": 0.7},
        "seconds": {"row": "joint", "metric": "seconds", "below": 2},
        "gain": {"comparison": "gain", "at_least": 0.5},
        "p": {"comparison": "gain", "statistic": "p_value", "sign": "positive", "below": 0.2},
        "relative": {"comparison": "gain", "statistic": "relative_difference", "at_least": 0.31},
    },
}
STAGES = [
    {"name": "registration", "share": 0.5, "registration": 1, "registration_from": "images"},
    {"name": "joint", "share": 0.5, "registration": 2, "segmentation": 1},
]
# Dice of the four cases in each run, by hand
DICE = {
    "one_a": (0.8, 0.7, 0.6, 0.9),
    "one_b": (0.6, 0.7, 0.8, 0.7),
    "none": (0.5, 0.5, 0.6, 0.6),
    "extra": (0.1, 0.1, 0.1, 0.1),
    "of_two": (0.9, 0.9, 0.9, 0.9),
}


class FakeProcess:
    """Stands for the child processes: notes the commands and writes what a training or an evaluation would."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.problem: Callable[[str], Any] = lambda what: None

    def __call__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        self.commands.append(list(command))
        self.environments.append(environment)
        folder = Path(option(command, "output_dir"))
        if command[4] == "training":
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / "last.pt").touch()
            run = folder.name
        else:
            run = folder.parent.name
            write_csv(folder / "metrics.csv", [{"case": f"0{k}", "dice": dice, "seconds": 1.5} for k, dice in enumerate(DICE[run])])
        log.write_text("$ command\nan earlier line\nValueError: no such thing\nlast line\n")
        return self.problem(f"{command[4]} {run}") or 0

    def stop(self) -> None:
        """Nothing runs on."""

    @property
    def done(self) -> list[str]:
        """What was run: "training one_a", "evaluating one_a/network"."""
        return [f"{c[4]} {option(c, 'output_dir').split('/runs/')[1]}" for c in self.commands]


def option(command: Sequence[str], name: str) -> str:
    return command[command.index(f"--{name}") + 1]


@pytest.fixture
def make(tmp_path: Path, tiny_dataset: Path) -> Callable[..., Experiment]:
    """Makes the experiment of a definition, DEFINITION with changes, in one and the same folder; its overlay lies beside it."""
    write_json(tmp_path / "both.json", {"stages": STAGES})

    def experiment_of(process: FakeProcess, quick: bool = False, **changes: Any) -> Experiment:
        write_json(tmp_path / "tiny.json", {**DEFINITION, **changes})
        definition = read_definition(tmp_path / "tiny.json")
        return Experiment(definition, BUNDLES / "deepatlas", tiny_dataset, tmp_path / "out", quick, threads=3, execute=process)

    return experiment_of


def everything(work: Experiment, **options: Any) -> dict[str, Any]:
    return carry_out(work, selected_runs(work.definition, None), **options)


def test_runs_and_evaluations_are_the_bundles_own_commands(make: Callable[..., Experiment], tiny_dataset: Path, tmp_path: Path) -> None:
    process = FakeProcess()
    work = make(process)
    everything(work)
    assert process.done == [
        *("training one_a", "evaluating one_a/network", "evaluating one_a/instance"),
        *("training one_b", "evaluating one_b/network"),
        *("training none", "evaluating none/network"),
    ]
    training, _, instance = process.commands[:3]
    assert training[1:5] == ["-m", "monai.bundle", "run", "training"]
    assert option(training, "config_file") == f"['bundles/deepatlas/configs/train.json','{tmp_path / 'both.json'}']"
    assert "configs/experiments/unsupervised.json" in option(process.commands[5], "config_file")
    expected = {"fold": "all", "holdout": "2", "label_limit": "1", "epochs": "3", "resume": "False", "dataset_dir": str(tiny_dataset)}
    assert {key: option(training, key) for key in expected} == expected
    assert option(instance, "iterations") == "5"
    assert option(instance, "model_dir") == option(training, "output_dir") == str(work.run_dir("one_a"))
    assert process.environments[0]["OMP_NUM_THREADS"] == "3"


def test_record_of_a_run(make: Callable[..., Experiment]) -> None:
    work = make(FakeProcess())
    everything(work)
    record = work.record("one_a")
    # 12 steps: 6 of registration, then two turns of one of segmentation and two of registration
    assert record["steps"] == {"registration": 10, "segmentation": 2}
    assert record["finished"] is True
    assert record["seconds"] == record["sessions"][0]
    assert record["threads"] == 3
    assert "torch" in record["versions"]
    assert record["settings"]["label_limit"] == 1
    assert "--label_seed 0" in record["command"]


def test_quick_overrides_come_last(make: Callable[..., Experiment]) -> None:
    process = FakeProcess()
    everything(make(process, quick=True))
    assert option(process.commands[0], "epochs") == "1"


def test_a_second_time_does_nothing(make: Callable[..., Experiment], capsys: pytest.CaptureFixture[str]) -> None:
    everything(make(FakeProcess()))
    process = FakeProcess()
    everything(make(process))
    assert process.commands == []
    assert capsys.readouterr().out.count("finished before") == 3


def test_a_failed_run_is_named_and_resumed(make: Callable[..., Experiment]) -> None:
    process = FakeProcess()
    process.problem = lambda what: 3 if what == "training one_b" else 0
    work = make(process)
    with pytest.raises(RunFailed, match=r"^run 'one_b' ended with exit code 3: ValueError: no such thing \(.*training.log\)$"):
        everything(work)
    table = json.loads((work.folder / "table.json").read_text())
    assert table["rows"]["joint"]["done"] == 1
    assert table["requirements"]["Dice"]["reached"] is None
    assert table["rows"]["joint, optimised"]["complete"] is True
    process = FakeProcess()
    everything(make(process))
    assert process.done[0] == "training one_b"
    assert option(process.commands[0], "resume") == "True"
    assert len(work.record("one_b")["sessions"]) == 2


def test_a_run_killed_before_its_first_checkpoint_is_resumed(make: Callable[..., Experiment]) -> None:
    """The weights of its first epoch lie there already, which a run that is not resumed would refuse to replace."""
    process = FakeProcess()

    def kill(what: str) -> int:
        shutil.rmtree(work.run_dir("one_a") / "checkpoints")
        (work.run_dir("one_a") / "model.pt").touch()
        return -9

    process.problem, work = kill, make(process)
    with pytest.raises(RunFailed):
        everything(work)
    process = FakeProcess()
    everything(make(process))
    assert option(process.commands[0], "output_dir") == str(work.run_dir("one_a"))
    assert option(process.commands[0], "resume") == "True"


def test_an_interruption_ends_with_one_line(make: Callable[..., Experiment]) -> None:
    process = FakeProcess()

    def interrupt(what: str) -> None:
        raise KeyboardInterrupt

    process.problem = interrupt
    work = make(process)
    with pytest.raises(SystemExit, match="the same command continues"):
        everything(work)
    assert work.record("one_a")["finished"] is False


def test_a_second_signal_does_not_cut_an_interruption_short(make: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch) -> None:
    process, stopped = FakeProcess(), []

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        stopped.append(True)

    def problem(what: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)

    process.problem = problem
    monkeypatch.setattr(process, "stop", stop)
    with pytest.raises(SystemExit, match="the same command continues"):
        everything(make(process))
    assert stopped == [True]


def test_runs_at_once(make: Callable[..., Experiment]) -> None:
    together = threading.Barrier(3, timeout=30)
    process = FakeProcess()
    process.problem = lambda what: together.wait() * 0 if what.startswith("training") else 0
    work = make(process)
    table = everything(work, jobs=3)
    assert all(work.finished(name) for name in ("one_a", "one_b", "none"))
    assert table["rows"]["joint"]["complete"] is True


def test_a_failure_lets_the_runs_beside_it_end_and_begins_no_other(make: Callable[..., Experiment]) -> None:
    failed = threading.Event()

    def problem(what: str) -> int:
        if what == "training one_b":
            failed.set()
            return 3
        failed.wait(timeout=30)
        return 0

    process = FakeProcess()
    process.problem = problem
    work = make(process)
    with pytest.raises(RunFailed, match="^run 'one_b' ended with exit code 3"):
        everything(work, jobs=2)
    assert work.finished("one_a", "instance")
    assert work.record("none") is None


def test_a_killed_session_leaves_the_seconds_unknown(make: Callable[..., Experiment]) -> None:
    work = make(FakeProcess())
    everything(work)
    path = work.run_dir("one_a") / "run.json"
    write_json(path, {**work.record("one_a"), "finished": False, "sessions": [None]})
    everything(work)
    assert work.record("one_a")["finished"] is True
    assert work.record("one_a")["seconds"] is None


def test_a_changed_run_is_noticed(make: Callable[..., Experiment]) -> None:
    everything(make(FakeProcess()))
    runs = copy.deepcopy(DEFINITION["runs"])
    runs["one_b"]["overrides"]["label_seed"] = 5
    process = FakeProcess()
    changed = make(process, runs=runs)
    with pytest.raises(DataError, match=r"run 'one_b' was made with label_seed = 1, now it is 5; --force one_b"):
        everything(changed)
    assert process.commands == []
    table = carry_out(changed, ["one_a"])
    # what was made with other settings is no part of the table
    assert table["rows"]["joint"]["done"] == 1
    everything(changed, again=["one_b"])
    assert process.done == ["training one_b", "evaluating one_b/network"]
    assert option(process.commands[0], "resume") == "False"


def test_a_changed_evaluation_is_noticed(make: Callable[..., Experiment]) -> None:
    everything(make(FakeProcess()))
    with pytest.raises(DataError, match=r"evaluation 'instance' of run 'one_a' was made with iterations = 5, now it is 6"):
        everything(make(FakeProcess(), evaluations={"network": {}, "instance": {"iterations": 6}}))


@pytest.fixture
def of_domains(tmp_path: Path, tiny_dataset: Path) -> Callable[[], Experiment]:
    """Makes an experiment on the domains ``first`` and ``second`` of a folder that holds ``another`` too; its run was carried out."""
    for name in ("another", "first", "second"):
        shutil.copytree(tiny_dataset, tmp_path / "domains" / name)
    runs = {"of_two": {"overrides": {"domains": "first,second"}, "evaluations": ["network"], "evaluating": ["domains"]}}
    write_json(
        tmp_path / "two.json",
        {
            "name": "two",
            "runs": runs,
            "evaluations": {"network": {}},
            "metrics": {"dice": {"title": "Dice"}},
            "rows": {"two": {"of": ["of_two/network"]}},
        },
    )

    def make() -> Experiment:
        definition, bundle = read_definition(tmp_path / "two.json"), BUNDLES / "multidomain_segmentation"
        return Experiment(definition, bundle, tmp_path / "domains", tmp_path / "out", execute=FakeProcess())

    work = make()
    assert work.train("of_two")
    assert work.evaluate("of_two", "network")
    return make


def test_data_sets_that_a_run_does_not_use_change_nothing(of_domains: Callable[[], Experiment], tmp_path: Path) -> None:
    assert of_domains().record("of_two", "network")["settings"]["dataset"] == "first, 6 cases; second, 6 cases"
    shutil.rmtree(tmp_path / "domains" / "another")
    assert of_domains().usable("of_two", "network")


def test_records_of_all_data_sets_of_a_folder_are_accepted(of_domains: Callable[[], Experiment]) -> None:
    path = of_domains().run_dir("of_two") / "run.json"
    record = json.loads(path.read_text())
    record["settings"]["dataset"] = "first, 6 cases; gone, 3 cases; second, 6 cases"
    write_json(path, record)
    assert of_domains().usable("of_two", "network")


def test_a_changed_data_set_is_noticed(of_domains: Callable[[], Experiment], tmp_path: Path) -> None:
    path = tmp_path / "domains" / "second" / "dataset.json"
    content = json.loads(path.read_text())
    write_json(path, {**content, "training": content["training"][1:]})
    with pytest.raises(DataError, match='dataset = "first, 6 cases; second, 6 cases", now it is "first, 6 cases; second, 5 cases"'):
        of_domains().check(["of_two"])


def test_a_folder_whose_domains_alone_have_labels_counts_as_several(of_domains: Callable[[], Experiment], tmp_path: Path) -> None:
    root = tmp_path / "domains"
    content = json.loads((root / "first" / "dataset.json").read_text())
    entries = [{**entry, "domain": name} for name in ("first", "second") for entry in content["training"]]
    shutil.copytree(root / "first", root, dirs_exist_ok=True)
    labels = {"labels": content["labels"]}
    write_json(root / "dataset.json", {"domains": {"first": labels, "second": labels}, "training": entries})
    assert of_domains().settings("of_two")["dataset"] == "first, 6 cases; second, 6 cases"


def test_a_misspelled_override_is_found_before_work(make: Callable[..., Experiment]) -> None:
    process = FakeProcess()
    with pytest.raises(DataError, match=r"tiny.json: run 'one_a': .*did you mean epochs"):
        everything(make(process, overrides={"epoch": 3}))
    assert process.commands == []


def test_an_unknown_overlay_is_found_before_work(make: Callable[..., Experiment]) -> None:
    with pytest.raises(DataError, match="overlay 'jiont'"):
        everything(make(FakeProcess(), runs={**DEFINITION["runs"], "none": {"overlays": ["jiont"], "evaluations": ["network"]}}))


def test_optional_runs_are_done_and_shown_on_request_only(make: Callable[..., Experiment]) -> None:
    work = make(FakeProcess())
    assert "plain" not in everything(work)["rows"]
    assert carry_out(work, selected_runs(work.definition, "ext*"))["rows"]["plain"]["complete"] is True


def test_selected_runs_are_names_and_patterns(make: Callable[..., Experiment]) -> None:
    definition = make(FakeProcess()).definition
    assert selected_runs(definition, "none, one_*") == ["one_a", "one_b", "none"]
    with pytest.raises(DataError, match="no run 'nome'; did you mean none"):
        selected_runs(definition, "nome")


def test_table_averages_a_case_over_runs_first(make: Callable[..., Experiment]) -> None:
    work = make(FakeProcess())
    table = everything(work)
    joint = table["rows"]["joint"]
    # cases over both runs: 0.7, 0.7, 0.7, 0.8
    assert joint["cases"] == 4
    assert joint["metrics"]["dice"] == pytest.approx({"mean": 0.725, "std": 0.05, "n": 4})
    gain = table["comparisons"]["gain"]
    assert gain["n"] == 4
    assert gain["mean_difference"] == pytest.approx(0.175)
    assert gain["p_value"] == pytest.approx(wilcoxon([0.2, 0.2, 0.1, 0.2]).pvalue)
    reached = {name: item["reached"] for name, item in table["requirements"].items()}
    assert reached == {"Dice": True, "seconds": True, "gain": False, "p": True, "relative": True}


def test_written_tables(make: Callable[..., Experiment]) -> None:
    work = make(FakeProcess())
    everything(work)
    text = (work.folder / "table.md").read_text()
    assert "| joint | 0.725 ± 0.050 | 1.5 ± 0.0 | 10 + 2 |" in text
    assert "| unsupervised | 0.550 ± 0.058 |  | 12 + 0 |" in text
    assert "| gain | ≥ 0.5 | 0.175 | **not reached** |" in text
    with open(work.folder / "table.csv", newline="") as stream:
        joint = next(csv.DictReader(stream))
    assert [joint[key] for key in ("row", "runs_done", "cases", "registration_steps")] == ["joint", "2", "4", "10"]
    assert float(joint["dice"]) == pytest.approx(0.725)
    lines = (work.folder / "cases.csv").read_text().splitlines()
    assert lines[0] == "row,case,dice,seconds"
    assert len(lines) == 1 + 3 * 4
    assert (work.folder / "figure.png").stat().st_size > 1000


def test_written_tables_with_validation(make: Callable[..., Experiment]) -> None:
    work = make(FakeProcess(), validation="dice")
    everything(work)
    for run, values in {"one_a": (0.2, 0.6, 0.5), "one_b": (0.4, 0.4, 0.3)}.items():
        with SummaryWriter(str(work.run_dir(run) / "tensorboard")) as writer:
            for epoch, value in enumerate(values, 1):
                writer.add_scalar("dice", value, epoch)
    table = write_table(work)
    # means: 0.3, 0.5, 0.4
    found = table["rows"]["joint"]["validation"]
    assert found == {"last": pytest.approx(0.4), "best": pytest.approx(0.5), "best_epoch": 2, "last_epoch": 3, "looks": 3}
    assert table["rows"]["unsupervised"]["validation"] is None
    assert "| joint | 0.400 (3) | 0.500 (2) | 3 |" in (work.folder / "table.md").read_text()


def test_row_cases_leave_undefined_values_out(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"case": "1", "dice": 0.5}, {"case": "2", "dice": None}])
    write_csv(tmp_path / "b.csv", [{"case": "1", "dice": 0.7}, {"case": "2", "dice": 0.9}])
    row = Row(of=(("a", "e"), ("b", "e"), ("c", "e")), metrics=("dice",))
    cases = row_cases(row, {("a", "e"): tmp_path / "a.csv", ("b", "e"): tmp_path / "b.csv"})
    assert cases == [{"case": "1", "dice": pytest.approx(0.6)}, {"case": "2", "dice": pytest.approx(0.9)}]


def test_spread_of_a_case_over_runs(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"case": "1", "dice": 0.5}, {"case": "2", "dice": 0.9}, {"case": "3", "dice": 0.1}])
    write_csv(tmp_path / "b.csv", [{"case": "1", "dice": 0.7}, {"case": "2", "dice": 0.9}])
    row = Row(of=(("a", "e"), ("b", "e")), metrics=("dice",))
    spreads = row_spreads(row, {("a", "e"): tmp_path / "a.csv", ("b", "e"): tmp_path / "b.csv"})
    assert [spread["dice"] for spread in spreads[:2]] == pytest.approx([0.02**0.5, 0.0])
    assert math.isnan(spreads[2]["dice"])


def test_read_metrics_refuses_words(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"case": "1", "dice": "good"}])
    with pytest.raises(DataError, match="a.csv"):
        read_metrics(tmp_path / "a.csv", ["dice"])


def test_compare_pairs_cases_by_name() -> None:
    a = [{"case": "x", "dice": 0.5}, {"case": "y", "dice": 0.7}]
    b = [{"case": "y", "dice": 0.6}, {"case": "x", "dice": 0.1}, {"case": "z", "dice": 0.0}]
    found = compare(a, b, "dice")
    assert found["n"] == 2
    assert found["mean_difference"] == pytest.approx(0.25)
    # 0.6 against 0.35
    assert found["relative_difference"] == pytest.approx(0.25 / 0.35)


def test_compare_with_another_column() -> None:
    a = [{"case": "x", "dice": 0.5}, {"case": "y", "dice": 0.7}]
    b = [{"case": "x", "dice": 0.0, "baseline": 0.4}, {"case": "y", "dice": 0.0, "baseline": 0.4}]
    assert compare(a, b, "dice", "baseline")["mean_difference"] == pytest.approx(0.2)


def test_compare_needs_a_common_case() -> None:
    with pytest.raises(DataError, match="no case"):
        compare([{"case": "x", "dice": 0.5}], [{"case": "y", "dice": 0.6}], "dice")


@pytest.mark.parametrize(
    ("limit", "value", "reached"),
    [("at_least", 0.5, True), ("at_least", 0.49, False), ("at_most", 0.5, True), ("at_most", 0.51, False), ("below", 0.5, False)],
)
def test_judge_at_the_limit(limit: str, value: float, reached: bool) -> None:
    rows = {"r": {"complete": True, "metrics": {"dice": {"mean": value}}}}
    assert judge(Requirement(limit, 0.5, row="r", metric="dice"), rows, {})["reached"] is reached


def test_judge_waits_for_all_runs() -> None:
    rows = {"r": {"complete": False, "metrics": {"dice": {"mean": 0.9}}}}
    assert judge(Requirement("at_least", 0.5, row="r", metric="dice"), rows, {})["reached"] is None
    assert judge(Requirement("at_least", 0.5, comparison="c"), rows, {})["reached"] is None


@pytest.mark.parametrize(
    ("sign", "difference", "p_value", "reached"),
    [("positive", 0.02, 0.001, True), ("positive", -0.02, 0.001, False), ("negative", -0.02, 0.001, True), ("positive", 0.02, 0.2, False)],
)
def test_a_difference_of_the_wrong_sign_is_not_reached(sign, difference, p_value, reached):
    requirement = Requirement("below", 0.01, comparison="c", statistic="p_value", sign=sign)
    assert judge(requirement, {}, {"c": {"mean_difference": difference, "p_value": p_value}})["reached"] is reached


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("runs", {"a": {"overlay": ["joint"]}}, "run 'a' has an unknown key 'overlay'; did you mean 'overlays'"),
        ("runs", {"a": {"evaluations": ["netwrk"]}}, "unknown evaluation 'netwrk'; did you mean 'network'"),
        ("runs", {"a": {"overrides": {"output_dir": "x"}}}, "must not set 'output_dir'"),
        ("runs", {"a": {"overrides": {"spacing": None}}}, "sets 'spacing' to null"),
        ("runs", {"../a": {}}, "runs has the name '../a'"),
        ("rows", {"r": {"of": ["one_c/network"]}}, "row 'r' has an unknown run 'one_c'"),
        ("rows", {"r": {"of": ["none/instance"]}}, "unknown evaluation 'instance'"),
        ("rows", {"r": {"of": []}}, "at least one entry"),
        ("comparisons", {"c": {"a": "joint", "b": "unsupervised", "metric": "seconds"}}, "unknown metric 'seconds'"),
        ("requirements", {"q": {"row": "joint", "metric": "dice"}}, "needs one of at_least"),
        ("requirements", {"q": {"row": "joint", "at_least": 1}}, "needs a row and a metric"),
        ("requirements", {"q": {"comparison": "gain", "statistic": "p", "below": 1}}, "unknown statistic 'p'"),
        ("overrides", [], "of the wrong kind"),
    ],
)
def test_a_faulty_definition_is_refused(tmp_path: Path, part: str, value: Any, message: str) -> None:
    write_json(tmp_path / "tiny.json", {**DEFINITION, part: value})
    with pytest.raises(DataError) as caught:
        read_definition(tmp_path / "tiny.json")
    assert message in str(caught.value)


def test_a_child_returns_its_status_and_keeps_the_log(tmp_path: Path) -> None:
    code = Children()(["sh", "-c", "echo $COLOUR; exit 4"], tmp_path / "log", {"COLOUR": "blue"})
    assert code == 4
    assert (tmp_path / "log").read_text().splitlines()[1:] == ["blue"]


def test_children_that_run_are_ended_and_no_other_is_begun(tmp_path: Path) -> None:
    children = Children()
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(children, ["sh", "-c", "echo begun; sleep 60"], tmp_path / "log", {})
        while "begun\n" not in ((tmp_path / "log").read_text() if (tmp_path / "log").is_file() else ""):
            time.sleep(0.01)
        children.stop()
        assert status.result(timeout=30) == -signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        children(["sh", "-c", "echo again"], tmp_path / "log", {})
    assert "again\n" not in (tmp_path / "log").read_text().splitlines()


def test_list_needs_neither_data_nor_folder(capsys: pytest.CaptureFixture[str]) -> None:
    experiment("deepatlas", list=True)
    assert "joint_1_random_label_seed0" in capsys.readouterr().out


def test_list_adds_up_what_is_selected_the_default_and_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "both.json", {"stages": STAGES})
    runs = {**DEFINITION["runs"], "extra": {"evaluations": ["network"], "optional": True, "minutes": 90}}
    write_json(tmp_path / "tiny.json", {**DEFINITION, "runs": runs})
    experiment("deepatlas", definition=str(tmp_path / "tiny.json"), only="none,extra", list=True)
    selected, all_runs = capsys.readouterr().out.splitlines()[-2:]
    assert selected == "2 runs selected, about 2.5 h by the definition's estimate; 2.5 h of it left"
    assert all_runs == "by default 3 runs, about 2.0 h; with the optional ones 4 runs, about 3.5 h"


@pytest.mark.parametrize("option", ["threads", "jobs"])
def test_command_needs_a_positive_number(option: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^experiment: {option} must be at least 1, not 0$"):
        experiment("deepatlas", str(tmp_path), str(tmp_path / "out"), definition="hippocampus", **{option: 0})


def test_command_needs_data() -> None:
    with pytest.raises(DataError, match="give --dataset_dir"):
        experiment("deepatlas", to="x")


def test_command_names_the_bundles_it_knows() -> None:
    with pytest.raises(DataError, match="none for 'x'"):
        experiment("x")


def test_the_shipped_definition_holds_for_the_shipped_configs(tmp_path: Path, tiny_dataset: Path) -> None:
    definition = read_definition(BUNDLES / "deepatlas" / "configs" / "experiments" / "hippocampus.json")
    work = Experiment(definition, BUNDLES / "deepatlas", tiny_dataset, tmp_path)
    work.check(definition.runs)
    assert np.isfinite([sum(work.steps(name).values()) for name in definition.runs]).all()


def test_segmentation_from_all_labels_is_judged_with_and_without_the_registration() -> None:
    """The shipped ``model.pt`` is of labels alone."""
    definition = read_definition(BUNDLES / "deepatlas" / "configs" / "experiments" / "hippocampus.json")
    judged = {definition.rows[item.row].of: item for item in definition.requirements.values() if item.metric == "dice_mean"}
    for run in ("seg_only_all", "all"):
        requirement = judged[((run, "network"),)]
        assert (requirement.limit, requirement.value) == ("at_least", 0.885)
