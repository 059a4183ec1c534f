"""Kill a training again and again, in processes forked from one that has imported everything: a start costs no imports.

``python killed_training.py JSON`` with {"arguments": of monai.bundle.run, "output_dir", "kills": {"steps": [steps of the run], "random":
[parts of the unbroken run's time], "writing": [which call of torch.save]}} trains to ``output_dir/unbroken`` without a kill and to
``output_dir/killed`` with all of them, and prints how many processes were killed, of them how many at a step, and how many in the middle
of writing a file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import torch
import torch._dynamo  # what the first optimiser step would import
from ignite.engine import Events
from monai.bundle import run

from tools.bundle.checkpoint import ResumableCheckpoint


class Training(NamedTuple):
    """A child process, and a pipe that it writes to when its first step is due."""

    process: int
    pipe: int


def train(arguments: dict, output_dir: Path, die_in_save: int | None = None, die_at_step: int | None = None) -> Training:
    """Begin or resume a training in a child process."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return Training(child, read)
    status = 1
    try:
        calls, save, load = [0], torch.save, ResumableCheckpoint.load

        def half(state, path):
            calls[0] += 1
            save(state, path)
            if calls[0] == die_in_save:
                os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        def announce(self, engine):
            load(self, engine)
            if die_at_step is not None:
                engine.add_event_handler(Events.ITERATION_COMPLETED(once=die_at_step), lambda: os.kill(os.getpid(), signal.SIGKILL))
            os.write(write, b"!")

        torch.save, ResumableCheckpoint.load = half, announce
        run(run_id="training", logging_file=False, output_dir=str(output_dir), resume="true", **arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(training: Training, seconds: float | None = None) -> tuple[bool, float]:
    """Wait for a child, killing it when it has computed for ``seconds`` since its first step was due.

    Processor time is what counts, so that a busy machine does not move the moments.

    Returns:
        whether it died of a kill, and for how many seconds it computed.

    Raises:
        SystemExit: the child failed by itself.
    """
    os.read(training.pipe, 1)
    os.close(training.pipe)
    clock = (~training.process << 3) | 2  # the processor clock of another process, as clock_getcpuclockid makes it
    begin, computed = time.clock_gettime(clock), 0.0
    while not (done := os.waitpid(training.process, os.WNOHANG))[0]:
        computed = time.clock_gettime(clock) - begin
        if seconds is not None and computed >= seconds:
            os.kill(training.process, signal.SIGKILL)
            done = os.waitpid(training.process, 0)
            break
        time.sleep(0.001)
    status = done[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a training failed with status {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, computed


def main(job: dict) -> None:
    """Run the job of the module's documentation."""
    arguments, output = job["arguments"], Path(job["output_dir"])
    _, seconds = wait(train(arguments, output / "unbroken"))
    at_steps = [wait(train(arguments, output / "killed", die_at_step=step))[0] for step in job["kills"]["steps"]]
    killed = [wait(train(arguments, output / "killed"), part * seconds)[0] for part in job["kills"]["random"]]
    in_writing = [wait(train(arguments, output / "killed", call))[0] for call in job["kills"]["writing"]]
    wait(train(arguments, output / "killed"))
    print(json.dumps({"at_steps": sum(at_steps), "killed": sum(killed), "in_writing": sum(in_writing)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
