"""The data of a run over several domains, and cases as the networks see them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose

from multidomain_segmentation.stages import Stage
from multidomain_segmentation.union import union_channels, union_names
from tools.bundle.overrides import to_bool
from tools.bundle.run_data import RunData, as_dictionaries
from tools.bundle.schedule import parsed_stages
from tools.bundle.transforms import KeepKeysd
from tools.data.checks import DataError
from tools.data.decathlon import Case, Dataset
from tools.data.domain_plan import DomainPlan, check_slices, make_domain_plan
from tools.data.domains import Domains, check_domains, chosen_names, domain_name, read_domains
from tools.data.files import write_json
from tools.data.geometry import load_volume
from tools.data.plan import nearest_or_raise
from tools.data.slices import SliceCase
from tools.data.splits import Split, case_groups, read_domain_splits, select_domains

__all__ = ["DomainRunData", "GivenDomains", "case_transforms", "domain_dictionaries"]


def domain_dictionaries(cases: Iterable[Case]) -> list[dict[str, str]]:
    """Cases of a domain as MONAI's data dictionaries: those of :func:`tools.bundle.run_data.as_dictionaries`, and "domain"."""
    cases = list(cases)
    return [entry | {"domain": case.domain} for entry, case in zip(as_dictionaries(cases), cases, strict=True)]


