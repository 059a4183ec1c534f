"""Early stopping that survives a kill: ignite's, with its state in the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping

from tools.bundle.steps import mean_over_processes
from tools.data.checks import DataError

__all__ = ["EarlyStop"]


class EarlyStop:
    """Handler of the trainer: ends the run when the validator's key metric has not risen for a number of epochs.

    Args:
        patience: epochs; 0 never ends a run early.
        validator: evaluator whose key metric counts; it must have run before in the same epoch.
        interval: epochs between two validations.
        begin: epochs at the beginning of the run that do not count, because something else is trained then.

    Raises:
        DataError: ``patience`` is negative.
    """

    def __init__(self, patience: int, validator: Engine, interval: int = 1, begin: int = 0) -> None:
        if int(patience) < 0:
            raise DataError(f"early_stopping_patience must not be negative, got {patience}")
        self.patience, self.validator, self.interval, self.begin = int(patience), validator, interval, begin
        self._stopper: EarlyStopping | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.patience:
            looks = max(1, self.patience // self.interval)
            self._stopper = EarlyStopping(patience=looks, score_function=self._score, trainer=engine)
            engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._validated), self._stopper)

    def _validated(self, engine: Engine, epoch: int) -> bool:
        # not ignite's ``every`` with ``after``, which counts from there
        return epoch > self.begin and epoch % self.interval == 0

    def _score(self, engine: Engine) -> float:
        score = float(self.validator.state.metrics[self.validator.state.key_metric_name])
        # processes may validate with norms that differ; they must stop together
        return float(mean_over_processes(torch.tensor(score, dtype=torch.float64, device=getattr(engine.state, "device", None))))

    def state_dict(self) -> dict[str, Any]:
        """Best value and epochs waited."""
        return {} if self._stopper is None else dict(self._stopper.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a checkpoint stopped waiting; a run that had ended then does not go on."""
        if self._stopper is not None and state:
            self._stopper.load_state_dict(state)
            if self._stopper.counter >= self._stopper.patience:
                self._stopper.trainer.terminate()
