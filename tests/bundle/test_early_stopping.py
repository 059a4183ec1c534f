from __future__ import annotations

import pytest
from ignite.engine import Engine

from tools.bundle.early_stopping import EarlyStop


def epochs(begin: int, scores: list[float], patience: int = 2) -> int:
    """Epochs a training runs for whose validator says these scores, one an epoch."""
    validator = Engine(lambda engine, batch: None)
    validator.state.key_metric_name = "dice"

    def process(engine, batch):
        validator.state.metrics["dice"] = scores[engine.state.epoch - 1]

    trainer = Engine(process)
    EarlyStop(patience, validator, begin=begin).attach(trainer)
    return trainer.run([0], max_epochs=len(scores)).epoch


@pytest.mark.parametrize(
    ("begin", "patience", "expected"),
    [
        (0, 2, 3),  # nothing is better than the first
        (3, 2, 9),
        (0, 0, 9),
    ],
)
def test_epochs_at_the_beginning_may_not_count(begin, patience, expected):
    assert epochs(begin, [0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], patience) == expected


def test_patience_must_not_be_negative():
    with pytest.raises(ValueError, match="early_stopping_patience must not be negative"):
        EarlyStop(-1, Engine(lambda engine, batch: None))
