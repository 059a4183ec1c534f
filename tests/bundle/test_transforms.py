from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from tools.bundle.transforms import KeepKeysd, segmentation_postprocessing
from tools.data.files import write_nifti
from tools.data.geometry import preprocessing
from tools.data.plan import Plan


def test_keys_that_are_kept():
    keep = KeepKeysd(["image", "label"], allow_missing_keys=True)
    assert keep({"image": 1, "label": 2, "client": 3}) == {"image": 1, "label": 2}
    assert keep({"image": 1, "client": 3}) == {"image": 1}


@pytest.mark.parametrize("write", [True, False])
def test_label_values_in_thousands(tmp_path, write):
    """Atlases such as FreeSurfer's number their regions so."""
    plan = Plan(labels={0: "background", 7: "a", 2035: "b"}, size=(16, 16, 16))
    write_nifti(tmp_path / "in" / "case.nii.gz", np.random.default_rng(0).random((16, 16, 16), dtype=np.float32), np.eye(4))
    before = preprocessing(plan, keys=["image"])
    data = before({"image": str(tmp_path / "in" / "case.nii.gz")})
    data["pred"] = torch.zeros(3, 16, 16, 16)
    data["pred"][2, :8] = 9.0
    result = segmentation_postprocessing(plan, before, tmp_path / "out", write=write)(data)
    assert set(np.unique(result["pred"].numpy())) == {0, 2035}
    written = tmp_path / "out" / "case_seg.nii.gz"
    assert written.is_file() == write
    if write:
        assert set(np.unique(np.asanyarray(nib.load(written).dataobj))) == {0, 2035}
