"""What is said of the shipped weights beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_runs import BundleRuns

from tools.bundle.training_record import read_training
from tools.experiments.reading import find_definition, read_definition
from tools.experiments.runs import Experiment


@pytest.mark.parametrize(
    ("name", "folder", "definition", "run"),
    [
        ("deepatlas", "models/symmetric", "hippocampus", "registration_symmetric"),
        ("multidomain_segmentation", "models", "shipped", "weights"),
        ("progressive_deepssm", "models", "shipped", "weights"),
    ],
)
def test_they_had_the_steps_of_the_run_that_made_them(name, folder, definition, run):
    root = BundleRuns(name).root
    made = Experiment(read_definition(find_definition(root, definition)), root, None, Path("nowhere"))
    assert read_training(root / folder) == {"seed": 0, "steps": made.steps(run)}
