"""``training.json`` in a model's folder: with which seed, for how many steps and in which precision its weights were trained.

The file holds, of a training as it began:

- ``seed``, and ``steps``: network to the optimisation steps that the whole schedule gives it; weights of a run that has not ended, or
  that ``early_stopping_patience`` ended, have had fewer;
- ``steps_before``, in fine-tuning alone: those that its weights had before, over all trainings, or null where their folder does not say;
- ``precision`` and ``versions``.

Any of them may be missing where it is not known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.data.files import write_json
from tools.metrics.tables import versions

__all__ = ["RECORD", "evaluated_training", "read_training", "write_training"]

RECORD = "training.json"


def write_training(folder: str | os.PathLike, training: Mapping[str, Any], model_dir: str | os.PathLike | None = None) -> None:
    """Write the record of a training that begins, atomically.

    Args:
        folder: the model's folder.
        training: what the file holds, but for ``steps_before`` and ``versions``.
        model_dir: folder of the model that goes on learning, in fine-tuning; it may be the same one.

    Raises:
        DataError: see :func:`read_training`.
    """
    before = {} if model_dir is None else {"steps_before": _all_steps(read_training(model_dir))}
    write_json(Path(folder) / RECORD, {**training, **before, "versions": versions()})


def read_training(model_dir: str | os.PathLike) -> dict[str, Any]:
    """The record in a model's folder, empty where there is none.

    Raises:
        DataError: it is unreadable, or its steps are no numbers by network.
    """
    path = Path(model_dir) / RECORD
    record = read_json(path) if path.is_file() else {}
    if not isinstance(record, dict):
        raise DataError(f"{path}: not a JSON object")
    for key in ("steps", "steps_before"):
        steps = record.get(key)
        if steps is not None and not (isinstance(steps, dict) and all(isinstance(number, int) for number in steps.values())):
            raise DataError(f'{path}: "{key}" must map each network to its number of steps, not {steps!r}')
    return record


def evaluated_training(model_dir: str | os.PathLike, seed: int | None = None) -> dict[str, Any]:
    """What the summary of an evaluation says of the training: ``seed`` and ``steps``, None where they are not known, ``steps_before`` in
    fine-tuning, and ``early_stopping_patience`` where the steps may have been fewer.

    Args:
        model_dir: folder of the model.
        seed: of the training, where the user says so; it goes before the record's.

    Raises:
        DataError: see :func:`read_training`.
    """
    record = read_training(model_dir)
    told = {"seed": record.get("seed") if seed is None else seed, "steps": record.get("steps")}
    told |= {"steps_before": record["steps_before"]} if "steps_before" in record else {}
    patience = record.get("early_stopping_patience")
    return told | ({"early_stopping_patience": patience} if patience else {})


def _all_steps(record: Mapping[str, Any]) -> dict[str, int] | None:
    """Network to the steps that it has had, the training's own and those before; None where either is not known."""
    own, before = record.get("steps"), record.get("steps_before", {})
    return None if own is None or before is None else {name: own.get(name, 0) + before.get(name, 0) for name in {**before, **own}}
