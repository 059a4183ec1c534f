"""Checkpoints that a killed run resumes from, and the weights a finished one leaves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tools.bundle.overrides import to_bool
from tools.data.checks import DataError, first_line
from tools.data.files import as_read, atomic_path

__all__ = ["ResumableCheckpoint", "WeightsSaver", "initial_network", "load_weights", "plain", "save_weights"]


def plain(item: Any) -> Any:
    """What is inside of a DistributedDataParallel, so that files do not depend on the number of processes."""
    return item.module if isinstance(item, DistributedDataParallel) else item


def save_weights(path: str | os.PathLike, network: nn.Module) -> None:
    """Write a network's state dictionary (on the CPU) atomically."""
    state = {key: value.detach().cpu().contiguous() for key, value in plain(network).state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_weights(path: str | os.PathLike, network: nn.Module, optional: bool = False) -> nn.Module | None:
    """Load a state dictionary into a network and return it, in evaluation mode; None where it is ``optional`` and the file is missing.

    Raises:
        DataError: the file is missing, unreadable, or of another network.
    """
    path = Path(path)
    if optional and not path.exists():
        return None
    if not path.is_file():
        raise DataError(f"{path}: no such weights; train first, or give --model_dir")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:
        raise DataError(f"{path}: not the weights of this network ({first_line(error)})") from error
    return network.eval()


def initial_network(
    network: nn.Module,
    weights: str | os.PathLike,
    load: bool | str = False,
    device: str | torch.device = "cpu",
    optional: bool = False,
    instead: str | os.PathLike | None = None,
) -> nn.Module:
    """The network on its device, with the weights of an earlier training where ``load`` says so (fine-tuning).

    Args:
        network, weights: the network and the file.
        load: whether to load them.
        device: where the network goes.
        optional: whether the file may be missing; the network then begins anew.
        instead: a file that makes these weights optional where it is: a model may be of another network alone.

    Raises:
        DataError: as :func:`load_weights`.
    """
    optional = optional or (instead is not None and Path(instead).is_file())
    loaded = load_weights(weights, network, optional) if to_bool(load) else None
    return (network if loaded is None else loaded).to(device)


class ResumableCheckpoint:
    """Handler: after every epoch writes all state to one file, atomically; with ``resume`` a run starts from it.

    Args:
        path: the file.
        objects: name to anything with ``state_dict`` and ``load_state_dict``: networks, optimisers, scalers; None is left out.
        sampler: object with ``next_step``, set to the step to continue with; or None.
        resume: whether to start from the file where it exists. Without it, an existing file is an error: another run's
            work would be overwritten.
        engines: name to further engines whose best metric is kept (validation).
        rank: only the process of rank 0 writes.
        settings: name to anything JSON can hold: what a resumed run must have been begun with.

    Raises:
        DataError: on start, when the file exists and ``resume`` is false, or when it does not fit the objects or the settings.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        objects: Mapping[str, Any],
        sampler: Any = None,
        resume: bool | str = False,
        engines: Mapping[str, Engine] | None = None,
        rank: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.sampler = Path(path), sampler
        self.settings = as_read(settings or {})
        self.objects = {name: plain(item) for name, item in objects.items() if item is not None}
        self.resume, self.engines, self.rank = to_bool(resume), dict(engines or {}), rank

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore all state, if there is any."""
        # A federated client runs the same trainer round after round: only its first start is a resumption.
        if engine.state.iteration > 0 or not self.path.exists():
            return
        if not self.resume:
            raise DataError(f"{self.path}: a run lies here already; --resume true continues it, or choose another --output_dir")
        try:
            state = torch.load(self.path, map_location=engine.state.device, weights_only=True)
        except Exception as error:
            raise DataError(f"{self.path}: not readable as a checkpoint ({first_line(error)})") from error
        for name, value in self.settings.items():
            before = state.get("settings", {}).get(name, value)
            if before != value:
                raise DataError(f"{self.path}: the run to resume had other {name}, {before}, not {value}")
        try:
            for name, item in self.objects.items():
                item.load_state_dict(state["objects"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.path}: does not fit this run ({first_line(error)})") from error
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        for name, other in {"trainer": engine, **self.engines}.items():
            other.state.best_metric, other.state.best_metric_epoch = state["best"][name]
        torch.set_rng_state(state["random"].cpu())
        if self.sampler is not None:
            self.sampler.next_step = state["iteration"]

    def save(self, engine: Engine) -> None:
        """Write all state."""
        if self.rank != 0:
            return
        engines = {"trainer": engine, **self.engines}
        state = {
            "objects": {name: item.state_dict() for name, item in self.objects.items()},
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "best": {name: [other.state.best_metric, other.state.best_metric_epoch] for name, other in engines.items()},
            "random": torch.get_rng_state(),
            "settings": self.settings,
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)


class WeightsSaver:
    """Handler: writes the weights of one network, atomically, after every epoch, or after those that were the best.

    Args:
        path: the file, such as ``OUT/model.pt``.
        network: the network.
        best_of: an evaluator; the weights are then written only when its key metric was the best so far.
        rank: only the process of rank 0 writes.
    """

    def __init__(self, path: str | os.PathLike, network: nn.Module, best_of: Engine | None = None, rank: int = 0) -> None:
        self.path, self.network, self.best_of, self.rank = Path(path), network, best_of, rank

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write the weights."""
        if self.rank == 0 and (self.best_of is None or self.best_of.state.best_metric_epoch == engine.state.epoch):
            save_weights(self.path, self.network)
