"""What a training leaves, and that it has learnt."""

from __future__ import annotations

import json

import torch
from training_runs import curves


def test_what_a_training_writes(model):
    for name in ("model.pt", "anatomical_prior.pt", "plan.json", "splits.json", "domains.json", "checkpoints/last.pt"):
        assert (model / name).is_file(), name
    assert not list(model.rglob(".writing*"))
    plan = json.loads((model / "plan.json").read_text())
    assert list(plan["domains"]) == ["disc", "square"]
    assert plan["extra"]["network"]["channels"] == [4, 8, 8, 8]
    weights = torch.load(model / "model.pt", weights_only=True)
    assert {"head.convs.disc.weight", "head.convs.square.weight"} <= set(weights)


def test_both_networks_learn(model):
    values = curves(model)
    assert len(values["step/loss"]) == 80
    prior, network = values["step/prior/disc"], values["step/network/segmentation"]
    assert len(prior) == 13  # 0.2 of 1.2
    assert len(network) == 67
    assert sum(prior[-3:]) < 0.9 * sum(prior[:3])
    assert sum(network[-5:]) < 0.6 * sum(network[:5])
    assert max(values["step/network/prior"]) > 0
    assert max(values["step/network/contrastive"]) > 0
    assert {"step/network/disc", "step/network/square"} <= set(values)
    assert {"segmentation_dice", "dice_disc", "dice_square"} <= set(values)


def test_unlabelled_images_change_what_is_learnt(train, tmp_path):
    options = {"epochs": 4, "epoch_length": 20, "slices_per_domain": 2, "validation_interval": 2, "learning_rate": 0.01, "prior_weight": 0}
    scores = {}
    for source in ("answers", "labels"):
        stages = [{"name": "first"}, {"name": "second", "learn_from": source, "learning_rate": 0.5}]
        train(tmp_path / source, label_limit=1, teacher_decay=0.95, stages=stages, **options)
        scores[source] = curves(tmp_path / source)["segmentation_dice"]
    assert scores["answers"][0] == scores["labels"][0]
    assert scores["answers"][1] != scores["labels"][1]
    assert scores["answers"][1] > scores["answers"][0]  # 0.93, 0.95; an answer that is nonsense ruins it
