from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tools.bundle.run_data import RunData
from tools.bundle.training_record import read_training, write_training
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.data.typical import typical_cases


def make(dataset, output, **options) -> RunData:
    return RunData(dataset, output, output / "models", **options)


def begun(output) -> None:
    (output / "checkpoints").mkdir(parents=True, exist_ok=True)
    (output / "checkpoints" / "last.pt").write_bytes(b"")


def test_lists_of_cases(tiny_dataset, tmp_path):
    data = make(tiny_dataset, tmp_path, split={"folds": 3, "holdout": 1, "label_limit": 1})
    assert [len(part) for part in (data.train, data.validation, data.report)] == [3, 2, 1]
    assert sum("label" in case for case in data.train) == 1
    assert all("label" in case for case in data.validation + data.report)
    assert sorted(case["name"] for case in data.train + data.validation + data.report) == [f"case_0{k}" for k in range(6)]
    assert all(case["image"].endswith(case["name"] + ".nii.gz") for case in data.train)


def test_without_a_holdout_the_report_is_the_validation(tiny_dataset, tmp_path):
    data = make(tiny_dataset, tmp_path)
    assert data.report == data.validation


def test_particles_are_named_where_they_are(tiny_dataset, tmp_path):
    (tiny_dataset / "particles").mkdir()
    (tiny_dataset / "particles" / "case_02.particles").write_text("1 2 3\n")
    data = make(tiny_dataset, tmp_path, split={"fold": "all"})
    named = {case["name"]: case["particles"] for case in data.train if "particles" in case}
    assert named == {"case_02": str(tiny_dataset / "particles" / "case_02.particles")}
    data.check()
    with pytest.raises(DataError, match=r"case_00.nii.gz: no particle file"):
        data.check(need_particles=True)


def test_save(tiny_dataset, tmp_path):
    data = make(tiny_dataset, tmp_path, plan={"spacing": 2.0, "size": None}, extra={"channels": [4, 8]})
    data.save()
    plan = Plan.load(tmp_path / "plan.json")
    assert plan == data.plan
    assert plan.spacing == (2.0, 2.0, 2.0)
    assert plan.extra == {"channels": [4, 8]}
    assert json.loads((tmp_path / "splits.json").read_text())["train"] == [case["name"] for case in data.train]


def test_what_a_training_is_stays_when_it_is_resumed(tiny_dataset, tmp_path):
    make(tiny_dataset, tmp_path / "out").save({"seed": 1})
    make(tiny_dataset, tmp_path / "out", resume=True).save({"seed": 2})  # killed before its first checkpoint: it began anew
    assert read_training(tmp_path / "out")["seed"] == 2
    begun(tmp_path / "out")
    make(tiny_dataset, tmp_path / "out", resume=True).save({"seed": 3})
    assert read_training(tmp_path / "out")["seed"] == 2
    (tmp_path / "out" / "training.json").unlink()
    make(tiny_dataset, tmp_path / "out", resume=True).save({"seed": 4})
    assert read_training(tmp_path / "out")["seed"] == 4


def test_fine_tuning_counts_the_steps_before(tiny_dataset, tmp_path):
    Plan(labels={0: "background", 1: "left", 2: "right"}).save(tmp_path / "out" / "models" / "plan.json")
    write_training(tmp_path / "out" / "models", {"seed": 5, "steps": {"network": 30}})
    make(tiny_dataset, tmp_path / "out").save({"seed": 6, "steps": {"network": 4}})
    assert "steps_before" not in read_training(tmp_path / "out")
    make(tiny_dataset, tmp_path / "out", use_model_plan="true").save({"seed": 6, "steps": {"network": 4}})
    found = read_training(tmp_path / "out")
    assert (found["seed"], found["steps"], found["steps_before"]) == (6, {"network": 4}, {"network": 30})


def test_a_models_record_that_is_unfit_leaves_nothing(tiny_dataset, tmp_path):
    Plan(labels={0: "background", 1: "left", 2: "right"}).save(tmp_path / "out" / "models" / "plan.json")
    (tmp_path / "out" / "models" / "training.json").write_text("{")
    with pytest.raises(DataError, match=r"models/training\.json: not readable as JSON"):
        make(tiny_dataset, tmp_path / "out", use_model_plan=True).save({"seed": 0})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["models"]


def test_without_a_data_set_the_models_plan_holds(tmp_path):
    plan = Plan(labels={0: "background", 3: "bone"})
    plan.save(tmp_path / "models" / "plan.json")
    data = make("", tmp_path)
    assert data.plan == plan
    assert data.train == data.validation == data.report == []


