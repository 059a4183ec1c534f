from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tools.benchmarks.formats import measure_formats
from tools.data.decathlon import Case
from tools.data.files import write_nifti
from tools.data.plan import Plan


class Threshold(nn.Module):
    """Bright voxels are bone: logits of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([-20.0, 20.0]).view(2, 1, 1, 1, 1))
            self.conv.bias.copy_(torch.tensor([10.0, -10.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image)


def test_all_formats_answer(tmp_path: Path) -> None:
    truth = np.zeros((16, 16, 16), dtype=np.uint8)
    truth[4:12, 5:11, 3:13] = 1
    write_nifti(tmp_path / "image.nii.gz", 100.0 * truth, np.eye(4))
    write_nifti(tmp_path / "label.nii.gz", truth, np.eye(4))
    case = Case("case", tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    network = Threshold().eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        network, (torch.rand(1, 1, 16, 16, 16),), path, input_names=["image"], dynamo=True, external_data=False, verbose=False
    )
    rows = measure_formats(network, path, Plan(labels={0: "background", 1: "bone"}, size=(16, 16, 16)), [case, case])
    assert [row["format"] for row in rows] == [
        "PyTorch float32",
        "PyTorch bf16 autocast",
        "onnxruntime float32",
        "onnxruntime int8, dynamic",
    ]
    assert [row["dice"] for row in rows] == pytest.approx([1.0] * 4)
    assert all(row["cpu_seconds"] >= 0 for row in rows)
    assert ["megabytes" in row for row in rows] == [False, False, True, True]
