from __future__ import annotations

import pytest
from ignite.engine import Engine, Events

from tools.bundle.early_stopping import EarlyStop


def training(begin: int, scores: list[float], patience: int = 2, interval: int = 1) -> tuple[Engine, EarlyStop]:
    """A training whose validator says these scores, one an epoch, of which it looks at every ``interval``-th."""
    validator = Engine(lambda engine, batch: None)
    validator.state.key_metric_name = "dice"
    trainer = Engine(lambda engine, batch: None)

    @trainer.on(Events.EPOCH_COMPLETED(every=interval))
    def validate(engine):
        validator.state.metrics["dice"] = scores[engine.state.epoch - 1]

    stop = EarlyStop(patience, validator, interval, begin)
    stop.attach(trainer)
    return trainer, stop


def epochs(begin: int, scores: list[float], patience: int = 2, interval: int = 1) -> int:
    """Epochs that training runs for."""
    return training(begin, scores, patience, interval)[0].run([0], max_epochs=len(scores)).epoch


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


@pytest.mark.parametrize(
    ("begin", "patience", "expected"),
    [
        (3, 5, 10),  # looks at 5 and 10; at 4 there is no score yet
        (5, 5, 15),  # that at 5 is of what was trained before
        (0, 10, 15),
    ],
)
def test_looks_are_those_of_the_validation(begin, patience, expected):
    assert epochs(begin, [0.5] * 20, patience, interval=5) == expected


def test_a_run_that_was_stopped_is_not_prolonged():
    trainer, stop = training(0, [0.5, 0.4, 0.3, 0.2, 0.1])
    assert trainer.run([0], max_epochs=5).epoch == 3
    again, resumed = training(0, [0.5, 0.4, 0.3, 0.2, 0.1])

    @again.on(Events.STARTED)
    def load(engine):
        resumed.load_state_dict(stop.state_dict())
        engine.state.epoch = engine.state.iteration = 3

    ended = []
    again.add_event_handler(Events.COMPLETED, lambda engine: ended.append(engine.state.epoch))
    again.run([0], max_epochs=5)
    assert ended == [3]


def test_patience_must_not_be_negative():
    with pytest.raises(ValueError, match="early_stopping_patience must not be negative"):
        EarlyStop(-1, Engine(lambda engine, batch: None))
