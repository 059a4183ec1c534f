"""The ankle: tibia, fibula and talus are labelled, calcaneus and midfoot are not. Contrast as in T1-weighted images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tools.data.phantoms.anatomy import Joint, Motion, Tissue
from tools.data.phantoms.shapes import capsule, difference, ellipsoid, path, smoothstep, union

__all__ = ["ANKLE"]


def _bones(p: np.ndarray) -> list[np.ndarray]:
    talus = union(
        6,
        ellipsoid(p, (0, -7, -7), (14, 17, 11), 2.4),
        path(p, [(0, -4, -10), (-3, 12, -10), (-5, 20, -11)], [10, 8.5, 10], 5),
        ellipsoid(p, (3, -20, -11), (7, 6, 5)),
    )
    talus = difference(4, talus, capsule(p, (14, 8, -19), (-12, 2, -20), 3.5))  # sinus tarsi
    tibia = union(
        8,
        path(p, [(-1, -5, 3), (-1, -4, 22), (0, -3, 90)], [16, 12.5, 12], 8),
        ellipsoid(p, (0, -7, 5), (17, 15, 8), 2.4),
        ellipsoid(p, (-18.5, -3, -5), (6.5, 10, 11.5)),  # medial malleolus
    )
    tibia = difference(3, tibia, talus - 3.4)
    fibula = union(
        5, path(p, [(23, -9, 6), (21.5, -10, 28), (20, -10, 90)], [8.5, 7.5, 7.2], 4), ellipsoid(p, (22.5, -9, -7), (8, 10.5, 15.5))
    )
    fibula = difference(3, fibula, talus - 3.2, tibia - 2.8)
    calcaneus = union(6, path(p, [(4, 16, -30), (3, -10, -32), (2, -34, -33)], [9.5, 11, 14], 8), ellipsoid(p, (-6, -2, -25), (8, 8, 5)))
    calcaneus = difference(3, calcaneus, talus - 3.2)
    navicular = difference(2, ellipsoid(p, (-7, 33, -12), (10, 6.5, 10)), talus - 3.0)
    cuboid = difference(2, ellipsoid(p, (9, 37, -25), (10, 12, 9), 2.5), calcaneus - 3.0, navicular - 2.5)
    cuneiform = difference(2, ellipsoid(p, (-9, 50, -15), (11, 9, 10), 2.5), navicular - 3.0, cuboid - 2.5)
    return [tibia, fibula, talus, calcaneus, navicular, cuboid, cuneiform]


def _soft_tissue(p: np.ndarray, jitter: Callable[[float], float], bones: list[np.ndarray]) -> list[Tissue]:
    x, y, z = p
    wide = 1 + 0.06 * jitter(1)
    leg = path(p, [(0, -10, 90), (0, -11, 30), (0, -12, -6), (0, -20, -30)], [33 * wide, 30 * wide, 29, 28], 14)
    foot = path(p, [(0, -22, -30), (0, 10, -23), (-2, 40, -22), (-2, 90, -30)], [28, 28, 27, 24], 14)
    outline = union(14, leg, foot)
    nearest = np.minimum.reduce(bones)
    deep = outline + 4.5 + jitter(1.8) + 5 * smoothstep(-z, 34, 46)
    regions: list[Tissue] = [("skin", outline), ("fat", outline + 1.4)]

    def muscle(nodes: list[tuple[float, float, float]], radii: list[float]) -> None:
        moved = [(a + jitter(2), b + jitter(2), c) for a, b, c in nodes]
        belly = path(p, moved, [max(r + jitter(1), 0.8) for r in radii], 5)
        regions.append(("muscle", np.maximum(np.maximum(belly, deep + 0.8), 1.3 - nearest)))

    muscle([(4, -22, 90), (5, -21, 35), (3, -20, 8)], [12, 10, 3])  # flexor hallucis longus and soleus
    muscle([(-12, -20, 90), (-13, -18, 35), (-14, -17, 16)], [9, 7, 3])  # tibialis posterior
    muscle([(22, -18, 90), (23, -20, 30), (22, -21, 6)], [7, 6, 2.5])  # peronei
    muscle([(10, 8, 90), (8, 9, 40), (4, 11, 14)], [10, 8, 3])  # extensors
    muscle([(4, -14, -50), (2, 20, -44), (0, 60, -44)], [6, 9, 9])  # plantar muscles
    muscle([(-16, -6, -36), (-18, 20, -36), (-16, 50, -38)], [5, 7, 7])  # abductor hallucis
    muscle([(20, 10, -30), (20, 30, -36), (20, 60, -40)], [3, 6, 6])

    regions += [
        ("fat", ellipsoid(p, (0, -29, 10), (12 + jitter(2), 8, 22))),  # Kager's triangle
        ("tendon", np.maximum(path(p, [(0, -36 + jitter(1), 90), (0, -38, 20), (0, -43, -22)], [2.6, 2.8, 3.2]), np.abs(x) - 6)),
        ("tendon", path(p, [(-8, 11, 60), (-10, 14, 16), (-14, 26, -4), (-16, 44, -12)], [2.6, 2.5, 2.4, 2.2])),
        ("tendon", path(p, [(3, 12, 60), (2, 16, 14), (2, 30, -1), (2, 60, -8)], [2.4, 2.3, 2.2, 2])),
        ("tendon", path(p, [(-16, -16, 30), (-19, -15, 0), (-18, 4, -20), (-14, 28, -22)], [2.4, 2.4, 2.2, 2.2])),
        ("tendon", path(p, [(21, -18, 30), (22, -20, -8), (20, -4, -28), (18, 20, -32)], [2.4, 2.4, 2.2, 2.2])),
        ("tendon", path(p, [(0, -30, -50), (0, 20, -49), (0, 70, -52)], [2.2, 2, 2])),  # plantar aponeurosis
        ("tendon", path(p, [(20, -4, -16), (14, 4, -14)], [1.6, 1.6])),
        ("tendon", path(p, [(-18, -4, -15), (-12, -6, -22)], [2.2, 2])),
        ("vessel", path(p, [(-14 + jitter(2), -24, 60), (-17, -23 + jitter(2), 0), (-14, -8, -28)], [1.8, 1.8, 1.6])),
        ("vessel", path(p, [(-20, 10 + jitter(3), 60), (-23, 8, 0), (-18, 20, -10)], [1.6, 1.6, 1.4])),
        ("fluid", ellipsoid(p, (jitter(1), 10, 0), (8, 2 + jitter(1.5), 4))),
        ("fluid", np.maximum(ellipsoid(p, (8, 6, -20), (7, 5, 3)), 0.6 - nearest)),
    ]
    return regions


def _physes(p: np.ndarray) -> np.ndarray:
    x, y, z = p
    wave = 1.5 * np.cos(x / 6) + 1.2 * np.sin(y / 6)
    height = np.where(x > 13, 5.0, 14.0)  # the fibula's plate lies lower
    away = smoothstep(-z, -1.0, 0.0) * 50  # none in the tarsal bones
    return np.abs(z - height - wave) + away


ANKLE = Joint(
    name="ankle",
    bones=("tibia", "fibula", "talus"),
    field_of_view=(66.0, 88.0, 66.0),
    centre=(3.0, 4.0, -4.0),
    shapes=_bones,
    soft_tissue=_soft_tissue,
    physes=_physes,
    motion=(
        Motion((3, 3, 3), (1, 1, 1)),
        Motion((3, 2, 4), (0.6, 1.2, 1.5)),
        Motion((9, 4, 5), (0.8, 1.5, 0.6)),
    ),
    contrast={
        "air": 0.0,
        "skin": 0.50,
        "fat": 0.88,
        "muscle": 0.42,
        "tendon": 0.13,
        "meniscus": 0.13,
        "vessel": 0.20,
        "fluid": 0.27,
        "cartilage": 0.46,
        "cortex": 0.08,
        "marrow": 0.76,
        "lung": 0.03,
    },
    mode_seed=12,
)
