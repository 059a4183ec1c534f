"""Which number format a network computes in."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import nn

from tools.data.checks import DataError

__all__ = ["AutocastInferer", "autocast", "autocast_dtype", "precision_name", "volume_training_dtype"]

logger = logging.getLogger("training")

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Type for ``torch.autocast``, or None for float32.

    Args:
        precision: "float32", "bf16", "fp16" (on a GPU only), or "auto": bf16 where the hardware computes in it, else float32.
        device: where the network lies.

    Raises:
        DataError: the precision is unknown, or fp16 is asked for on a CPU.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
        return torch.bfloat16 if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else None
    if precision not in PRECISIONS:
        raise DataError(f"precision must be 'auto' or one of {sorted(PRECISIONS)}, not {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise DataError("precision 'fp16' needs a GPU; on a CPU use 'bf16' or 'float32'")
    return PRECISIONS[precision]


def precision_name(dtype: torch.dtype | None) -> str:
    """What a type that :func:`autocast_dtype` or :func:`volume_training_dtype` chose is called: "float32", "bf16" or "fp16"."""
    return next(name for name, known in PRECISIONS.items() if known is dtype)


def volume_training_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """:func:`autocast_dtype` for training a network of volumes: on a GPU "auto" is float32, and float32 computes without TF32.

    cuDNN answers right in bf16 and TF32, but its gradients of 3D convolutions can be wrong on Hopper GPUs, silently: their norm off by
    half (https://github.com/pytorch/pytorch/issues/150700; pull request 167024), or not finite, as those of F_R on an H200.
    For float32 on a GPU, cuDNN's TF32 is switched off, in the whole process and for good. "bf16" and "fp16" are
    taken at their word, and warned of.

    Args:
        precision, device: as there.

    Raises:
        DataError: as there.
    """
    dtype = None if (precision, device.type) == ("auto", "cuda") else autocast_dtype(precision, device)
    if dtype is None and device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    elif device.type == "cuda":
        logger.warning(f"--precision {precision}: cuDNN's gradients of 3D convolutions can be wrong in it on a GPU; auto is float32")
    return dtype


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager:
    """Context of mixed precision in a type that one of the functions above chose; None changes nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


class AutocastInferer(SimpleInferer):
    """MONAI's inferer of whole inputs, in mixed precision: its evaluators know that of GPUs alone.

    Args:
        precision: see :func:`autocast_dtype`, by which the device of each input is looked at.
        device: where inputs are expected, so that a precision that it cannot compute in is refused before there are any.

    Raises:
        DataError: as there.
    """

    def __init__(self, precision: str, device: torch.device | str) -> None:
        super().__init__()
        autocast_dtype(precision, torch.device(device))
        self.precision = precision

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The network's answer to ``inputs``, one tensor, in float32."""
        with autocast(autocast_dtype(self.precision, inputs.device), inputs.device):
            return super().__call__(inputs, network, *args, **kwargs).float()
