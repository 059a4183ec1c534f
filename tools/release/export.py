"""A bundle's networks as ONNX files, each compared with the network itself before it is written.

What a bundle exports stands in its ``configs/export.json``, an overlay of ``inference.json``::

    "exports": {
        "segmentation": {
            "network": a module with its weights, tensors in, a tensor or a tuple of tensors out,
            "inputs": {"image": {"num_channels": 1, "spatial_shape": ["16*n", "16*n", "16*n"], "meaning": "..."}},
            "outputs": {"pred": {"labels": {0: "background", ...}, "meaning": "..."}},
            "batch": 1
        }
    }

Sides are numbers or, where any will do, ``K*n``. ``labels``, label values and names in the order of the channels, stand only where an
output has a channel for each. ``batch`` stands only where the graph takes no other.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tools.data.checks import DataError, first_line
from tools.data.files import atomic_path
from tools.data.plan import nearest_or_raise
from tools.release.build import build, read_configs, reason
from tools.release.bundle import Bundle
from tools.release.isolation import isolated
from tools.release.sizes import spatial_size, trial_values

__all__ = ["TOLERANCE", "Answer", "Export", "compare", "export", "read_export"]

TOLERANCE = 1e-4  # of the largest value, see Answer
OPSET = 20  # the first whose GridSample knows volumes
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CONFIGS = ("inference.json", "export.json")
_MULTIPLE = re.compile(r"(\d+)\s*\*\s*n")
_LARGEST = 2**12  # voxels along an axis


@dataclass(frozen=True)
class Export:
    """A network, and what its graph takes and answers.

    Attributes:
        network: with its weights, in evaluation mode.
        inputs: name to ``num_channels``, ``spatial_shape`` and ``meaning``, in the order of the network's arguments.
        outputs: name to ``meaning`` and, where each channel is a label, ``labels``, in the order of its answers.
        batch: the only number of samples that the graph takes, or None for any.
        facts: further metadata of the file.
    """

    network: nn.Module
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]
    batch: int | None
    facts: Mapping[str, str]

    def random_inputs(self, step: int, batch: int) -> tuple[torch.Tensor, ...]:
        """Images of values in [0, 1]; other sizes for each ``step`` from 0 to 2 where the network takes several."""
        generator = torch.Generator().manual_seed(step)
        result = []
        for about in self.inputs.values():
            shape = about["spatial_shape"]
            size = spatial_size(shape, trial_values(shape)[step])
            result.append(torch.rand((self.batch or batch, about["num_channels"], *size), generator=generator))
        return tuple(result)

    def answers(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What the network itself answers, in float32.

        Raises:
            DataError: as many outputs are not named.
        """
        with torch.no_grad():
            found = self.network(*inputs)
        found = tuple(found) if isinstance(found, tuple) else (found,)
        if len(found) != len(self.outputs):
            raise DataError(f"the network answers {len(found)} tensors, the outputs are {', '.join(self.outputs)}")
        return found


@dataclass(frozen=True)
class Answer:
    """How far an output of the file is from the network's.

    Attributes:
        output: its name.
        shape: of the first input.
        difference: the largest absolute difference, divided by the largest absolute value that the network answers: in the same channel
            where an output has labels, in all of it else.
    """

    output: str
    shape: tuple[int, ...]
    difference: float


def export(
    bundle_dir: str | os.PathLike,
    to: str | os.PathLike,
    network: str = "segmentation",
    model_dir: str | os.PathLike | None = None,
    domain: str | None = None,
) -> list[Answer]:
    """Write a network of a bundle as an ONNX file, once onnxruntime has answered as PyTorch does.

    Args:
        bundle_dir: the bundle's folder; its code is run.
        to: the file, ``*.onnx``.
        network: which of the bundle's exports.
        model_dir: folder of ``plan.json`` and weights, by default the bundle's ``models``.
        domain: for a bundle of several domains, that of the images.

    Returns:
        the differences that were found, of every output at two sizes, or for two numbers of samples where the network takes one size.

    Raises:
        DataError: a package is missing, the bundle exports no such network, its weights or plan cannot be used, or the file does not
            answer as the network does. Nothing has been written then.
    """
    path = Path(to)
    if path.suffix != ".onnx":
        raise DataError(f"{path}: an ONNX file ends in .onnx")
    onnx, *_ = (_package(name) for name in PACKAGES)
    bundle = Bundle.read(bundle_dir)
    with isolated(bundle):
        wanted = read_export(bundle, network, model_dir, domain)
        with atomic_path(path) as temporary:
            _write(wanted, temporary, onnx)
            try:
                onnx.checker.check_model(temporary, full_check=True)
            except onnx.checker.ValidationError as error:
                raise DataError(f"{path}: not written, no valid ONNX ({first_line(error)})") from error
            found = compare(temporary, wanted)
            for answer in found:
                if not answer.difference <= TOLERANCE:
                    place = f"{answer.output} at {' x '.join(map(str, answer.shape))}"
                    raise DataError(f"{path}: not written, {place} differs from PyTorch by {answer.difference:.1e} of its largest value")
    return found


