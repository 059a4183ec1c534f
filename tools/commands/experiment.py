"""``python -m tools experiment BUNDLE``: the trainings and evaluations behind the table of a bundle's documentation."""

from __future__ import annotations

import difflib
import fnmatch
import signal
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import tools
from tools.data.checks import DataError
from tools.data.files import write_json
from tools.experiments.definition import Definition
from tools.experiments.reading import find_definition, read_definition
from tools.experiments.runs import Experiment
from tools.experiments.table import write_table

__all__ = ["carry_out", "experiment", "selected_runs"]

BUNDLES = Path(tools.__file__).resolve().parents[1] / "bundles"


def experiment(
    bundle: str = "deepatlas",
    dataset_dir: str | None = None,
    to: str | None = None,
    definition: str | None = None,
    foreign_dir: str | None = None,
    only: str | None = None,
    force: str | None = None,
    quick: bool = False,
    threads: int = 2,
    jobs: int = 1,
    list: bool = False,
) -> None:
    """Train, evaluate and tabulate everything a definition lists, from nothing; started again, it continues where it was.

    After every evaluation the table is written anew: table.md, table.csv, table.json, cases.csv (a row a case) and figure.png in TO,
    structures.csv where the definition asks for it, and a figure for each of its projections; a run's weights, log and metrics lie in
    TO/runs/NAME.

    Args:
        bundle: name of a bundle, a folder in bundles/.
        dataset_dir: the data set, a Decathlon-style folder, or what else the bundle takes, such as a folder of several.
        to: folder for everything that is written.
        definition: name of a file in the bundle's configs/experiments that says what to run (its keys:
            tools/experiments/definition.py), or a path; by default the one that says it is.
        foreign_dir: images of none of the model's domains, for evaluations that ask whether they are refused; without it these are
            passed over.
        only: names of the runs to do, separated by commas; * stands for any letters. By default all that are not optional.
        force: names of runs, likewise, to be made again from nothing; what there was is deleted.
        quick: try the mechanics with a few steps a run, of the runs the definition names for it, in TO/quick.
        threads: CPU threads of each training and evaluation.
        jobs: runs done at once; for a GPU, which a single training of these sizes leaves idle most of the time, or for many cores.
        list: print the runs, their steps and how far they are, and do nothing.

    Raises:
        DataError: the definition, the data or an option cannot be used, results of other settings are in the way, or a run failed.
        SystemExit: it was interrupted.
    """
    bundles = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/experiments") if path.is_dir())
    if bundle not in bundles:
        raise DataError(f"experiment: there is none for {bundle!r}, only for {', '.join(bundles)}")
    plan = read_definition(find_definition(BUNDLES / bundle, definition))
    if not list:
        for name, value in (("dataset_dir", dataset_dir), ("to", to)):
            if not value:
                raise DataError(f"experiment: give --{name}")
    for name, number in (("threads", threads), ("jobs", jobs)):
        if int(number) < 1:
            raise DataError(f"experiment: {name} must be at least 1, not {number}")
    # without a folder the list looks into one that is not there: nothing is begun
    folder = (Path(to) if to else Path("experiment")).resolve()
    work = Experiment(
        definition=plan,
        bundle=BUNDLES / bundle,
        dataset_dir=Path(dataset_dir).resolve() if dataset_dir else None,
        folder=folder / "quick" if quick else folder,
        quick=quick,
        threads=int(threads),
        foreign_dir=Path(foreign_dir).resolve() if foreign_dir else None,
    )
    names = selected_runs(plan, only or (plan.quick_runs if quick else None))
    if list:
        _print_list(work, names)
        return
    carry_out(work, names, selected_runs(plan, force) if force else (), int(jobs))


