from __future__ import annotations

import logging

import pytest
from ignite.engine import Engine

from tools.bundle.progress import Progress


def trained(handler: Progress, outputs: list[dict[str, float]], epochs: int = 2) -> Engine:
    """An engine whose steps answer ``outputs``, the same in each epoch."""
    engine = Engine(lambda engine, batch: outputs[(engine.state.iteration - 1) % len(outputs)])
    handler.attach(engine)
    engine.run(range(len(outputs)), max_epochs=epochs)
    return engine


OUTPUTS = [{"loss": 1.0, "a/x": 4.0}, {"loss": 2.0}, {"loss": 6.0, "a/x": 2.0}]


def test_averages_are_over_the_steps_that_named_the_part():
    engine = trained(Progress(bar=False), OUTPUTS)
    assert engine.state.metrics == {"loss": 3.0, "a/x": 3.0}


def test_a_line_an_epoch(caplog, capsys):
    with caplog.at_level(logging.INFO):
        trained(Progress(name="lines", bar=False), OUTPUTS)
    lines = [record.getMessage() for record in caplog.records if record.name == "lines"]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2: loss 3.0000 a/x 3.0000 (")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bar", [True, "true", "True"])
def test_a_bar_and_no_lines(bar, caplog, capsys):
    with caplog.at_level(logging.INFO):
        trained(Progress(name="lines", bar=bar), OUTPUTS)
    assert not [record for record in caplog.records if record.name == "lines"]
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("bar", [None, False, "false", "False"])
def test_no_bar(bar, capsys):
    trained(Progress(bar=bar), OUTPUTS)
    assert "6/6" not in capsys.readouterr().err


def test_other_processes_are_silent(caplog, capsys):
    with caplog.at_level(logging.INFO):
        engine = trained(Progress(name="lines", bar=True, rank=1), OUTPUTS)
    assert engine.state.metrics["loss"] == 3.0
    assert not [record for record in caplog.records if record.name == "lines"]
    assert capsys.readouterr().err == ""


def test_an_error_ends_the_bar_and_passes():
    def fail(engine, batch):
        raise RuntimeError("in the step")

    engine, handler = Engine(fail), Progress(bar=True)
    handler.attach(engine)
    with pytest.raises(RuntimeError, match="in the step"):
        engine.run([0], max_epochs=1)
    assert handler.bar is None
