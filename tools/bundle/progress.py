"""What a user sees of a training: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict

from ignite.engine import Engine, Events
from tqdm import tqdm

from tools.bundle.overrides import to_bool

__all__ = ["Progress"]


class Progress:
    """Handler: averages everything the trainer's output names over an epoch, and shows it.

    In a terminal a bar over the whole run shows step, speed, time left and the running averages; otherwise one line an
    epoch goes to the logger. The averages stay in ``engine.state.metrics``, where other handlers find them.

    Args:
        name: logger's name.
        bar: force the bar on or off; None shows it where the error stream is a terminal.
        rank: only the process of rank 0 shows anything.
    """

    def __init__(self, name: str = "training", bar: bool | str | None = None, rank: int = 0) -> None:
        self.logger, self.rank = logging.getLogger(name), rank
        self.show_bar = sys.stderr.isatty() if bar is None else to_bool(bar)
        self.bar: tqdm | None = None
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Begin, possibly in the middle of a resumed run."""
        self.begin, self.first = time.perf_counter(), engine.state.iteration
        if self.show_bar and self.rank == 0:
            total = engine.state.max_epochs * engine.state.epoch_length
            self.bar = tqdm(total=total, initial=self.first, unit="step", dynamic_ncols=True, smoothing=0.05)

    def step(self, engine: Engine) -> None:
        """Take one step's parts in."""
        for key, value in engine.state.output.items():
            self.sums[key] += float(value)
            self.counts[key] += 1
        if self.bar is not None:
            self.bar.update()
            if engine.state.iteration % 5 == 0:
                self.bar.set_postfix({key.split("/")[-1]: f"{value:.3f}" for key, value in self.averages().items()})

    def averages(self) -> dict[str, float]:
        """Mean of every part so far in this epoch."""
        return {key: self.sums[key] / self.counts[key] for key in self.sums}

    def epoch(self, engine: Engine) -> None:
        """Close an epoch."""
        averages = self.averages()
        engine.state.metrics.update(averages)
        self.sums.clear()
        self.counts.clear()
        if self.rank == 0 and self.bar is None:
            state = engine.state
            seconds = (time.perf_counter() - self.begin) / max(state.iteration - self.first, 1)
            left = seconds * (state.max_epochs * state.epoch_length - state.iteration)
            parts = " ".join(f"{key} {value:.4f}" for key, value in averages.items())
            self.logger.info(f"epoch {state.epoch}/{state.max_epochs}: {parts} ({seconds:.2f} s a step, {left / 60:.1f} min left)")

    def close(self, engine: Engine) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def fail(self, engine: Engine, error: BaseException) -> None:
        """End the bar and let the error through."""
        self.close(engine)
        raise error
