"""A step of two processes is the mean of the steps that each takes on its slices alone; norms see their own process's slices only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_runs import curves, train_in_two_processes

SETTINGS = {
    # one step of the prior, one of the network
    "epochs": 1,
    "epoch_length": 2,
    "stages": [{"name": "prior", "share": 0.5, "network": "prior"}, {"name": "network", "share": 0.5, "network": "network"}],
    "slices_per_domain": 2,
    "world_size": 2,
    # plain gradient descent without clipping: only then is the mean of the gradients the mean of the weights; its first rates are small
    "optimizer#_target_": "torch.optim.SGD",
    "prior_optimizer#_target_": "torch.optim.SGD",
    "learning_rate": 10.0,
    "prior_learning_rate": 10.0,
    "weight_decay": 0,
    "update#max_norm": 1e9,
    # the prior is a mean already when the network learns, so its own part must be small
    "prior_weight": 1e-6,
}


@pytest.fixture(scope="module")
def folders(train, bundle, tiny, domains, tmp_path_factory) -> dict[str, Path]:
    """Output of each process's slices alone, and of both processes."""
    output = tmp_path_factory.mktemp("processes")
    alone = {str(k): train(output / str(k), **SETTINGS, **{"train#sampler#rank": k, "update#rank": k}) for k in range(2)}
    settings = {key: value for key, value in {**tiny, **SETTINGS}.items() if key not in ("device", "world_size")}
    return {**alone, "both": train_in_two_processes(bundle, output / "both", {"dataset_dir": domains, **settings})}


@pytest.mark.parametrize("name", ["anatomical_prior.pt", "model.pt"])
def test_weights_are_the_mean_and_statistics_of_the_first(folders, name):
    first, second, both = (torch.load(folders[key] / name, weights_only=True) for key in ("0", "1", "both"))
    assert first.keys() == second.keys() == both.keys()
    statistics = [key for key in both if "running" in key]
    weights = [key for key in both if "running" not in key and "tracked" not in key]
    assert statistics
    for key in statistics:
        torch.testing.assert_close(both[key], first[key], rtol=1e-5, atol=1e-6)
    for key in weights:
        torch.testing.assert_close(both[key], (first[key] + second[key]) / 2, rtol=1e-4, atol=2e-6)
    assert max((first[key] - second[key]).abs().max() for key in weights) > 1e-3


def test_the_loss_is_the_mean(folders):
    first, second, both = (curves(folders[key]) for key in ("0", "1", "both"))
    assert first.keys() == both.keys()
    for name in ("step/prior/disc", "step/network/segmentation", "step/network/contrastive", "step/network/square"):
        assert both[name] == pytest.approx([(a + b) / 2 for a, b in zip(first[name], second[name], strict=True)], rel=1e-4), name
        assert first[name] != second[name], name
