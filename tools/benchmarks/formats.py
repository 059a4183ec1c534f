"""Speed and accuracy of a segmentation network in the number formats that it can run in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tools.data.decathlon import Case
from tools.data.geometry import load_volume, to_plan
from tools.data.plan import Plan
from tools.metrics.structures import dice, foreground, mean_of

__all__ = ["measure_formats"]


def measure_formats(network: nn.Module, onnx_file: Path, plan: Plan, cases: Sequence[Case], threads: int = 1) -> list[dict[str, Any]]:
    """PyTorch in float32 and under bf16 autocast, onnxruntime in float32 and with dynamic int8 quantisation of all weights.

    Args:
        network: image to logits, in evaluation mode.
        onnx_file: the same network, exported; its quantised form is written beside it.
        plan: what brings images to the network's grid.
        cases: with labels; each is segmented by every format in turn, the first one twice and timed the second time.
        threads: CPU threads.

    Returns:
        for each format ``format``, ``cpu_seconds`` (median over the cases, processor time of the network alone), ``dice`` (mean over
        cases of the mean over structures, in the voxels of the image) and, for a file, ``megabytes``.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = onnx_file.with_name(f"{onnx_file.stem}_int8.onnx")
    quantize_dynamic(onnx_file, quantised, weight_type=QuantType.QUInt8)  # onnxruntime's convolutions take no signed weights
    formats: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Path | None]] = {
        "PyTorch float32": (network, None),
        "PyTorch bf16 autocast": (torch.autocast("cpu", torch.bfloat16)(network), None),
        "onnxruntime float32": (_session(onnx_file, threads), onnx_file),
        "onnxruntime int8, dynamic": (_session(quantised, threads), quantised),
    }
    seconds: dict[str, list[float]] = {name: [] for name in formats}
    scores: dict[str, list[float]] = {name: [] for name in formats}
    for number, case in enumerate(cases):
        image, grid = to_plan(*load_volume(case.image), plan)
        truth = load_volume(case.label)[0]
        for name, (segment, _) in formats.items():
            with torch.inference_mode():
                if number == 0:
                    segment(image[None])
                begin = time.process_time()
                logits = segment(image[None])
                seconds[name].append(time.process_time() - begin)
                answer = grid.to_native(logits[0].float().softmax(0), mode="segmentation").numpy()
            scores[name].append(mean_of([dice(answer == value, truth == value) for value in foreground(plan.labels)]))
    rows = []
    for name, (_, file) in formats.items():
        row = {"format": name, "cpu_seconds": statistics.median(seconds[name]), "dice": float(np.mean(scores[name]))}
        rows.append(row | ({"megabytes": file.stat().st_size / 1e6} if file else {}))
    return rows


def _session(file: Path, threads: int) -> Callable[[torch.Tensor], torch.Tensor]:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