def carry_out(work: Experiment, names: Sequence[str], again: Collection[str] = (), jobs: int = 1) -> dict[str, Any]:
    """Do these runs with their evaluations, and write the table after each evaluation.

    Args:
        work: the experiment.
        names: runs to do.
        again: runs among them, or others, to be made from nothing.
        jobs: how many are done at once. Where one fails, those under way are brought to their end, and no other is begun.

    Returns:
        the table (:func:`tools.experiments.table.write_table`).

    Raises:
        DataError: see :meth:`Experiment.check` and :meth:`Experiment.train`.
        SystemExit: it was interrupted.
    """
    names = [name for name in work.definition.runs if name in names or name in again]
    # what --force makes again may differ from what lies there
    work.check(names, again)
    for name in again:
        work.discard(name)
    made_of = {"definition": work.definition.path, "dataset_dir": work.dataset_dir}
    write_json(work.folder / "definition.json", made_of | ({"foreign_dir": work.foreign_dir} if work.foreign_dir else {}))
    table, writing, failed = write_table(work), threading.Lock(), threading.Event()

    def unless_one_failed(number: int, name: str) -> None:
        if failed.is_set():
            return
        try:
            carry_out_one(number, name)
        except BaseException:
            failed.set()
            raise

    def carry_out_one(number: int, name: str) -> None:
        nonlocal table
        title = f"[{number}/{len(names)}] {name}:"
        if not work.finished(name):
            steps = sum(work.steps(name).values())
            minutes = "" if work.quick else f", about {work.definition.runs[name].minutes:g} min"
            print(f"{title} {steps} steps{minutes}, log {work.run_dir(name) / 'training.log'}", flush=True)
        done = ["trained"] if work.train(name) else []
        for evaluation in work.definition.runs[name].evaluations:
            if work.evaluate(name, evaluation):
                done.append(f"evaluated ({evaluation})")
                with writing:
                    table = write_table(work)
            elif work.passed_over(name, evaluation):
                done.append(f"not evaluated ({evaluation}): give --foreign_dir")
        print(title, ", ".join(done) or "finished before", flush=True)

    previous = signal.signal(signal.SIGTERM, _interrupt)
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(unless_one_failed, number, name) for number, name in enumerate(names, start=1)]):
            future.result()
    except KeyboardInterrupt:
        # a second signal, such as that of the `timeout` command to all its processes, must not cut this short
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        work.execute.stop()
        raise SystemExit("experiment: interrupted; the same command continues") from None
    finally:
        pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGTERM, previous)
    print((work.folder / "table.md").read_text(encoding="utf-8"))
    more = ["structures.csv"] if table["structures"] else []
    more += ["figure.png", *(item["picture"] for item in table["projections"].values())]
    print(f"written: {', '.join([str(work.folder / 'table.md'), 'table.csv', 'table.json', 'cases.csv', *more])}")
    return table


def selected_runs(definition: Definition, patterns: str | None) -> list[str]:
    """Names of the runs that comma-separated names or patterns (``joint_*``) select; all that are not optional without any.

    Raises:
        DataError: a name or pattern selects nothing.
    """
    if patterns is None:
        return [name for name, run in definition.runs.items() if not run.optional]
    chosen = set()
    for pattern in (part.strip() for part in patterns.split(",")):
        found = fnmatch.filter(definition.runs, pattern)
        if not found:
            near = difflib.get_close_matches(pattern, definition.runs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(definition.runs)}"
            raise DataError(f"{definition.path}: there is no run {pattern!r}; {hint}")
        chosen |= set(found)
    return [name for name in definition.runs if name in chosen]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _print_list(work: Experiment, names: Sequence[str]) -> None:
    """What there is to do, how long it takes by the definition's estimates, and what is left."""
    runs = work.definition.runs
    width = max(map(len, runs))
    print(f"{'run':{width}}  {'state':8}  {' '.join(f'{network:>12}' for network in work.networks)} {'minutes':>8}  evaluations")
    left = 0.0
    for name, run in runs.items():
        state = "finished" if work.finished(name) else "begun" if work.record(name) else "optional" if run.optional else "-"
        if name in names and state != "finished":
            left += run.minutes
        counts = " ".join(f"{number:>12}" for number in work.steps(name).values())
        print(f"{name:{width}}  {state:8}  {counts} {run.minutes:8g}  {', '.join(run.evaluations)}")
    default = selected_runs(work.definition, None)
    selected, by_default, all_runs = (sum(runs[name].minutes for name in group) / 60 for group in (names, default, runs))
    print(f"\n{len(names)} runs selected, about {selected:.1f} h by the definition's estimate; {left / 60:.1f} h of it left")
    print(f"by default {len(default)} runs, about {by_default:.1f} h; with the optional ones {len(runs)} runs, about {all_runs:.1f} h")
