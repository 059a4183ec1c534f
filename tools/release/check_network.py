"""Checks of the network that a bundle's inference builds: its weights, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from torch import nn

from tools.data.checks import DataError, first_line
from tools.release.build import reason
from tools.release.bundle import Bundle
from tools.release.faults import Fault
from tools.release.sizes import spatial_size, trial_values

__all__ = ["check_answers", "check_network", "check_weights"]

_CONFIG = "configs/inference.json"


def check_network(bundle: Bundle) -> Iterator[Fault]:
    """Build ``network_def`` of the inference, load the weights into it, and compare its answers with the metadata.

    Runs the bundle's code: see :mod:`tools.release.isolation`.
    """
    unsafe = list(check_weights(bundle.root))
    yield from unsafe
    if not (bundle.root / _CONFIG).is_file():
        return
    try:
        network = _network(bundle)
    except Exception as error:  # whatever the bundle's code raises is its fault
        yield Fault("network", _CONFIG, f"network_def cannot be built ({reason(error)})")
        return
    weights = bundle.root / "models" / "model.pt"
    if weights.is_file() and not any(fault.place == "models/model.pt" for fault in unsafe):
        state = torch.load(weights, map_location="cpu", weights_only=True)
        try:
            network.load_state_dict(state.get("model", state))
        except (RuntimeError, AttributeError, TypeError) as error:
            yield Fault("weights-mismatch", "models/model.pt", f"not the weights of network_def ({' '.join(str(error).split())[:200]})")
            return
    yield from check_answers(network, bundle.metadata)


def check_weights(root: Path) -> Iterator[Fault]:
    """Whether there are weights, and all of them load without running code."""
    if not (root / "models" / "model.pt").is_file():
        yield Fault("weights-missing", "models/model.pt", "missing: the bundle has no weights")
    for path in sorted((root / "models").glob("**/*.pt")):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            place = path.relative_to(root).as_posix()
            yield Fault("weights-unsafe", place, f"does not load with weights_only=True ({first_line(error)})")


@torch.no_grad()
def check_answers(network: nn.Module, metadata: Mapping[str, Any]) -> Iterator[Fault]:
    """Run a network on inputs of several sizes, of two batch sizes, and compare names, shapes and types of what it answers.

    Args:
        network: takes the inputs of the metadata's ``network_data_format``, in order; answers a tensor, several, or a dictionary.
        metadata: of the bundle.
    """
    about = metadata.get("network_data_format", {})
    inputs, outputs = _tensors(about.get("inputs", {})), _tensors(about.get("outputs", {}))
    if not inputs or not outputs:
        return
    first = next(iter(inputs.values()))["spatial_shape"]
    seen = set()
    generator = torch.Generator().manual_seed(0)
    network.eval()
    for step, values in enumerate(trial_values(first)):
        batch = 2 if step == 0 else 1
        try:
            sizes = {name: spatial_size(entry["spatial_shape"], values) for name, entry in inputs.items()}
            expected = {
                name: (batch, entry["num_channels"], *spatial_size(entry["spatial_shape"], values)) for name, entry in outputs.items()
            }
        except (DataError, IndexError) as error:
            yield Fault("schema", "configs/metadata.json", str(error))
            return
        if (batch, *sizes.values()) in seen:
            continue
        seen.add((batch, *sizes.values()))
        given = [_random(entry, (batch, entry["num_channels"], *sizes[name]), generator) for name, entry in inputs.items()]
        shown = " and ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(inputs, given))
        try:
            answers = _named(network(*given), list(outputs))
        except Exception as error:
            yield Fault("network", _CONFIG, f"network_def fails on {shown} ({first_line(error)})")
            return
        found = list(_compare(answers, outputs, expected, shown))
        yield from found
        if found:
            return


def _compare(
    answers: Mapping[str, Any], outputs: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], shown: str
) -> Iterator[Fault]:
    place = "configs/metadata.json"
    if answers.keys() != outputs.keys():
        yield Fault("output", place, f"outputs are {', '.join(outputs)}; the network answers {', '.join(answers) or 'nothing'}")
        return
    for name, entry in outputs.items():
        answer = answers[name]
        if not isinstance(answer, torch.Tensor):
            yield Fault("output", place, f"{name}: the network answers {type(answer).__name__}, no tensor")
            continue
        if tuple(answer.shape) != expected[name]:
            yield Fault("shape", place, f"{name} is {tuple(answer.shape)} on {shown}; the metadata say {expected[name]}")
        if str(answer.dtype).removeprefix("torch.") != entry["dtype"]:
            yield Fault("dtype", place, f"{name} is {str(answer.dtype).removeprefix('torch.')}; the metadata say {entry['dtype']}")


def _network(bundle: Bundle) -> nn.Module:
    configs = bundle.root / "configs"
    workflow = ConfigWorkflow(
        config_file=str(bundle.root / _CONFIG), meta_file=str(configs / "metadata.json"), workflow_type="inference", logging_file=False
    )
    workflow.initialize()
    network = workflow.network_def
    if not isinstance(network, nn.Module):
        raise DataError(f"network_def is {type(network).__name__}, no torch.nn.Module")
    return network


def _tensors(entries: Any) -> dict[str, dict[str, Any]]:
    keys = ("num_channels", "spatial_shape", "dtype", "value_range")
    entries = entries if isinstance(entries, dict) else {}
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict) and all(key in entry for key in keys)}


def _random(entry: Mapping[str, Any], shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    low, high = (entry["value_range"] or [0, 1])[:2]
    return (torch.rand(shape, generator=generator) * (high - low) + low).to(getattr(torch, entry["dtype"]))


def _named(answer: Any, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(answer, Mapping):
        return dict(answer)
    if isinstance(answer, torch.Tensor):
        answer = (answer,)
    answers = tuple(answer)
    return {names[k] if k < len(names) else f"output {k + 1}": value for k, value in enumerate(answers)}
