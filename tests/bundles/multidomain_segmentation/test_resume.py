"""A training that stops and is resumed ends with the weights of the unbroken one, bit by bit."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from ignite.engine import Events

from tools.bundle.checkpoint import ResumableCheckpoint
from tools.bundle.errors import cause

SETTINGS = {"epochs": 4, "epoch_length": 3, "slices_per_domain": 2, "validation_interval": 2, "precision": "float32"}


class Killed(Exception):
    """In the place of a kill."""


@pytest.mark.parametrize("overlays", [(), ("experiments/unlabelled",)])
def test_a_resumed_training_ends_alike(train, tmp_path, monkeypatch, overlays):
    settings = SETTINGS | ({"label_limit": 2} if overlays else {})
    train = partial(train, **settings)
    train(tmp_path / "unbroken", *overlays)
    attach = ResumableCheckpoint.attach

    def breaking(self, engine):
        attach(self, engine)

        @engine.on(Events.ITERATION_COMPLETED(once=8))
        def stop(engine):
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(ResumableCheckpoint, "attach", breaking)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI may wrap it
            train(tmp_path / "broken", *overlays)
    assert torch.load(tmp_path / "broken" / "checkpoints" / "last.pt", weights_only=True)["iteration"] == 6
    assert not (tmp_path / "broken" / "domains.json").exists()
    with pytest.raises(Exception) as caught:  # noqa: PT011
        train(tmp_path / "broken", *overlays)
    assert "a run lies here already; --resume true continues it" in str(cause(caught.value))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        train(tmp_path / "broken", *overlays, resume="true", domains="disc")
    assert "the run to resume had other data or settings" in str(cause(caught.value))
    if not overlays:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            train(tmp_path / "broken", resume="true", seed=1)
        assert "the run to resume had other seed, 0, not 1" in str(cause(caught.value))
        with pytest.raises(Exception) as caught:  # noqa: PT011
            train(tmp_path / "broken", resume="true", prior_weight=0)
        assert "the run to resume had other schedule, [['prior', 0.2], ['network', 1.0]], not [['network'" in str(cause(caught.value))

    train(tmp_path / "broken", *overlays, resume="true")
    for name in ("model.pt", "anatomical_prior.pt"):
        first, second = (torch.load(tmp_path / folder / name, weights_only=True) for folder in ("unbroken", "broken"))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    for name in ("plan.json", "splits.json", "domains.json"):
        assert json.loads((tmp_path / "broken" / name).read_text()) == json.loads((tmp_path / "unbroken" / name).read_text())
