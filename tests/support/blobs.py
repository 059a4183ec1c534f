"""A small data set for all tests: noisy ellipsoids cut in two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tools.data.files import write_nifti


def blobs(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image and its label map: an ellipsoid cut in two along the first axis, label values 1 and 2."""
    generator = np.random.default_rng(seed)
    position = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    centre = (np.array(shape) - 1) / 2 + generator.uniform(-1, 1, 3)
    radii = np.array(shape) * generator.uniform(0.27, 0.36, 3)
    distance = np.sqrt((((position - centre[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(0))
    inside = distance < 1
    label = np.where(inside, np.where(position[0] < centre[0], 1, 2), 0).astype(np.uint8)
    image = 100 * np.array([0.2, 0.9, 0.6])[label] * (1.1 - 0.2 * distance.clip(0, 2)) + generator.normal(0, 2, shape)
    return image.astype(np.float32), label


def write_dataset(root: Path, cases: int = 6, labelled: int | None = None, affine: np.ndarray | None = None) -> Path:
    """Write a Decathlon-style folder of ``cases`` blobs, of which the first ``labelled`` have a label (all by default)."""
    entries = []
    for k in range(cases):
        image, label = blobs((16 + 2 * (k % 3), 20 + k % 4, 18), seed=k)
        name = f"case_{k:02d}.nii.gz"
        grid = np.eye(4) if affine is None else affine
        write_nifti(root / "imagesTr" / name, image, grid)
        entries.append({"image": f"./imagesTr/{name}"})
        if labelled is None or k < labelled:
            write_nifti(root / "labelsTr" / name, label, grid)
            entries[-1]["label"] = f"./labelsTr/{name}"
    content = {"name": "blobs", "labels": {"0": "background", "1": "left", "2": "right"}, "training": entries, "test": []}
    (root / "dataset.json").write_text(json.dumps(content))
    return root