@pytest.mark.parametrize(("name", "value"), [("spacing", 2.0), ("size", [96, 96, 112]), ("orientation", "LPS")])
def test_fine_tuning_refuses_another_grid(tiny_dataset, tmp_path, name, value):
    Plan(labels={0: "background", 1: "left", 2: "right"}, size=(96, 96, 96)).save(tmp_path / "models" / "plan.json")
    with pytest.raises(DataError, match=rf"^--{name} .*which a model that goes on learning keeps"):
        make(tiny_dataset, tmp_path, use_model_plan=True, plan={name: value}).plan  # noqa: B018


def test_fine_tuning_follows_the_models_plan(tiny_dataset, tmp_path):
    Plan(labels={0: "background", 1: "left", 2: "right"}, size=(96, 96, 96)).save(tmp_path / "models" / "plan.json")
    assert make(tiny_dataset, tmp_path, use_model_plan="true").plan.size == (96, 96, 96)
    assert make(tiny_dataset, tmp_path, use_model_plan="false").plan.size != (96, 96, 96)


def test_fine_tuning_says_which_settings_are_the_models(tiny_dataset, tmp_path, caplog):
    own = {"network": {"channels": [4, 8], "kind": "conv"}}
    Plan(labels={0: "background", 1: "left", 2: "right"}, extra=own).save(tmp_path / "models" / "plan.json")
    wanted = {"network": {"channels": (4, 8), "kind": "swin", "symmetric": True, "wide": False}, "prior": {"width": 8}}
    caplog.set_level("INFO")
    make(tiny_dataset, tmp_path, use_model_plan=True, extra=wanted).save()
    (line,) = (record.message for record in caplog.records if "stay" in record.message)
    assert line.endswith("plan.json: the model's own settings stay: network.kind conv (not swin), network.symmetric unset (not True)")


def test_fine_tuning_on_other_labels(tiny_dataset, tmp_path):
    Plan(labels={0: "background", 7: "bone"}).save(tmp_path / "models" / "plan.json")
    with pytest.raises(DataError, match="are not the model's"):
        make(tiny_dataset, tmp_path, use_model_plan=True).plan  # noqa: B018


def test_images_that_are_not_listed_are_told_of_when_a_training_begins(tiny_dataset, tmp_path, caplog):
    path = tiny_dataset / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "training": content["training"][:4]}))
    data = make(tiny_dataset, tmp_path)
    data.check()
    assert not caplog.records
    data.save()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith(
        f"{path}: images in imagesTr that it does not list are left out: 2, the first of them case_04.nii.gz; "
    )
    path.write_text(json.dumps(content))
    make(tiny_dataset, tmp_path).save()
    assert len(caplog.records) == 1


def test_no_data_set(tmp_path):
    with pytest.raises(DataError, match="no data set: give --dataset_dir"):
        make("", tmp_path).check()


def test_a_fault_in_the_data(tiny_dataset, tmp_path):
    (tiny_dataset / "labelsTr" / "case_03.nii.gz").unlink()
    with pytest.raises(DataError, match="case_03.nii.gz"):
        make(tiny_dataset, tmp_path).check()


def test_an_empty_folder_and_one_without_a_checkpoint_are_free(tiny_dataset, tmp_path):
    data = make(tiny_dataset, tmp_path / "out")
    data.check()
    data.save()
    data.check()


def test_another_run_in_the_output_folder(tiny_dataset, tmp_path):
    begun(tmp_path / "out")
    with pytest.raises(DataError, match="a run lies here already; --resume true continues it"):
        make(tiny_dataset, tmp_path / "out").check()


def test_a_trained_model_in_the_output_folder(tiny_dataset, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "registration.pt").touch()
    with pytest.raises(DataError, match=r"registration\.pt: a trained model lies here already"):
        make(tiny_dataset, tmp_path / "out").check()
    # killed between the first weights and the first checkpoint
    make(tiny_dataset, tmp_path / "out", resume="true").check()


def test_resume(tiny_dataset, tmp_path):
    make(tiny_dataset, tmp_path / "out", extra={"channels": [4, 8]}).save()
    begun(tmp_path / "out")
    make(tiny_dataset, tmp_path / "out", extra={"channels": [4, 8]}, resume="true").check()


def test_another_process_is_training_into_the_folder(tiny_dataset, tmp_path):
    script = "import sys; from tools.data.folders import claim; claim(sys.argv[1]); print('mine', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(DataError, match="out: another run is writing there"):
            make(tiny_dataset, tmp_path / "out").save()
        assert list((tmp_path / "out").iterdir()) == []
        other.kill()
    make(tiny_dataset, tmp_path / "out").save()
    make(tiny_dataset, tmp_path / "out").save()  # the next run of one process


