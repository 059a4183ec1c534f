"""A training that is killed with SIGKILL, whenever, ends with the weights of the unbroken one, bit by bit."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from training_runs import assert_same_files, train_and_kill

from tools.bundle.checkpoint import ResumableCheckpoint
from tools.bundle.errors import cause

OVERLAY = "experiments/unlabelled"
# 24 steps: 4 of the prior, 10 of the network, and 10 of it on unlabelled images as well
SETTINGS = {"epochs": 12, "epoch_length": 2, "slices_per_domain": 2, "validation_interval": 4, "precision": "float32", "label_limit": 2}
IN_THE_PRIOR, IN_THE_NETWORK = 3, 7


@pytest.fixture(scope="module")
def killed(bundle, tiny, domains, tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """Folder with ``unbroken`` and ``killed``, and how often a process was killed."""
    output = tmp_path_factory.mktemp("resume")
    settings = {**tiny, **SETTINGS, "dataset_dir": str(domains)}
    # Three files are written an epoch: model.pt, anatomical_prior.pt and the checkpoint.
    moments = {"steps": [IN_THE_PRIOR, IN_THE_NETWORK], "kills": 2, "writing": [3, 1, 2]}
    return output, train_and_kill(bundle, output, settings, overlays=[OVERLAY], **moments)


def test_it_was_killed_in_both_networks_stages_at_random_moments_and_while_writing(killed):
    assert killed[1] == {"at_steps": 2, "killed": 2, "in_writing": 3}


def test_killed_and_unbroken_training_end_alike(killed):
    unbroken, broken = (killed[0] / name for name in ("unbroken", "killed"))
    assert_same_files(unbroken, broken, ["model.pt", "anatomical_prior.pt", "checkpoints/last.pt"])
    for name in ("plan.json", "splits.json", "training.json", "domains.json"):
        assert json.loads((broken / name).read_text()) == json.loads((unbroken / name).read_text())


class Broken(Exception):
    """What ends a training in the middle of an epoch."""


def test_domains_are_described_at_the_end_alone(train, tmp_path, monkeypatch):
    """Without an overlay: the last stage is of the network, from labels."""
    train = partial(train, **{**SETTINGS, "epochs": 4, "epoch_length": 3, "validation_interval": 2})
    train(tmp_path / "unbroken")
    attach = ResumableCheckpoint.attach

    def breaking(self, engine):
        attach(self, engine)

        @engine.on(Events.ITERATION_COMPLETED(once=8))
        def stop(engine):
            raise Broken

    with monkeypatch.context() as patched:
        patched.setattr(ResumableCheckpoint, "attach", breaking)
        with pytest.raises(Exception):  # noqa: B017, PT011 - MONAI may wrap it
            train(tmp_path / "broken")
    assert torch.load(tmp_path / "broken" / "checkpoints" / "last.pt", weights_only=True)["iteration"] == 6
    assert not (tmp_path / "broken" / "domains.json").exists()
    train(tmp_path / "broken", resume="true")
    assert_same_files(tmp_path / "unbroken", tmp_path / "broken", ["model.pt", "anatomical_prior.pt"])
    for name in ("plan.json", "splits.json", "domains.json"):
        assert json.loads((tmp_path / "broken" / name).read_text()) == json.loads((tmp_path / "unbroken" / name).read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a run lies here already; --resume true continues it"),
        ({"resume": "true", "domains": "disc"}, "the run to resume had other data or settings"),
        ({"resume": "true", "seed": 1}, "the run to resume had other seed, 0, not 1"),
        (
            {"resume": "true", "prior_weight": 0},
            "the run to resume had other schedule, [['prior', 0.2], ['network', 0.5], ['answers', 0.5]], not [['network'",
        ),
    ],
)
def test_another_run_is_not_continued(train, killed, options, message):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI may wrap it
        train(killed[0] / "unbroken", OVERLAY, **{**SETTINGS, **options})
    assert message in str(cause(caught.value))