def read_export(bundle: Bundle, network: str, model_dir: str | os.PathLike | None = None, domain: str | None = None) -> Export:
    """What a bundle's config says of one of its exports; see :func:`export`. Runs the bundle's code: see :mod:`tools.release.isolation`.

    Raises:
        DataError: the bundle exports no such network, knows no domains, or its network cannot be built.
    """
    folder = Path(model_dir) if model_dir else bundle.root / "models"
    parser = read_configs(bundle, _CONFIGS, folder)
    nearest_or_raise("network", [network], parser["exports"])
    if domain is not None:
        if "domain" not in parser:
            raise DataError(f"{bundle.root}: knows no domains, leave --domain away")
        parser["domain"] = domain
    plan = folder / "plan.json"
    if not plan.is_file():
        raise DataError(f"{plan}: missing")
    content = build(parser, f"exports#{network}", f"{bundle.root}: {network}")
    about = bundle.metadata
    licence = bundle.root / "docs" / "data_license.txt"
    facts = {
        "bundle": bundle.name,
        "version": str(bundle.version),
        "network": network,
        "plan": plan.read_text(encoding="utf-8"),
        "intended_use": about.get("intended_use", ""),
    }
    # of a model that was trained elsewhere they are its owner's to say
    if folder.resolve().is_relative_to((bundle.root / "models").resolve()):
        facts["copyright"] = about.get("copyright", "")
        facts["licence"] = licence.read_text(encoding="utf-8") if licence.is_file() else "Apache-2.0"
    return Export(content["network"].eval(), content["inputs"], content["outputs"], content.get("batch"), facts)


def compare(path: str | os.PathLike, wanted: Export) -> list[Answer]:
    """Answers of an ONNX file (onnxruntime, CPU) beside those of the network in PyTorch.

    Raises:
        DataError: onnxruntime cannot read or run the file.
    """
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    found = []
    try:
        session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        for step in range(2):
            inputs = wanted.random_inputs(step, batch=step + 1)
            answers = session.run(list(wanted.outputs), {name: tensor.numpy() for name, tensor in zip(wanted.inputs, inputs)})
            for (name, about), answer, expected in zip(wanted.outputs.items(), answers, wanted.answers(inputs)):
                difference = _difference(torch.from_numpy(answer), expected, by_channel="labels" in about)
                found.append(Answer(name, tuple(inputs[0].shape), difference))
    except DataError:
        raise
    except Exception as error:  # its errors have no common class but this
        message = " ".join(str(error).split())
        raise DataError(f"{wanted.facts['network']}: onnxruntime cannot run the file ({message})") from error
    return found


def _difference(answer: torch.Tensor, expected: torch.Tensor, by_channel: bool) -> float:
    """See :class:`Answer`; infinite where shapes differ or a value is not finite."""
    if answer.shape != expected.shape or not answer.isfinite().all():
        return float("inf")
    if not by_channel:
        answer, expected = answer[:, None], expected[:, None]
    error, scale = ((tensor.transpose(0, 1).flatten(1).abs().amax(1)) for tensor in (answer - expected, expected))
    return float((error / torch.where(scale > 0, scale, 1)).max())


def _write(wanted: Export, path: Path, onnx: ModuleType) -> None:
    inputs = wanted.random_inputs(2, batch=3)
    wanted.answers(inputs)  # a network that fails by itself should not look like an exporter's fault
    try:
        with _quiet():
            # The exporter by torch.export: it keeps sizes as symbols, and refuses what would fix them in silence.
            torch.onnx.export(
                wanted.network,
                inputs,
                path,
                input_names=list(wanted.inputs),
                output_names=list(wanted.outputs),
                dynamic_shapes=_dynamic_shapes(wanted),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise DataError(f"{wanted.facts['network']}: PyTorch cannot export it ({reason(error)})") from error
    model = onnx.load(path)
    _forget_origin(model.graph)
    model.doc_string = "Takes images that the preprocessing of `plan` has resampled and normalised: see the bundle's documentation."
    described = {"inputs": json.dumps(wanted.inputs), "outputs": json.dumps(wanted.outputs)}
    onnx.helper.set_model_props(model, {**wanted.facts, **described})
    onnx.save(model, path)


def _dynamic_shapes(wanted: Export) -> tuple[dict[int, Any], ...]:
    """For each input, which of its axes are symbols of the graph; those of all inputs are the same."""
    batch = {} if wanted.batch else {0: torch.export.Dim("batch", min=1, max=_LARGEST)}
    symbols: dict[int, Any] = {}
    result = []
    for about in wanted.inputs.values():
        axes: dict[int, Any] = dict(batch)
        for axis, side in enumerate(about["spatial_shape"]):
            if isinstance(side, int):
                continue
            multiple = _MULTIPLE.fullmatch(str(side).strip())
            if multiple is None:
                raise DataError(f"spatial_shape: {side!r} is no number and not of the form 16*n")
            # the normalisation of a single voxel is refused in training and useless here
            symbols.setdefault(axis, torch.export.Dim(f"n{axis}", min=2, max=_LARGEST // int(multiple[1])))
            axes[2 + axis] = int(multiple[1]) * symbols[axis]
        result.append(axes)
    return tuple(result)


def _forget_origin(graph: Any) -> None:
    """Take out what the exporter notes of each node: paths and lines of the sources on the machine that exported."""
    for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del entry.metadata_props[:]
        entry.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells much that is of no use to who exports."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"export needs the package {name}: pip install {' '.join(PACKAGES)}") from error