def test_resume_clears_away_what_a_kill_left_half_written(tiny_dataset, tmp_path):
    begun(tmp_path / "out")
    half = tmp_path / "out" / ".writing-abc-model.pt"
    half.write_text("half")
    make(tiny_dataset, tmp_path / "out").save()
    assert half.exists()
    make(tiny_dataset, tmp_path / "out", resume=True).save()
    assert not half.exists()


@pytest.mark.parametrize(
    ("change", "file"),
    [({"extra": {"channels": [8]}}, "plan.json"), ({"plan": {"size": 64}}, "plan.json"), ({"split": {"fold": 1}}, "splits.json")],
)
def test_resume_with_other_settings(tiny_dataset, tmp_path, change, file):
    make(tiny_dataset, tmp_path / "out", extra={"channels": [4, 8]}).save()
    begun(tmp_path / "out")
    with pytest.raises(DataError, match=f"{file}: the run to resume had other data or settings"):
        make(tiny_dataset, tmp_path / "out", **{"extra": {"channels": [4, 8]}, "resume": True, **change}).check()


def test_cases_of_a_program(tiny_dataset, tmp_path):
    Plan(labels={0: "background", 1: "left", 2: "right"}).save(tmp_path / "models" / "plan.json")
    cases = [{"image": case["image"], "label": case["label"]} for case in make(tiny_dataset, tmp_path).train[:2]]
    make("", tmp_path).check(given=cases)
    with pytest.raises(DataError, match="2 cases, of which at least 3 must have a label"):
        make("", tmp_path).check(need_labels=3, given=cases)
    cases[1]["label"] = make(tiny_dataset, tmp_path).train[2]["label"]
    with pytest.raises(DataError, match="but its image"):
        make("", tmp_path).check(given=cases)


def labelled(data):
    return [case["name"] for case in data.train if "label" in case]


def test_the_most_typical_case_is_labelled(tiny_dataset, tmp_path):
    def chosen(limit, seed):
        options = {"fold": "all", "label_limit": limit, "label_seed": seed, "label_choice": "typical"}
        return make(tiny_dataset, tmp_path, split=options)

    data = chosen(1, 0)
    order = list(typical_cases(data.dataset.cases, data.plan))
    assert labelled(data) == order[:1]
    assert labelled(chosen(3, 0)) == sorted(order[:3])
    assert labelled(chosen(1, 1)) == [next(typical_cases(data.dataset.cases, data.plan, start=1))] != order[:1]
    assert data.split.record["label_choice"] == "typical"


def test_typical_patients(tiny_dataset, tmp_path):
    # The patient is the parity of a case's number: one patient has case_00, case_02 and case_04.
    for k in (0, 2, 4):
        for folder in ("imagesTr", "labelsTr"):
            path = tiny_dataset / folder / f"case_0{k}.nii.gz"
            path.rename(path.with_name(f"even_0{k}.nii.gz"))
    description = (tiny_dataset / "dataset.json").read_text()
    for k in (0, 2, 4):
        description = description.replace(f"case_0{k}", f"even_0{k}")
    (tiny_dataset / "dataset.json").write_text(description)
    data = make(tiny_dataset, tmp_path, split={"fold": "all", "label_limit": 1, "label_choice": "typical", "group_pattern": "^[a-z]+"})
    first = next(typical_cases(data.dataset.cases, data.plan))
    assert labelled(data) == [case.name for case in data.dataset.cases if case.name[:4] == first[:4]]
    assert len(labelled(data)) == 3


def test_without_a_limit_no_image_is_read(tiny_dataset, tmp_path):
    for path in (tiny_dataset / "imagesTr").iterdir():
        path.write_bytes(b"")
    data = make(tiny_dataset, tmp_path, split={"fold": "all", "label_choice": "typical"})
    assert len(labelled(data)) == 6
    assert "label_choice" not in data.split.record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_choice": "best"}, "label_choice must be one of random, typical, not 'best'"),
        ({"label_choice": "typical", "label_limit": 1, "label_seed": 6}, "label_seed must be from 0 to 5"),
        ({"label_choice": "typical", "label_limit": 7}, "label_limit is 7, but only 6"),
    ],
)
def test_labels_that_cannot_be_chosen(tiny_dataset, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        make(tiny_dataset, tmp_path, split={"fold": "all", **options}).split  # noqa: B018
