"""The runs of an experiment: each the bundle's own command in a process of its own, restartable, with a record of what it was.

Below the experiment's folder a run has ``runs/NAME/`` with what the training writes, ``training.log`` and ``run.json``; an evaluation
has ``runs/NAME/EVALUATION/`` with ``metrics.csv``, ``summary.json``, ``evaluating.log`` and ``run.json``. A ``run.json`` is written
before the work begins and says when it is finished, so that nothing is done twice and no result is taken for that of other settings.

What a bundle has to offer, beside the run ids ``training`` and ``evaluating``: the entry ``schedule`` of its ``train.json``, which can be
built without data, and has ``counts()``: network to its number of steps.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from monai.bundle import ConfigParser

import tools
from tools.bundle.errors import cause
from tools.bundle.overrides import check_overrides
from tools.data.checks import DataError, first_line
from tools.data.decathlon import read_dataset, read_description, read_images
from tools.data.domains import Domains, chosen_names, read_domains
from tools.data.files import write_json
from tools.data.plan import nearest_or_raise
from tools.experiments.definition import Definition
from tools.metrics.tables import versions

__all__ = ["REPOSITORY", "Children", "Execute", "Experiment", "RunFailed", "shown_path"]

REPOSITORY = Path(tools.__file__).resolve().parents[1]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")

# where and how a config's run happens, not what comes of it
WITHOUT_EFFECT = ("dataset_dir", "output_dir", "model_dir", "resume", "finetune", "progress_bar", "workers", "cache_rate")


class Execute(Protocol):
    """Runs a command: (command, log, environment) -> exit status; ``stop`` ends what runs, from another thread."""

    def __call__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int: ...

    def stop(self) -> None: ...


class RunFailed(DataError):
    """A training or an evaluation ended with an error; the message names it, its log and the error in it."""


class Children:
    """Runs commands as processes, from several threads at once if need be; :meth:`stop` ends those that still run."""

    def __init__(self) -> None:
        self._lock, self._stopped, self._running = threading.Lock(), False, set()

    def __call__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a command in the repository's root, its output appended to ``log``; returns its exit status.

        Raises:
            KeyboardInterrupt: :meth:`stop` was called before.
        """
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"$ {shlex.join(command)}\n")
            stream.flush()
            with self._lock:
                if self._stopped:
                    raise KeyboardInterrupt
                process = subprocess.Popen(
                    command, stdout=stream, stderr=subprocess.STDOUT, cwd=REPOSITORY, env={**os.environ, **environment}
                )
                self._running.add(process)
            try:
                return process.wait()
            finally:
                self._running.discard(process)

    def stop(self) -> None:
        """End all processes, and start none any more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Experiment:
    """The trainings and evaluations of a definition, in one folder.

    Args:
        definition: what to do.
        bundle: the bundle's folder; its package has the folder's name.
        dataset_dir: the data set, or a folder of several; None serves for :meth:`steps`, :meth:`finished` and the like.
        folder: where everything is written.
        foreign_dir: images for those evaluations that are of foreign ones, or None to pass these over.
        quick: whether the definition's quick overrides hold.
        threads: CPU threads of every process.
        execute: runs the commands; several threads may call it.
    """

    definition: Definition
    bundle: Path
    dataset_dir: Path | None
    folder: Path
    quick: bool = False
    threads: int = 2
    execute: Execute = field(default_factory=Children)
    foreign_dir: Path | None = None

    def overrides(self, name: str) -> dict[str, Any]:
        """Overrides of a training, those of the definition and of the run together."""
        quick = self.definition.quick if self.quick else {}
        return {**self.definition.overrides, **self.definition.runs[name].overrides, **quick}

    def evaluation_overrides(self, name: str, evaluation: str) -> dict[str, Any]:
        """Overrides of an evaluation: its own, and those of the training that hold for it too."""
        training = self.overrides(name)
        foreign = {"foreign_dir": str(self.foreign_dir or "")} if self.definition.of_foreign_images(evaluation) else {}
        passed = {key: training[key] for key in self.definition.runs[name].evaluating}
        return {**self.definition.evaluations[evaluation], **foreign, **passed}

    def run_dir(self, name: str) -> Path:
        """Folder of a training."""
        return self.folder / "runs" / name

    def record(self, name: str, evaluation: str | None = None) -> dict[str, Any] | None:
        """``run.json`` of a training or an evaluation, or None where it was not begun."""
        path = (self.run_dir(name) / evaluation if evaluation else self.run_dir(name)) / "run.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{path}: not readable as JSON ({error})") from error

    def finished(self, name: str, evaluation: str | None = None) -> bool:
        """Whether a training, or an evaluation of it, is complete."""
        record = self.record(name, evaluation)
        return record is not None and record["finished"]

    def usable(self, name: str, evaluation: str) -> bool:
        """Whether an evaluation and its training are complete, and of the settings that hold now."""
        return all(self.finished(name, what) and not self._changed(name, what) for what in (None, evaluation))

    def passed_over(self, name: str, evaluation: str) -> bool:
        """Whether an evaluation is still to be done, and of foreign images of which no folder is given."""
        return self.foreign_dir is None and self.definition.of_foreign_images(evaluation) and not self.finished(name, evaluation)

    def settings(self, name: str, evaluation: str | None = None) -> dict[str, Any]:
        """What decides the result of a training or an evaluation: the plain values of its config, and the data set, of several the
        ``domains`` and the ``target`` that it names.

        Two that agree in these may differ in the config's expressions and in code; such changes are not noticed. Nor is an option that
        was not there then and has its default now.
        """
        values = self._values(name, evaluation)
        if evaluation is not None and self.definition.of_foreign_images(evaluation):
            values["foreign_dir"] = self._foreign
        return {**values, "dataset": _used(self._dataset, values)}

    def steps(self, name: str) -> dict[str, int]:
        """Optimisation steps that each network gets in a training: ``counts()`` of the config's ``schedule``.

        Raises:
            DataError: the bundle's config has no schedule, or the overrides make none.
        """
        self._make_importable()
        files = self._configs(["train.json", *self._overlays(name)])
        parser = ConfigParser(config=ConfigParser.load_config_files([str(file) for file in files]))
        # the schedule may differ without a data set, but which one it is says nothing of it
        parser.update({**self.overrides(name), "bundle_root": str(self.bundle), "dataset_dir": str(self.dataset_dir or ".")})
        if "schedule" not in parser:
            raise DataError(f"{files[0]}: has no schedule, whose steps an experiment counts")
        try:
            schedule = parser.get_parsed_content("schedule")
        except RuntimeError as error:
            raise DataError(f"{self.definition.path}: run {name!r}: {cause(error) or first_line(error.__cause__ or error)}") from error
        return schedule.counts()

    @cached_property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks whose steps :meth:`steps` counts."""
        return tuple(self.steps(next(iter(self.definition.runs))))

    def check(self, names: Iterable[str], again: Collection[str] = ()) -> None:
        """Look for misspelled keys and for runs that lie there already but were made otherwise, before any work.

        Args:
            names: the runs to look at.
            again: those among them whose results are to be deleted, and may be of other settings.

        Raises:
            DataError: there is one; the message names the run and the key. Or a row is about a domain that the data do not have, or there
                are no images in the folder of foreign ones, or no evaluation of them.
        """
        self._make_importable()
        if self._foreign is not None and not any(map(self.definition.of_foreign_images, self.definition.evaluations)):
            raise DataError(f"{self.definition.path}: no evaluation is of the images of --foreign_dir {self.foreign_dir}")
        for row, value in self.definition.rows.items():
            if value.domain is not None:
                nearest_or_raise(f"domain (in {self.dataset_dir}) of the row {row!r}:", {value.domain: row}, self._domains)
        for name in names:
            files = self._configs(["train.json", *self._overlays(name)])
            self._lint(f"run {name!r}", files, self.overrides(name), "training")
            self.steps(name)
            for evaluation in self.definition.runs[name].evaluations:
                overrides = self.evaluation_overrides(name, evaluation)
                self._lint(f"evaluation {evaluation!r}", self._configs(["train.json", "evaluate.json"]), overrides, "evaluating")
            for what in (None, *self.definition.runs[name].evaluations) if name not in again else ():
                self._same(name, what)

    def discard(self, name: str) -> None:
        """Delete a training and its evaluations."""
        shutil.rmtree(self.run_dir(name), ignore_errors=True)

    def train(self, name: str) -> bool:
        """Train, or continue, unless it is finished; returns whether there was anything to do.

        Raises:
            RunFailed: it ended with an error.
        """
        folder = self.run_dir(name)
        resume = self.record(name) is not None  # not by its checkpoint: the first weights are written before the first of these
        options = {**self.overrides(name), "dataset_dir": self.dataset_dir, "output_dir": folder, "resume": resume, "progress_bar": False}
        command = self._command("training", ["train.json", *self._overlays(name)], options)
        return self._carry_out(name, None, command, {"steps": self.steps(name)})

    def evaluate(self, name: str, evaluation: str) -> bool:
        """Evaluate a finished training, unless that is done or passed over; returns whether there was anything to do.

        Raises:
            RunFailed: it ended with an error.
        """
        if self.passed_over(name, evaluation):
            return False
        folder = self.run_dir(name)
        options = {**self.evaluation_overrides(name, evaluation), "dataset_dir": self.dataset_dir}
        options |= {"model_dir": folder, "output_dir": folder / evaluation, "seed": self._values(name)["seed"]}
        return self._carry_out(name, evaluation, self._command("evaluating", ["train.json", "evaluate.json"], options), {})

    def _carry_out(self, name: str, evaluation: str | None, command: list[str], details: Mapping[str, Any]) -> bool:
        self._same(name, evaluation)
        if self.finished(name, evaluation):
            return False
        folder = self.run_dir(name) / (evaluation or "")
        folder.mkdir(parents=True, exist_ok=True)
        earlier = self.record(name, evaluation) or {"sessions": []}
        # null stands for a session whose end nobody saw
        sessions = [*earlier["sessions"], None]
        record = {"command": shlex.join(command), "settings": self.settings(name, evaluation), **details}
        record |= {"threads": self.threads, "versions": versions(), "finished": False}
        write_json(folder / "run.json", {**record, "sessions": sessions, "seconds": None})
        log = folder / ("evaluating.log" if evaluation else "training.log")
        begin, code = time.monotonic(), None
        try:
            code = self.execute(command, log, dict.fromkeys(THREAD_VARIABLES, str(self.threads)))
        finally:
            sessions[-1] = round(time.monotonic() - begin, 1)
            seconds = None if None in sessions else round(sum(sessions), 1)
            write_json(folder / "run.json", {**record, "finished": code == 0, "sessions": sessions, "seconds": seconds})
        if code != 0:
            what = f"evaluation {evaluation!r} of run {name!r}" if evaluation else f"run {name!r}"
            raise RunFailed(f"{what} ended with exit code {code}: {_reason(log)} ({log})")
        return True

    def _changed(self, name: str, evaluation: str | None) -> list[tuple[str, Any, Any]]:
        """Settings, then and now, in which what lies there differs from what would be made."""
        record = self.record(name, evaluation)
        if record is None:
            return []
        # as JSON has them: tuples are lists there
        new = json.loads(json.dumps(self.settings(name, evaluation)))
        # an option that came after the results counts with its default, by which it changes nothing
        defaults = ConfigParser.load_config_file(str(self._configs(["evaluate.json" if evaluation else "train.json"])[0]))
        old = {key: defaults[key] for key in new if key in defaults} | record["settings"]
        # once all data sets of a folder were written down
        old["dataset"] = _used(old["dataset"], new)
        if evaluation is not None and self.definition.of_foreign_images(evaluation) and self.foreign_dir is None:
            new["foreign_dir"] = old["foreign_dir"]  # whatever it was of
        return [(key, old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)]

    def _same(self, name: str, evaluation: str | None) -> None:
        """Refuse results that were made with other settings."""
        changed = self._changed(name, evaluation)
        if changed:
            key, old, new = changed[0]
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            what = f"evaluation {evaluation!r} of run {name!r}" if evaluation else f"run {name!r}"
            raise DataError(
                f"{self.run_dir(name)}: {what} was made with {key} = {_short(old)}, now it is {_short(new)}{more}; "
                f"--force {name} makes it again, another --to leaves it"
            )

    def _command(self, run_id: str, configs: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        files = [shown_path(path) for path in self._configs(configs)]
        root = self.bundle / "configs"
        # fire reads a list of files from one argument in brackets
        config_file = files[0] if len(files) == 1 else "[" + ",".join(f"'{name}'" for name in files) + "]"
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--bundle_root", shown_path(self.bundle)]
        command += ["--meta_file", shown_path(root / "metadata.json"), "--config_file", config_file]
        command += ["--logging_file", shown_path(root / "logging.conf")]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        return command

    def _configs(self, names: Sequence[str]) -> list[Path]:
        return [Path(name) if os.path.isabs(name) else self.bundle / "configs" / name for name in names]

    def _overlays(self, name: str) -> list[str]:
        """Files of a run's overlays: the bundle's own, or one that lies beside the definition."""
        found = []
        for overlay in self.definition.runs[name].overlays:
            file = overlay if overlay.endswith(".json") else f"{overlay}.json"
            places = (self.bundle / "configs" / "experiments" / file, self.definition.path.resolve().parent / file)
            path = next((place for place in places if place.is_file()), None)
            if path is None:
                raise DataError(f"{self.definition.path}: run {name!r} has the overlay {overlay!r}, but there is no {places[0]}")
            found.append(str(path))
        return found

    def _values(self, name: str, evaluation: str | None = None) -> dict[str, Any]:
        """Plain values of the config of a training or an evaluation, without those that say where and how it runs."""
        files = self._configs(["train.json", *self._overlays(name)] if evaluation is None else ["evaluate.json"])
        overrides = self.overrides(name) if evaluation is None else self.evaluation_overrides(name, evaluation)
        config = {**ConfigParser.load_config_files([str(file) for file in files]), **overrides}
        return {
            key: value
            for key, value in config.items()
            if key in overrides or (key[0] != "_" and key not in WITHOUT_EFFECT and _plain(value))
        }

    def _lint(self, what: str, files: Sequence[Path], overrides: Mapping[str, Any], run_id: str) -> None:
        try:
            check_overrides([str(file) for file in files], overrides, run_id)
        except DataError as error:
            raise DataError(f"{self.definition.path}: {what}: {error}") from None

    def _make_importable(self) -> None:
        if str(self.bundle) not in sys.path:
            sys.path.insert(0, str(self.bundle))

    @cached_property
    def _dataset(self) -> str:
        """Names and sizes of the data."""
        content = read_description(self.dataset_dir) if (Path(self.dataset_dir) / "dataset.json").is_file() else None
        # Where only its domains have labels, one folder holds several data sets as well.
        if content is None or ("domains" in content and not content.get("labels")):
            datasets = list(self._domains.values())
        else:
            datasets = [read_dataset(self.dataset_dir)]
        return "; ".join(f"{dataset.name}, {len(dataset.cases)} cases" for dataset in datasets)

    @cached_property
    def _foreign(self) -> str | None:
        """Name of the folder of foreign images and their number."""
        return None if self.foreign_dir is None else f"{self.foreign_dir.name}, {len(read_images(self.foreign_dir))} images"

    @cached_property
    def _domains(self) -> Domains:
        return read_domains(self.dataset_dir)


def _used(datasets: str, values: Mapping[str, Any]) -> str:
    """Of names and sizes of several data sets those that a config names as its ``domains`` or its ``target``."""
    names = chosen_names(values.get("domains"))
    if not names:
        return datasets
    names += chosen_names(values.get("target"))
    entries = datasets.split("; ")
    # one data set of several domains is described as a whole
    return "; ".join(entry for entry in entries if entry.rpartition(", ")[0] in names) or datasets


def _plain(value: Any) -> bool:
    """Whether a config value is data, without reference, expression or component in it."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(_plain(item) for item in value.values())
    if isinstance(value, list):
        return all(_plain(item) for item in value)
    return not (isinstance(value, str) and re.match(r"[$@%]", value))


def shown_path(path: str | Path) -> str:
    """The path from the repository's root, where commands are run, if it lies below it."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _reason(log: Path) -> str:
    """What the last command in a log ended with: the first error in its output, of which later ones are consequences, or its last line."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    command = max((match.end() for match in re.finditer(r"^\$ .*$", text, re.MULTILINE)), default=0)
    lines = [line.strip() for line in text[command:].splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error|[\w.]*(Error|Exception)): ", line)]
    return next(iter(errors or lines[-1:]), "no output")
