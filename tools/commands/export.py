"""``python -m tools export``: a network of a bundle for runtimes that know no Python."""

from __future__ import annotations

from pathlib import Path

from tools.release.export import export as write_export

__all__ = ["export"]


def export(bundle: str, to: str, network: str = "segmentation", model_dir: str | None = None, domain: str | None = None) -> None:
    """Write a network as an ONNX file, after onnxruntime has answered as PyTorch does, at two sizes.

    The file takes images as the bundle's preprocessing leaves them, not as they lie in files: the bundle's page says how.

    Args:
        bundle: folder of a bundle, such as bundles/deepatlas; its code is run.
        to: the file, *.onnx.
        network: which of the bundle's networks; a wrong name lists them.
        model_dir: folder of a model that was trained here, by default the shipped weights.
        domain: of the images, for a bundle of several domains.

    Raises:
        DataError: something is missing, or the file does not answer as the network does; nothing is written then.
    """
    for answer in write_export(bundle, to, network, model_dir, domain):
        shape = " x ".join(str(n) for n in answer.shape)
        print(f"{answer.output}: at {shape} within {answer.difference:.1e} of its largest value in PyTorch")
    print(f"written: {to} ({Path(to).stat().st_size / 1e6:.1f} MB)")
