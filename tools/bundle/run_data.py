"""The data of one training run: which cases, which plan, and what is written of both beside the weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tools.bundle.overrides import to_bool
from tools.bundle.training_record import RECORD, write_training
from tools.data.checks import DataError, check_dataset, check_pair
from tools.data.decathlon import Case, Dataset, read_dataset, unlisted_images
from tools.data.files import remove_leftovers
from tools.data.folders import claim
from tools.data.plan import Plan, make_plan
from tools.data.splits import Split, read_split, select, write_split
from tools.data.typical import typical_cases

__all__ = ["RunData", "as_dictionaries"]

LABEL_CHOICES = ("random", "typical")

logger = logging.getLogger("training")


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings, each by the names on the way to it; lists as lists, whatever they were."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        name = f"{above}{name}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: list(value) if isinstance(value, tuple) else value}
    return flat


def as_dictionaries(cases: Iterable[Case]) -> list[dict[str, str]]:
    """Cases as MONAI's data dictionaries: "image" and, where there are any, "label" and "particles" (paths), and "name"."""

    def paths(case: Case) -> dict[str, str]:
        return {key: str(path) for key in ("image", "label", "particles") if (path := getattr(case, key)) is not None}

    return [{"name": case.name} | paths(case) for case in cases]


class RunData:
    """Data set, split and plan of a run; nothing is read before it is asked for.

    Without a data set (a client that hands over its own list of cases) the plan of ``model_dir`` holds and the lists of
    cases are empty.

    Args:
        dataset_dir: Decathlon-style folder, or "" for none.
        output_dir: where ``plan.json``, ``splits.json`` and ``training.json`` are written.
        model_dir: a trained model's folder; its plan is used when ``use_model_plan`` is set or there is no data set.
        split: arguments of :func:`tools.data.splits.select`; and ``label_choice``, how ``label_limit`` chooses: "random", by
            ``label_seed``, or "typical", by the images (:mod:`tools.data.typical`), where ``label_seed`` 0 begins with the most typical
            one, 1 with the next.
        plan: overrides of :func:`tools.data.plan.make_plan`; ``None`` values leave a field to the data.
        extra: what the bundle adds to the plan (network sizes).
        use_model_plan: fine-tuning: follow the plan the weights were made with.
        resume: whether the run continues what lies in ``output_dir``.
    """

    #: what ``dataset_dir`` must be, for a message
    wanted = "a folder with dataset.json, imagesTr/ and labelsTr/"

    def __init__(
        self,
        dataset_dir: str | os.PathLike = "",
        output_dir: str | os.PathLike = "",
        model_dir: str | os.PathLike = "",
        split: Mapping[str, Any] | None = None,
        plan: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        use_model_plan: bool | str = False,
        resume: bool | str = False,
    ) -> None:
        self.dataset_dir, self.output_dir, self.model_dir = str(dataset_dir), Path(output_dir), Path(model_dir)
        self._split_options, self._plan_overrides, self._extra = dict(split or {}), dict(plan or {}), dict(extra or {})
        self._use_model_plan, self._resume = to_bool(use_model_plan), to_bool(resume)

    @cached_property
    def dataset(self) -> Dataset | None:
        """The data set as described by its ``dataset.json``, or None without one."""
        return read_dataset(self.dataset_dir) if self.dataset_dir else None

    @cached_property
    def split(self) -> Split:
        """The cases of this run."""
        if self.dataset is None:
            return Split(train=(), validation=(), report=(), record={})
        options = dict(self._split_options)
        choice = options.pop("label_choice", "random")
        if choice not in LABEL_CHOICES:
            raise DataError(f"label_choice must be one of {', '.join(LABEL_CHOICES)}, not {choice!r}")
        return select(self.dataset, **options, **({"label_order": self._typical} if choice == "typical" else {}))

    def _typical(self, cases: Sequence[Case], labelled: Collection[str], seed: int) -> Iterator[str]:
        if not 0 <= seed < len(labelled):
            raise DataError(f"label_seed must be from 0 to {len(labelled) - 1}, the number of a typical case, not {seed}")
        return typical_cases(cases, self._first_plan, labelled, seed)

    @cached_property
    def plan(self) -> Plan:
        """The plan: the model's, or made from the data set."""
        return self._first_plan if self._has_plan else self.completed(self._first_plan)

    def completed(self, plan: Plan) -> Plan:
        """A plan made from the headers of the data set, with what the cases of this run say besides."""
        return plan

    @property
    def _has_plan(self) -> bool:
        """Whether the model's plan holds."""
        return self.dataset is None or self._use_model_plan

    @cached_property
    def _first_plan(self) -> Plan:
        """The model's, or made from the headers: by it cases may be chosen, when a plan is not complete yet."""
        if self._has_plan:
            plan = Plan.load(self.model_dir / "plan.json")
            if self.dataset is not None and self.dataset.labels != plan.labels:
                raise DataError(f"{self.dataset.root / 'dataset.json'}: labels {self.dataset.labels} are not the model's {plan.labels}")
            self._check_grid(plan)
            return plan
        return make_plan(self.dataset, **{**self._plan_overrides, "extra": self._extra})

    def _check_grid(self, plan: Plan) -> None:
        """Refuse a grid that is asked for and is not that of the model, which goes on learning on its own."""
        for name in ("spacing", "size", "orientation"):
            wanted, own = self._plan_overrides.get(name), getattr(plan, name)
            given = [wanted] * 3 if isinstance(wanted, (int, float)) else wanted
            if wanted is not None and list(given) != list(own):
                raise DataError(f"--{name} {wanted}: {self.model_dir / 'plan.json'} has {own}, which a model that goes on learning keeps")

    @property
    def train(self) -> list[dict[str, str]]:
        """Training cases as MONAI data dictionaries."""
        return as_dictionaries(self.split.train)

    @property
    def validation(self) -> list[dict[str, str]]:
        """Validation cases as MONAI data dictionaries."""
        return as_dictionaries(self.split.validation)

    @property
    def report(self) -> list[dict[str, str]]:
        """Cases held out for the final numbers, or the validation cases where none are held out."""
        return as_dictionaries(self.split.report or self.split.validation)

    def check(self, need_labels: int = 1, need_particles: bool = False, given: Sequence[Mapping[str, Any]] = ()) -> None:
        """Look at every input file, and at what lies in the output folder already, before work starts.

        Args:
            need_labels: least number of labelled cases.
            need_particles: whether every labelled case must have corresponding points.
            given: cases that a client (MONAI Label) hands over instead of a data set, MONAI data dictionaries.

        Raises:
            DataError: there is no data set, it has a fault, or the output folder holds another run.
        """
        if self.dataset is None:
            self._check_given(given, need_labels)
            return
        check_dataset(self.dataset, need_labels=need_labels, need_particles=need_particles)
        self._check_output()

    def _check_given(self, cases: Sequence[Mapping[str, Any]], need_labels: int) -> None:
        if not cases:
            raise DataError(f"no data set: give --dataset_dir, {self.wanted}")
        if sum(case.get("label") is not None for case in cases) < need_labels:
            raise DataError(f"{len(cases)} cases, of which at least {need_labels} must have a label")
        for case in cases:
            label = case.get("label")
            check_pair(Path(case["image"]), None if label is None else Path(label), self.values_of(case))

    def values_of(self, case: Mapping[str, Any]) -> Collection[int]:
        """Label values that a case which a client hands over may hold."""
        return self.plan.label_values

    @property
    def _checkpoint(self) -> Path:
        return self.output_dir / "checkpoints" / "last.pt"

    def _check_output(self) -> None:
        if not self._checkpoint.exists():
            weights = sorted(self.output_dir.glob("*.pt"))
            if weights and not self._resume:
                raise DataError(f"{weights[0]}: a trained model lies here already; choose another --output_dir, or move it away")
            return
        if not self._resume:
            raise DataError(f"{self._checkpoint}: a run lies here already; --resume true continues it, or choose another --output_dir")
        for name, same in self._comparisons().items():
            path = self.output_dir / name
            if path.is_file() and not same(path):
                raise DataError(f"{path}: the run to resume had other data or settings than this one")

    def _comparisons(self) -> dict[str, Callable[[Path], bool]]:
        """File in the output folder to whether it is what this run would write."""
        return {
            "plan.json": lambda path: Plan.load(path) == self.plan,
            "splits.json": lambda path: read_split(path) == self.split.record,
        }

    def save(self, training: Mapping[str, Any] | None = None) -> None:
        """Write ``training.json``, ``plan.json`` and ``splits.json`` into the output folder, which loses what a killed run half wrote.

        Args:
            training: what ``training.json`` says of this run (:mod:`tools.bundle.training_record`); None writes none. That of a run that
                is resumed stays.

        Raises:
            DataError: another process is training into it, or the ``training.json`` of the model that goes on learning is unfit.
        """
        claim(self.output_dir)
        if self._resume:
            remove_leftovers(self.output_dir)
        if self._use_model_plan:
            self._say_what_stays()
        self._warn_of_unlisted()
        resumed = self._resume and self._checkpoint.exists() and (self.output_dir / RECORD).exists()
        if training is not None and not resumed:
            write_training(self.output_dir, training, self.model_dir if self._use_model_plan else None)
        self.plan.save(self.output_dir / "plan.json")
        self._save_split()

    @property
    def _asked(self) -> Mapping[str, Any]:
        """What this run asks of the networks, named as in :attr:`_own`."""
        return self._extra

    @property
    def _own(self) -> Mapping[str, Any]:
        """What the model has of that, by its plan."""
        return self.plan.extra

    def _say_what_stays(self) -> None:
        """Log which settings of this run do not come to bear, since the networks are the model's."""
        own = _flat(self._own)
        wanted = _flat({group: settings for group, settings in self._asked.items() if group in self._own})
        kept = [f"{name} {own.get(name, 'unset')} (not {value})" for name, value in wanted.items() if own.get(name, False) != value]
        if kept:
            logger.info(f"{self.model_dir / 'plan.json'}: the model's own settings stay: {', '.join(kept)}")

    @property
    def _datasets(self) -> list[Dataset]:
        """The data sets of this run."""
        return [] if self.dataset is None else [self.dataset]

    def _warn_of_unlisted(self) -> None:
        """Log which images lie beside those that the data sets list."""
        for root in dict.fromkeys(dataset.root for dataset in self._datasets):
            images = unlisted_images(root)
            if images:
                logger.warning(
                    f"{root / 'dataset.json'}: images in imagesTr that it does not list are left out: {len(images)}, the first of them "
                    f'{images[0].name}; an entry {{"image": "./imagesTr/{images[0].name}"}} in "training" adds it as an unlabelled case'
                )

    def _save_split(self) -> None:
        if self.dataset is not None:
            write_split(self.output_dir / "splits.json", self.split)
