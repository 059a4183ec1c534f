"""Kill a training again and again, in processes forked from one that has imported everything: a start costs no imports.

``python killed_training.py JSON`` with {"arguments": of monai.bundle.run, "output_dir", "kills": {"random": [parts of the unbroken
run's time], "writing": [which call of torch.save]}} trains to ``output_dir/unbroken`` without a kill and to ``output_dir/killed``
with all of them, and prints how many processes were killed and how many in the middle of writing a file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # what the first optimiser step would import
from monai.bundle import run


def train(arguments: dict, output_dir: Path, die_in_save: int | None = None) -> int:
    """Begin or resume a training in a child process; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        calls, save = [0], torch.save

        def half(state, path):
            calls[0] += 1
            save(state, path)
            if calls[0] == die_in_save:
                os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half
        run(run_id="training", logging_file=False, output_dir=str(output_dir), resume="true", **arguments)
        status = 0
    finally:
        os._exit(status)


def wait(child: int, seconds: float | None = None) -> bool:
    """Wait for a child, with a limit after which it is killed; returns whether it died of a kill. Its own failure is ours."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    if os.WEXITSTATUS(status):
        raise SystemExit(f"a training failed with status {os.WEXITSTATUS(status)}")
    return False


def main(job: dict) -> None:
    """Run the job of the module's documentation."""
    arguments, output = job["arguments"], Path(job["output_dir"])
    begin = time.monotonic()
    wait(train(arguments, output / "unbroken"))
    seconds = time.monotonic() - begin
    killed = sum(wait(train(arguments, output / "killed"), part * seconds) for part in job["kills"]["random"])
    in_writing = sum(wait(train(arguments, output / "killed", call)) for call in job["kills"]["writing"])
    wait(train(arguments, output / "killed"))
    print(json.dumps({"killed": killed, "in_writing": in_writing}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
