from __future__ import annotations

import json
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from tools.benchmarks.sizes import measure_size
from tools.commands import benchmark as module
from tools.commands.benchmark import BUNDLES, benchmark, compare_lncc, compare_pairs, compare_training_step, measure
from tools.data.checks import DataError
from tools.data.decathlon import Case
from tools.data.files import write_nifti
from tools.data.plan import Plan

Output = namedtuple("Output", "ddf")
PLAN = Plan(labels={0: "background", 1: "bone"}, size=(16, 16, 16))


class Shift(nn.Module):
    """Answers one learnable translation (voxels) everywhere, at first zero."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor) -> Output:
        return Output(self.shift.view(1, 3, 1, 1, 1).expand(len(fixed), 3, *fixed.shape[2:]))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Case, Case]:
    """A ball and the same ball one voxel (1 mm) further along the first axis."""
    cases = []
    for name, centre in (("moving", 8.0), ("fixed", 7.0)):
        grid = np.stack(np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij"))
        distance = np.linalg.norm(grid - np.array([centre, 8, 8])[:, None, None, None], axis=0)
        image, label = tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_label.nii.gz"
        write_nifti(image, np.exp(-distance / 4).astype(np.float32), np.eye(4))
        write_nifti(label, (distance < 4).astype(np.uint8), np.eye(4))
        cases.append(Case(name, image, label))
    return cases[0], cases[1]


def test_measure_gives_medians_after_the_warm_up() -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.01)

    seconds = measure({"quick": lambda: calls.append("quick"), "slow": slow}, repeats=3, warm_up=1)
    assert calls == ["quick", "slow"] * 4
    assert seconds["slow"] >= 0.01


def test_measure_refuses_no_repeats() -> None:
    with pytest.raises(ValueError, match="repeats must be positive, got 0"):
        measure({}, repeats=0)


def test_lncc_agrees_with_monai() -> None:
    result = compare_lncc(repeats=1, size=(16, 16, 16))
    assert result["value_difference"] < 1e-4
    assert result["gradient_difference"] < 1e-3
    assert result["ratio"] == result["seconds"]["monai"] / result["seconds"]["ours"]


def test_training_step_names_all_networks() -> None:
    result = compare_training_step(Shift, repeats=1, size=(16, 16, 16), batch=1)
    assert set(result["seconds"]) == {"ours", "monai_voxelmorph", "monai_localnet"}
    assert result["parameters"]["ours"] == 3


def test_pairs_without_ants_are_scored_and_say_so(pair: tuple[Case, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    network = Shift().eval()
    before = compare_pairs(network, PLAN, [pair], repeats=1, score=True)
    network.shift.data[0] = 1.0  # the fixed voxel p is found at p + 1 in the moving image
    after = compare_pairs(network, PLAN, [pair], repeats=1, score=True)
    assert before["ants_syn"] == "skipped"
    assert before["dice"]["ours"]["mean"] < 0.95
    assert after["dice"]["ours"]["mean"] == 1.0


def test_pairs_with_ants(tmp_path: Path) -> None:
    pytest.importorskip("ants", reason="ANTs is a peer of the benchmark only (make peers)")
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(32, 32, 32)), 2).astype(np.float32)
    affine = np.array([[0.0, -1.0, 0.0, 5.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    write_nifti(tmp_path / "a.nii.gz", texture, affine)
    write_nifti(tmp_path / "label.nii.gz", (texture > 0).astype(np.uint8), affine)
    case = Case("a", tmp_path / "a.nii.gz", tmp_path / "label.nii.gz")
    plan = Plan(labels={0: "background", 1: "bone"}, size=(32, 32, 32), spacing=(1, 1, 2))
    result = compare_pairs(Shift().eval(), plan, [(case, case)], repeats=1, score=True)
    assert result["dice"]["ants_syn"]["mean"] > 0.9
    assert result["dice"]["ours"]["mean"] == 1.0
    assert result["ratio"] > 0


def test_another_bundle_is_refused() -> None:
    with pytest.raises(DataError, match="none for 'other'"):
        benchmark("other")


def test_formats_need_labelled_cases() -> None:
    with pytest.raises(DataError, match="formats are measured on labelled cases, give --dataset_dir"):
        benchmark("deepatlas", formats=True)


def test_training_steps_of_named_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = {"segmentation_architecture": "dynunet", "segmentation_channels": [4, 6, 8], "symmetric": True}
    benchmark("deepatlas", to=str(tmp_path / "speed.json"), threads=1, sizes="32,32,48", **networks)
    [row] = json.loads((tmp_path / "speed.json").read_text())["sizes"]
    assert row["size"] == [32, 32, 48]
    assert row["networks"] == {"segmentation": {"architecture": "dynunet", "channels": [4, 6, 8]}, "registration": {"symmetric": True}}
    assert all(row[key] > 0 for key in ("registration_step", "segmentation_step", "registration_pair", "peak_gib"))
    assert "(32, 32, 48): registration step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ({"segmentation": {"architecture": "dynunet", "channels": [4] * 6}}, r"6 levels are too many for the grid of \[16, 16, 16\]"),
        ({"registration": {"diffeomorphic": False, "symmetric": True}}, "--symmetric true needs --diffeomorphic true"),
    ],
)
def test_the_networks_are_those_of_the_plan(extra: dict, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        measure_size(BUNDLES / "deepatlas", replace(PLAN, extra=extra), threads=1)


@pytest.mark.parametrize("networks", [{"segmentation_architecture": "dynunet"}, {"segmentation_channels": [4, 8]}, {"symmetric": True}])
def test_networks_are_of_training_steps(networks: dict) -> None:
    with pytest.raises(DataError, match="--symmetric are of the networks of --sizes"):
        benchmark("deepatlas", **networks)


def test_a_volume_slice_by_slice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark("multidomain_segmentation", to=str(tmp_path / "speed.json"), threads=1, repeats=1, domain="hippocampus")
    volume = json.loads((tmp_path / "speed.json").read_text())["volume"]
    assert volume["size"] == [112, 112, 38]
    assert volume["channels"] == [24, 48, 96, 160]
    assert volume["seconds"].keys() == {"segmentation", "domain"}
    assert all(value > 0 for value in volume["seconds"].values())
    assert "as 'hippocampus'" in capsys.readouterr().out


def test_a_volume_of_an_unknown_domain() -> None:
    with pytest.raises(DataError, match="unknown domain 'kne', the nearest is 'knee'"):
        benchmark("multidomain_segmentation", repeats=1, domain="kne")
