from __future__ import annotations

import os

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from tools.bundle.checkpoint import ResumableCheckpoint, WeightsSaver, initial_network, load_weights, save_weights
from tools.data.checks import DataError


class Steps:
    """A sampler as far as the checkpoint knows one."""

    next_step = 0


def parts(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return network, torch.optim.AdamW(network.parameters(), lr=0.05)


class Run:
    """A small training whose every step draws from torch's random state."""

    def __init__(self, path, seed: int = 0, resume: bool | str = False, rank: int = 0, settings: dict | None = None) -> None:
        self.network, self.optimizer = parts(seed)
        self.sampler, self.validation = Steps(), Engine(lambda engine, batch: None)
        self.engine = Engine(self.step)
        self.engine.state.device = torch.device("cpu")
        for engine in (self.engine, self.validation):
            engine.state.best_metric, engine.state.best_metric_epoch = -1, -1
        objects = {"network": self.network, "optimizer": self.optimizer}
        self.handler = ResumableCheckpoint(path, objects, self.sampler, resume, {"validation": self.validation}, rank, settings)
        self.handler.attach(self.engine)

    def step(self, engine, batch):
        self.optimizer.zero_grad()
        self.network(torch.rand(2, 3)).square().sum().backward()
        self.optimizer.step()
        self.validation.state.best_metric = float(engine.state.iteration)

    def __call__(self, epochs: int) -> Run:
        self.engine.run(range(3), max_epochs=epochs)
        return self

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.network.parameters()]


def test_a_resumed_run_ends_where_the_unbroken_one_does(tmp_path):
    unbroken = Run(tmp_path / "a.pt")(4)
    Run(tmp_path / "b.pt")(2)
    resumed = Run(tmp_path / "b.pt", seed=9, resume="true")
    torch.manual_seed(123)
    resumed(4)
    assert resumed.engine.state.iteration == 12
    assert all(torch.equal(a, b) for a, b in zip(unbroken.weights(), resumed.weights()))


def test_what_is_restored(tmp_path):
    Run(tmp_path / "a.pt")(2)
    resumed = Run(tmp_path / "a.pt", seed=9, resume=True)(2)
    assert (resumed.engine.state.epoch, resumed.engine.state.iteration) == (2, 6)
    assert resumed.sampler.next_step == 6
    assert resumed.validation.state.best_metric == 6.0


def test_a_checkpoint_holds_plain_types_only(tmp_path):
    Run(tmp_path / "a.pt")(1)
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert state["epoch"] == 1
    assert sorted(state["objects"]) == ["network", "optimizer"]


def test_resume_without_a_checkpoint_begins(tmp_path):
    assert Run(tmp_path / "a.pt", resume="true")(1).engine.state.epoch == 1


def test_another_run_is_not_overwritten(tmp_path):
    Run(tmp_path / "a.pt")(1)
    with pytest.raises(DataError, match="a.pt: a run lies here already; --resume true continues it"):
        Run(tmp_path / "a.pt")(1)


def test_a_further_round_of_the_same_trainer_goes_on(tmp_path):
    made = Run(tmp_path / "a.pt")(1)
    made.optimizer.param_groups[0]["lr"] = 0.0  # as a federated server changes what the checkpoint does not know
    weights = made.weights()
    made(3)
    assert made.engine.state.iteration == 9
    assert all(torch.equal(a, b) for a, b in zip(weights, made.weights()))


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_an_unreadable_checkpoint(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match="a.pt: not readable as a checkpoint"):
        Run(tmp_path / "a.pt", resume=True)(1)


def test_a_checkpoint_of_another_network(tmp_path):
    Run(tmp_path / "a.pt")(1)
    other = Run(tmp_path / "a.pt", resume=True)
    other.handler.objects["network"] = nn.Linear(2, 2)
    with pytest.raises(DataError, match="a.pt: does not fit this run"):
        other(2)


def test_only_the_first_process_writes(tmp_path):
    Run(tmp_path / "a.pt", rank=1)(1)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    Run(tmp_path / "a.pt")(1)
    before = (tmp_path / "a.pt").read_bytes()

    def half(state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        Run(tmp_path / "a.pt", resume=True)(2)
    assert (tmp_path / "a.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


def test_weights_go_out_and_in(tmp_path):
    network, other = parts(0)[0], parts(1)[0]
    save_weights(tmp_path / "new" / "model.pt", network)
    loaded = load_weights(tmp_path / "new" / "model.pt", other)
    assert loaded is other
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.parameters()))


def test_missing_weights(tmp_path):
    with pytest.raises(DataError, match="no.pt: no such weights"):
        load_weights(tmp_path / "no.pt", parts(0)[0])


def test_weights_of_another_network(tmp_path):
    save_weights(tmp_path / "model.pt", nn.Linear(2, 2))
    with pytest.raises(DataError, match="model.pt: not the weights of this network"):
        load_weights(tmp_path / "model.pt", parts(0)[0])


@pytest.mark.parametrize(("load", "same"), [(True, True), ("true", True), (False, False), ("False", False)])
def test_fine_tuning_begins_from_weights(tmp_path, load, same):
    save_weights(tmp_path / "model.pt", parts(0)[0])
    network = initial_network(parts(1)[0], tmp_path / "model.pt", load)
    assert torch.equal(network[0].weight, parts(0)[0][0].weight) is same


def test_fresh_training_needs_no_weights(tmp_path):
    assert initial_network(parts(1)[0], tmp_path / "none.pt").training


@pytest.mark.parametrize(("best_epoch", "written"), [(1, True), (0, False)])
def test_best_weights(tmp_path, best_epoch, written):
    engine, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    evaluator.state.best_metric_epoch = best_epoch
    WeightsSaver(tmp_path / "best.pt", parts(0)[0], best_of=evaluator).attach(engine)
    engine.run([0], max_epochs=1)
    assert (tmp_path / "best.pt").exists() is written


def test_weights_after_every_epoch(tmp_path):
    engine = Engine(lambda engine, batch: None)
    WeightsSaver(tmp_path / "model.pt", parts(0)[0]).attach(engine)
    WeightsSaver(tmp_path / "other.pt", parts(0)[0], rank=1).attach(engine)
    engine.run([0], max_epochs=1)
    assert os.listdir(tmp_path) == ["model.pt"]


def test_weights_that_need_not_be_there(tmp_path):
    assert load_weights(tmp_path / "model.pt", parts(0)[0], optional=True) is None


def test_weights_that_are_there_must_fit_even_where_they_are_optional(tmp_path):
    save_weights(tmp_path / "model.pt", nn.Linear(2, 2))
    with pytest.raises(DataError, match="not the weights of this network"):
        load_weights(tmp_path / "model.pt", parts(0)[0], optional=True)


@pytest.mark.parametrize(("before", "after"), [((1, 2), [1, 2]), ({"a": 1, "b": 2}, {"b": 2, "a": 1})])
def test_a_run_of_the_same_settings_resumes(tmp_path, before, after):
    Run(tmp_path / "a.pt", settings={"stages": before})(1)
    assert Run(tmp_path / "a.pt", resume=True, settings={"stages": after})(2).engine.state.iteration == 6


def test_a_run_of_other_settings_does_not_resume(tmp_path):
    Run(tmp_path / "a.pt", settings={"seed": 0, "epochs": 5})(1)
    with pytest.raises(DataError, match=r"a\.pt: the run to resume had other epochs, 5, not 6"):
        Run(tmp_path / "a.pt", resume=True, settings={"seed": 0, "epochs": 6})(2)