class DomainRunData(RunData):
    """Domains, splits and plan of a run; nothing is read before it is asked for.

    Without a data set (a client that hands over its own list of cases) the plan of ``model_dir`` holds and the lists of cases are
    empty.

    Args:
        dataset_dir, output_dir, model_dir, extra, use_model_plan, resume: see :class:`tools.bundle.run_data.RunData`.
        domains: names of the domains to use; by default all of the data set.
        target: a domain that the run is about, if it is about one.
        split: arguments of :func:`tools.data.splits.select_domains`.
        plan: arguments of :func:`tools.data.domain_plan.make_domain_plan`; ``None`` values leave a field to the data.
        add_domains: whether the domains are new to the model of ``model_dir``, whose plan they extend.
        single_domain: whether the run is for one domain only.
    """

    wanted = "a folder of data sets, each with dataset.json, imagesTr/ and labelsTr/"

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
        domains: str | Sequence[str] | None = None,
        target: str | None = None,
        add_domains: bool | str = False,
        single_domain: bool | str = False,
    ) -> None:
        super().__init__(dataset_dir, output_dir, model_dir, split, plan, extra, use_model_plan, resume)
        self.chosen, self.target = chosen_names(domains), None if target is None else domain_name(target)
        self._add, self._single = to_bool(add_domains), to_bool(single_domain)

    @cached_property
    def domains(self) -> Domains:
        """The chosen domains as their ``dataset.json`` describe them, none without a data set."""
        if not self.dataset_dir:
            return {}
        found = read_domains(self.dataset_dir)
        nearest_or_raise(f"domain (in {self.dataset_dir})", dict.fromkeys(self.chosen), found)
        return {name: dataset for name, dataset in found.items() if not self.chosen or name in self.chosen}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the domains that are trained on, in the order of the plan."""
        names = self.domains or self.chosen or self.plan.names
        return tuple(name for name in self.plan.names if name in names)

    @property
    def new_domains(self) -> tuple[str, ...]:
        """Domains that the model of ``model_dir`` does not know yet and is given."""
        return tuple(self.domains) if self._add else ()

    @property
    def default_domain(self) -> str | None:
        """Domain of a case that names none, which a client may hand over; None where there is more than one."""
        return self.target or (self.names[0] if len(self.names) == 1 else None)

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The cases of this run by domain."""
        return select_domains(self.domains, **self._split_options)

    @cached_property
    def plan(self) -> DomainPlan:
        """The plan: the model's, that extended by new domains, or one made from the headers of the data set."""
        if not self.domains or (self._use_model_plan and not self._add):
            plan = DomainPlan.load(self.model_dir / "plan.json")
            plan.check(self.domains)
            return plan
        if self._add:
            known = DomainPlan.load(self.model_dir / "plan.json")
            for name in self.domains:
                if name in known.domains:
                    raise DataError(f"the model in {self.model_dir} has a domain {name!r} already: choose the new ones by --domains")
            return known.extended(make_domain_plan(self.domains, **{**self._plan_overrides, "patch_size": known.patch_size}).domains)
        return make_domain_plan(self.domains, **{**self._plan_overrides, "extra": self._extra})

    @property
    def images(self) -> list[dict[str, str]]:
        """Training cases, labelled or not, as MONAI data dictionaries, with the "patient"."""
        cases = []
        for name, split in self.splits.items():
            patients = case_groups(self.domains[name], split.record.get("group_pattern"))
            cases += [case | {"patient": patients[case["name"]]} for case in domain_dictionaries(split.train)]
        return cases

    @property
    def train(self) -> list[dict[str, str]]:
        """The labelled ones of these cases."""
        return [case for case in self.images if "label" in case]

    def learning(self, stages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """The cases that a training with these stages (:class:`multidomain_segmentation.stages.Stage`) draws from.

        Raises:
            DataError: they are no stages.
        """
        return self.images if any(stage.learn_from == "answers" for stage in parsed_stages(stages, Stage)) else self.train

    @property
    def validation(self) -> list[dict[str, str]]:
        """Validation cases as MONAI data dictionaries."""
        return [case for split in self.splits.values() for case in domain_dictionaries(split.validation) if "label" in case]

    @property
    def record(self) -> dict[str, Any]:
        """What ``splits.json`` holds: the record of every domain, and of those that the model was trained on before."""
        records = {name: split.record for name, split in self.splits.items()}
        before = self.model_dir / "splits.json"
        if self._add and before.is_file():
            records = {**read_domain_splits(before), **records}
        return {"domains": records}

    def check(self, need_labels: int = 1, given: Sequence[Mapping[str, Any]] = ()) -> None:
        """Look at every input file, and at what lies in the output folder already, before work starts.

        Args:
            need_labels: least number of labelled cases.
            given: cases that a client (MONAI Label) hands over instead of a data set, MONAI data dictionaries.

        Raises:
            DataError: there is no data set, it has a fault, it has not the domains that are asked for, domains are to be added to a
                model that is not gone on from, slices are asked for that are not those of the model that is, or the output folder
                holds another run.
        """
        if self._add and not self._use_model_plan:
            raise DataError("--add_domains true without --finetune true: lay the overlay add_domain over train.json, which sets both")
        if not self.dataset_dir:
            self._check_given(given, need_labels)
            if self.target:
                self.plan.index(self.target)
            return
        if self.target:
            nearest_or_raise(f"target (in {self.dataset_dir})", {self.target: None}, self.domains)
        if self._single and len(self.domains) != 1:
            raise DataError(f"one network for one domain: give --domains NAME, one of {list(self.domains)}")
        check_domains(self.domains, need_labels=need_labels)
        if self._use_model_plan and not self._add:
            check_slices(self.plan, self.domains, self._plan_overrides.get("overrides"))
        self._check_output()

    def values_of(self, case: Mapping[str, Any]) -> Collection[int]:
        """Label values that a case which a client hands over may hold: the union's, unless it names its domain."""
        if case.get("domain"):
            self.plan.index(case["domain"])
            return self.plan.domains[case["domain"]].label_values
        return range(len(union_names(self.plan)))

    def _comparisons(self) -> dict[str, Callable[[Path], bool]]:
        return {
            "plan.json": lambda path: DomainPlan.load(path) == self.plan,
            "splits.json": lambda path: {"domains": read_domain_splits(path)} == self.record,
        }

    @property
    def _asked(self) -> Mapping[str, Any]:
        size = self._plan_overrides.get("patch_size")
        return self._extra | ({} if size is None else {"patch_size": [size] * 2 if isinstance(size, int) else size})

    @property
    def _own(self) -> Mapping[str, Any]:
        # smaller slices of any domain are padded to it, in answers too
        return self.plan.extra | {"patch_size": self.plan.patch_size}

    @property
    def _datasets(self) -> list[Dataset]:
        return list(self.domains.values())

    def _save_split(self) -> None:
        if self.domains:
            write_json(self.output_dir / "splits.json", self.record)


@dataclass(frozen=True)
class GivenDomains:
    """Names the domain of cases that name none: those of a client that knows nothing of domains (MONAI Label).

    As inference answers such a client in the labels of the union, its labels are taken for the union's. The nearest domain is found among
    those that have all values of the label; where none has, among all.

    Args:
        plan: the plan of all domains.
        finder: finds the domain of an image among some (:class:`multidomain_segmentation.prototypes.DomainFinder`).
        default: the domain of all such cases; None to find it.
    """

    plan: DomainPlan
    finder: Callable[[str, Collection[str]], Any]
    default: str | None = None

    def __call__(self, cases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The cases, all with "domain", and those that had none with "values", see :class:`tools.data.slices.SliceCase`."""
        return [dict(case) if case.get("domain") else self._named(case) for case in cases]

    def _named(self, case: Mapping[str, Any]) -> dict[str, Any]:
        name = self.default or self.finder(case["image"], self._possible(case)).domain
        return {**case, "domain": name, "values": union_channels(self.plan, name)}

    def _possible(self, case: Mapping[str, Any]) -> Collection[str]:
        if case.get("label") is None:
            return self.plan.names
        values = set(np.unique(load_volume(case["label"])[0]))
        # A label that fits no domain is refused where it is read, by its nearest domain's name.
        return [name for name in self.plan.names if values <= set(union_channels(self.plan, name))] or self.plan.names


def case_transforms(plan: DomainPlan) -> Compose:
    """From paths to slices in memory, see :class:`tools.data.slices.SliceCase`; what a client adds to its cases is left out."""
    return Compose([KeepKeysd(["name", "image", "label", "domain", "values"], allow_missing_keys=True), SliceCase(plan)])
