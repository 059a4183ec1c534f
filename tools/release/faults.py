"""What is wrong with a bundle: a code that stays the same, the place, and a sentence."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CODES", "Fault"]

#: every code that a check can give, and what it means
CODES = {
    "archive": "the archive is damaged or unsafe",
    "name": "the bundle's name cannot be used in archives and in Python",
    "file-missing": "a file that the Model Zoo or this collection asks for is not there",
    "file-size": "a file is larger than the Model Zoo takes",
    "json": "a file is no JSON",
    "schema": "the metadata do not fit the schema",
    "version": "the version is no semantic version",
    "changelog": "the changelog does not hold the version",
    "logging": "the logging config asks for more than Python's own handlers",
    "packing": "the bundle cannot be packed",
    "property": "a config lacks what MONAI requires of a workflow",
    "page": "a page of an archive names the bundle's folder in the repository",
    "expression": "an expression in a config is no Python",
    "target": "a _target_ leads to nothing that can be called",
    "requirement": "a package is used and not required by the metadata",
    "network": "the network cannot be built or run",
    "weights-missing": "there are no weights",
    "weights-unsafe": "weights do not load with weights_only=True",
    "weights-mismatch": "weights are not those of the network",
    "output": "outputs differ in number or names from the metadata",
    "shape": "an output's shape is not what the metadata say",
    "dtype": "an output's type is not what the metadata say",
    "metrics-missing": "no figures in the metadata, or no evaluation file beside the weights",
    "metrics": "the figures in the metadata are not those of the evaluation of these weights",
}


class Fault(NamedTuple):
    """A fault.

    Attributes:
        code: one of :data:`CODES`.
        place: file, or part of one, from the bundle's folder.
        message: what is wrong.
    """

    code: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.place}: {' '.join(self.message.split())}"
