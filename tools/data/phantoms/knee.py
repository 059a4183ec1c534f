"""The knee: femur, tibia and patella are labelled, the fibula is not. Contrast as in proton-density images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tools.data.phantoms.anatomy import Joint, Motion, Tissue
from tools.data.phantoms.shapes import capsule, difference, ellipsoid, path, smoothstep, union

__all__ = ["KNEE"]


def _bones(p: np.ndarray) -> list[np.ndarray]:
    femur = union(
        10,
        path(p, [(0, 1, 20), (0, 3, 44), (0, 5, 110)], [21, 13.5, 12.5], 8),
        ellipsoid(p, (-17, -9, 13.5), (13, 25, 19), 2.2),
        ellipsoid(p, (17, -8, 14), (13.5, 24.5, 18.5), 2.2),
        ellipsoid(p, (0, 8, 19), (24, 13, 15)),
    )
    notch = path(p, [(0, -40, 10), (0, -12, 6), (0, 2, -6)], [10, 8, 6])
    femur = difference(6, femur, notch, capsule(p, (1, 30, 0), (1, 30, 40), 8))

    tibia = union(
        8,
        ellipsoid(p, (0, -6, -15), (33, 22, 8.5), 2.8),
        path(p, [(0, -6, -24), (0, -4, -46), (1, -6, -110)], [19, 12.5, 11.5], 8),
        ellipsoid(p, (2, 10, -36), (7, 6, 11)),
    )
    tibia = union(4, tibia, ellipsoid(p, (-4, -7, -8), (2.5, 5, 5)), ellipsoid(p, (4, -8, -8), (2.5, 5, 4.5)))
    tibia = difference(3, tibia, femur - 5.5)

    patella = ellipsoid(p, (1, 37, 20), (19.5, 10, 20), 2.4)
    patella = difference(3, patella, femur - 5.0)

    fibula = path(p, [(29, -19, -27), (31, -19, -42), (31, -17, -110)], [8, 5.5, 5.5], 4)
    return [femur, tibia, patella, difference(2, fibula, tibia - 3.0)]


def _soft_tissue(p: np.ndarray, jitter: Callable[[float], float], bones: list[np.ndarray]) -> list[Tissue]:
    x, y, z = p
    femur, tibia = bones[:2]
    outline = path(p, [(0, -6, 110), (0, -3, 20), (0, -6, -30), (0, -12, -110)], [54 + jitter(4), 47, 43, 48 + jitter(4)], 20)
    thickness = 5.5 + jitter(2.5) + 3 * smoothstep(-y, 0, 40)
    deep = outline + thickness
    regions: list[Tissue] = [("skin", outline), ("fat", outline + 1.6)]

    def muscle(nodes: list[tuple[float, float, float]], radii: list[float]) -> None:
        moved = [(a + jitter(3), b + jitter(3), c) for a, b, c in nodes]
        belly = path(p, moved, [max(r + jitter(1.5), 1.0) for r in radii], 6)
        # muscles stop at the fascia, and keep a fat plane to the bones
        regions.append(("muscle", np.maximum(np.maximum(belly, deep + 1), 1.5 - np.minimum(femur, tibia))))

    muscle([(-22, 8, 95), (-25, 10, 45), (-29, 12, 20)], [20, 18, 6])  # vastus medialis
    muscle([(23, 10, 95), (25, 12, 50), (28, 18, 28)], [19, 16, 5])  # vastus lateralis
    muscle([(25, -22, 95), (29, -24, 40), (35, -22, -8)], [15, 13, 5])  # biceps femoris
    muscle([(-20, -26, 95), (-23, -28, 40), (-29, -27, -10)], [16, 14, 6])  # semimembranosus
    muscle([(-33, -14, 95), (-37, -16, 40), (-34, -14, -5)], [9, 8, 6])  # sartorius and gracilis
    muscle([(-15, -33, 24), (-16, -37, -5), (-16, -38, -60), (-15, -38, -110)], [7, 13, 17, 18])  # gastrocnemius, medial head
    muscle([(17, -32, 22), (17, -36, -5), (15, -36, -60), (14, -37, -110)], [6, 12, 16, 16])  # gastrocnemius, lateral head
    muscle([(10, -24, -12), (0, -26, -30), (-2, -26, -110)], [5, 10, 13])  # popliteus and soleus
    muscle([(23, 5, -28), (22, 5, -50), (19, 5, -110)], [5, 12, 13])  # tibialis anterior

    effusion = 1.5 + jitter(1.5)
    regions += [
        ("fluid", ellipsoid(p, (jitter(3), 24, 46), (16, 1.5 + effusion, 16))),
        ("fat", np.maximum(ellipsoid(p, (0, 27, -6), (20, 14, 15)), deep - 2)),
        ("tendon", np.maximum(path(p, [(1, 36, 2), (2, 27, -20), (2, 20, -36)], [3.4, 2.8, 2.6]), np.abs(x) - 11)),
        ("tendon", path(p, [(1, 36, 38), (0, 30 + jitter(2), 60), (0, 26, 100)], [3.4, 3, 3])),
        ("tendon", path(p, [(6, -12, 12), (-1, 4, -8)], [3.3, 2.8])),  # anterior cruciate ligament
        ("tendon", path(p, [(-6, 0, 6), (-2, -18, 0), (0, -26, -16)], [3.6, 3.4, 3])),  # posterior cruciate ligament
        ("tendon", path(p, [(-31, -6, 18), (-33, -5, -10), (-28, -3, -34)], [1.8, 1.8, 1.6])),
        ("tendon", path(p, [(32, -8, 18), (34, -14, -8), (32, -18, -22)], [1.6, 1.8, 2])),
        ("vessel", path(p, [(3 + jitter(4), -36, 100), (1 + jitter(4), -34, 0), (2, -30, -100)], [3.4, 3.2, 2.6])),
        ("vessel", path(p, [(9 + jitter(3), -42, 100), (7 + jitter(3), -40, 0), (6, -36, -100)], [2.4, 2.4, 2])),
    ]
    # articular cartilage of the condyles and the trochlea, outside the notch
    articular = np.maximum(femur - 2.2, np.maximum(z - 15 - 0.25 * y, np.where((np.abs(x) > 9) | (y > 12), -1.0, 3.0)))
    regions.append(("cartilage", articular))
    rim = np.minimum(np.hypot(x - 17, y + 6), np.hypot(x + 17, y + 6))
    regions.append(("meniscus", np.maximum.reduce([femur + tibia - 9.0, 12.5 - rim, rim - 19, 8 - np.abs(x)])))
    return regions


def _physes(p: np.ndarray) -> np.ndarray:
    x, y, z = p
    wave = 2.5 * np.cos(x / 9) + 1.5 * np.sin(y / 8)
    return np.minimum(np.abs(z - 31 - wave), np.abs(z + 25 - 0.5 * wave))


KNEE = Joint(
    name="knee",
    bones=("femur", "tibia", "patella"),
    field_of_view=(87.0, 116.0, 87.0),
    centre=(0.0, 1.0, 3.0),
    shapes=_bones,
    soft_tissue=_soft_tissue,
    physes=_physes,
    motion=(
        Motion((3, 3, 3), (1.5, 1.5, 1)),
        Motion((11, 5, 8), (2, 3, 1)),
        Motion((6, 6, 6), (2.5, 1.5, 3), 0.08),
    ),
    contrast={
        "air": 0.0,
        "skin": 0.45,
        "fat": 0.78,
        "muscle": 0.40,
        "tendon": 0.12,
        "meniscus": 0.14,
        "vessel": 0.22,
        "fluid": 0.95,
        "cartilage": 0.62,
        "cortex": 0.07,
        "marrow": 0.66,
        "lung": 0.03,
    },
    mode_seed=11,
)
