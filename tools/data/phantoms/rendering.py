"""From a subject's anatomy to an MR-like image: tissues painted with partial volume, texture, bias field, Rician noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from tools.data.phantoms.anatomy import TISSUES, Joint
from tools.data.phantoms.shapes import smoothstep

__all__ = ["render"]

_SIGNAL_SCALE = 1000.0  # brightness 1 on the scanner's integer scale


def _noise_field(generator: np.random.Generator, shape: tuple[int, ...], width: tuple[float, ...] | float) -> np.ndarray:
    """Smooth random field (N,) of zero mean and unit deviation; ``width`` in voxels."""
    field = gaussian_filter(generator.standard_normal(shape).astype(np.float32), width, mode="wrap").ravel()
    return field / field.std()


def _bias_field(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Coil sensitivity: exponential of a random quadratic polynomial, (N,), mean about 1."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    x, y, z = (a.ravel() for a in axes)
    terms = np.stack([x, y, z, x * y, y * z, x * z, x * x - 1 / 3, y * y - 1 / 3, z * z - 1 / 3])
    coefficients = generator.uniform(-1, 1, len(terms)) * np.array([0.24] * 3 + [0.12] * 3 + [0.18] * 3)
    return np.exp(coefficients.astype(np.float32) @ terms)


def render(
    joint: Joint,
    points: np.ndarray,
    distances: list[np.ndarray],
    shape: tuple[int, int, int],
    spacing: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Image of a subject.

    Args:
        joint: its anatomy and contrast.
        points: (3, N) template position in mm of every voxel, N = D H W.
        distances: signed distances (N,) in mm of all bones there, in the joint's order.
        shape: (D, H, W).
        spacing: size of a voxel in mm (mean of the axes); surfaces are softened over it.
        generator: draws the subject's contrast, unlabelled soft tissue, textures, bias field and noise.

    Returns:
        (D, H, W) int16, air at the noise floor and fat near 800.
    """
    mean = {name: joint.contrast[name] * generator.uniform(0.75, 1.25) + generator.uniform(-0.04, 0.04) for name in TISSUES}
    texture = {
        "fat": 0.05 * _noise_field(generator, shape, 1.0) - 0.10 * (np.abs(_noise_field(generator, shape, 2.2)) < 0.16),
        "muscle": 0.035 * _noise_field(generator, shape, (0.7, 0.7, 2.5)) + 0.04 * _noise_field(generator, shape, 4.0),
        "marrow": 0.05 * _noise_field(generator, shape, 0.8) + 0.08 * _noise_field(generator, shape, 5.0),
        "cartilage": 0.04 * _noise_field(generator, shape, 1.5),
    }

    def coverage(distance: np.ndarray) -> np.ndarray:
        return np.clip(0.5 - distance / spacing, 0, 1)

    image = np.full(points.shape[1], mean["air"], dtype=np.float32)

    def paint(alpha: np.ndarray, tissue: str, change: np.ndarray | float = 0.0) -> None:
        nonlocal image
        image += alpha * (mean[tissue] + texture.get(tissue, 0.0) + change - image)

    regions = joint.soft_tissue(points, lambda amplitude: float(generator.uniform(-amplitude, amplitude)), distances)
    outline = regions[0][1]
    for tissue, distance in regions:
        # bellies differ a little among each other
        change = generator.uniform(-0.04, 0.04) if tissue == "muscle" else 0.0
        paint(coverage(np.maximum(distance, outline)), tissue, change)

    # where two bones face each other: cartilage on both, fluid between
    nearest, second = np.partition(np.stack(distances), 1, axis=0)[:2]
    gap = coverage((nearest + second - 8.0) / 2) * coverage(-nearest)
    paint(gap, "fluid")
    paint(gap * coverage(nearest - (2.0 + generator.uniform(-0.3, 0.5))), "cartilage")
    menisci = [d for tissue, d in regions if tissue == "meniscus"]
    for distance in menisci:
        paint(coverage(distance) * coverage(-nearest), "meniscus")

    # thick cortex on shafts, thin under the joint; red marrow towards the shaft; growth plates as dark lines
    shaft = smoothstep(np.sqrt((points**2).sum(0)), 18.0, 46.0)
    cortex = 1.1 + (1.8 + generator.uniform(-0.4, 0.6)) * shaft
    red = generator.uniform(-0.05, 0.22) * smoothstep(_noise_field(generator, shape, 4.0) + 2 * shaft - 1, -0.5, 1.5)
    plate = generator.uniform(0.05, 0.7) * coverage(joint.physes(points) - 0.9)
    centre = points[:, generator.integers(points.shape[1])]
    lesion = generator.uniform(-0.2, 0.2) * np.exp(-((points - centre[:, None]) ** 2).sum(0) / (2 * generator.uniform(6, 12) ** 2))
    # a thin cortex shows in places only: slices are thick, and fat and water shift against each other
    visible = smoothstep(_noise_field(generator, shape, 3.0), generator.uniform(0.0, 0.8), 1.6)
    for distance in distances:
        paint(coverage(distance) * np.maximum(visible, shaft), "cortex")
        inside = coverage(distance + cortex)
        marrow = generator.uniform(-0.05, 0.05) - red + lesion
        paint(inside, "marrow", marrow)
        paint(inside * plate, "cortex", 0.1)

    image = np.maximum(image, 0) ** generator.uniform(0.85, 1.2) * _bias_field(generator, shape)
    image = gaussian_filter(image.reshape(shape), generator.uniform(0.2, 1.2, 3)).ravel()
    noise = generator.uniform(0.09, 0.16)
    real, imaginary = generator.standard_normal((2, image.size)).astype(np.float32) * noise
    image = np.hypot(image + real, imaginary) * _SIGNAL_SCALE * generator.uniform(0.6, 1.6)
    return np.clip(np.rint(image), 0, np.iinfo(np.int16).max).astype(np.int16).reshape(shape)
