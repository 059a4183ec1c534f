"""The shoulder: humerus and scapula are labelled, clavicle and ribs are not. Contrast as in fat-suppressed images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tools.data.phantoms.anatomy import Joint, Motion, Tissue
from tools.data.phantoms.shapes import capsule, difference, ellipsoid, path, smoothstep, turned, union

__all__ = ["SHOULDER"]


def _bones(p: np.ndarray) -> list[np.ndarray]:
    humerus = union(
        8,
        ellipsoid(p, (6, 0, 4), (21, 21, 21)),
        path(p, [(12, 0, -4), (16, -1, -28), (18, -2, -110)], [17, 11.5, 10.5], 10),
        ellipsoid(p, (21, -3, 6), (9, 13, 12)),  # greater tuberosity
        ellipsoid(p, (13, 17, -2), (7, 6, 10)),  # lesser tuberosity
    )
    humerus = difference(4, humerus, capsule(p, (22, 18, 10), (24, 13, -40), 4))  # bicipital groove

    blade = turned(p, (-24, -6, 0), 2, 16)
    scapula = union(
        8,
        ellipsoid(p, (-23, -2, 2), (9, 13, 18), 2.3),
        path(p, [(-24, -2, 2), (-36, -8, -2)], [11, 8]),
        ellipsoid(blade, (-66, -8, -10), (46, 7.0, 42), 2.5),
        path(blade, [(-40, -6, -6), (-34, -6, -30), (-52, -6, -60)], [8, 7.5, 7], 4),  # lateral border
    )
    spine = path(p, [(-90, -28, 18), (-40, -26, 22), (-8, -27, 33), (14, -20, 36)], [7, 7, 7, 6.5], 5)
    root = union(6, ellipsoid(p, (-58, -26, 12), (32, 7, 12)), spine)
    acromion = ellipsoid(turned(p, (17, -8, 36), 1, 8), (17, -8, 36), (13, 16, 6.5), 2.3)
    coracoid = path(p, [(-24, 4, 16), (-18, 16, 25), (-8, 27, 20)], [8.5, 7.5, 7], 4)
    scapula = union(7, scapula, root, acromion, coracoid)
    scapula = difference(3, scapula, humerus - 4.6)

    clavicle = path(p, [(-3, 0, 41), (-26, 16, 40), (-70, 24, 44)], [6.5, 6, 6.5], 4)
    clavicle = difference(2, clavicle, scapula - 3.0)
    chest = ellipsoid(p, (-84, 6, -60), (62, 62, 78))
    rows = p[2] + 0.35 * p[1]
    ribs = np.maximum(np.hypot(chest + 7, (rows + 8) % 22 - 11) - 5.0, -70 - p[0])
    return [humerus, scapula, clavicle, difference(2, ribs, scapula - 3.0)]


def _soft_tissue(p: np.ndarray, jitter: Callable[[float], float], bones: list[np.ndarray]) -> list[Tissue]:
    x, y, z = p
    nearest = np.minimum.reduce(bones)
    chest = ellipsoid(p, (-84, 6, -60), (62, 62, 78))
    arm = path(p, [(10, -2, 4), (17, -2, -40), (19, -2, -110)], [45 + jitter(2), 40 + jitter(2), 37], 16)
    trunk = union(20, ellipsoid(p, (-70, -2, -30), (92, 54 + jitter(3), 92)), ellipsoid(p, (-30, -4, 20), (56, 40, 34)))
    outline = union(24, arm, trunk)
    deep = outline + 5 + jitter(2.5)
    regions: list[Tissue] = [("skin", outline), ("fat", outline + 1.8)]

    def muscle(belly: np.ndarray) -> None:
        regions.append(("muscle", np.maximum(np.maximum(belly, deep + 1), 1.5 - nearest)))

    def strand(nodes: list[tuple[float, float, float]], radii: list[float]) -> None:
        moved = [(a + jitter(3), b + jitter(3), c + jitter(3)) for a, b, c in nodes]
        muscle(path(p, moved, [max(r + jitter(1.5), 1.0) for r in radii], 6))

    blade = turned(p, (-24, -6, 0), 2, 16)
    # deltoid: a cap about the humerus, in three bellies
    cap = np.maximum(arm + 5, -(arm + 17 + jitter(2)))
    seam = np.abs(np.arctan2(y + 3, x - 6) - (0.7 + jitter(0.2)))
    back = np.abs(np.arctan2(y + 3, x - 6) + (0.8 + jitter(0.2)))
    muscle(np.maximum(np.maximum(cap, 1.2 - 20 * np.minimum(seam, back)), -x - 12 - jitter(4)))
    strand([(-84, -18, 30), (-40, -10, 26), (-12, -6, 28), (8, -2, 28)], [13, 11, 8, 3])  # supraspinatus
    muscle(ellipsoid(blade, (-58 + jitter(3), -21, -18), (42, 11 + jitter(2), 34)))  # infraspinatus
    strand([(-50, -30, -50), (-10, -28, -18), (18, -19, -2)], [10, 8, 3])  # teres minor
    strand([(-66, -36, -70), (-14, -20, -46), (6, 6, -46)], [12, 11, 5])  # teres major
    muscle(ellipsoid(blade, (-56 + jitter(3), 9, -16), (42, 10 + jitter(2), 34)))  # subscapularis
    strand([(-30, 14, -6), (-6, 19, 0), (8, 20, -2)], [11, 6, 2.5])
    strand([(-80, 50, -30), (-30, 42, -28), (8, 30, -40)], [15, 13, 6])  # pectoralis major
    strand([(-60, 42, -40), (-30, 34, -10), (-10, 29, 14)], [8, 7, 3])  # pectoralis minor
    strand([(-90, -30, 52), (-40, -22, 48), (-8, -20, 44)], [16, 12, 4])  # trapezius
    strand([(0, 30, -10), (8, 24, -50), (10, 22, -110)], [4, 8, 11])  # coracobrachialis and biceps
    strand([(-6, -14, -22), (10, -22, -60), (14, -22, -110)], [5, 11, 14])  # triceps

    regions += [
        ("tendon", path(p, [(-6, -3, 29), (8, -2, 28), (20, -3, 19)], [2.6, 2.6, 2])),  # supraspinatus
        ("tendon", path(p, [(-4, 22, 2), (6, 24, -2), (13, 23, -3)], [2.4, 2.4, 2])),  # subscapularis
        ("tendon", path(p, [(-4, -22, 4), (10, -22, 6), (18, -17, 8)], [2.4, 2.4, 2])),  # infraspinatus
        ("tendon", path(p, [(23, 17, 6), (24, 14, -20), (22, 16, -60)], [2.4, 2.4, 2])),  # biceps, long head
        ("meniscus", np.maximum(np.abs(np.hypot(y + 2, z - 2) - 16) - 3, np.abs(x + 14) - 3.5)),  # labrum
        ("fluid", np.maximum(ellipsoid(p, (8, 0, -2), (24, 24.5, 24 + jitter(2))), np.maximum(z + 14, -nearest))),  # recess
        ("fluid", ellipsoid(p, (16, -2, 29.5), (11, 10, 0.8 + 0.6 * (1 + jitter(1))))),  # bursa
        ("vessel", path(p, [(-60, 26, 10), (-26, 27 + jitter(3), -6), (-4, 14 + jitter(2), -44), (4, 12, -100)], [4, 3.8, 3.2, 3])),
        ("vessel", path(p, [(-60, 34, 4), (-26, 32, -14 + jitter(3)), (-8, 18, -48), (-2, 14, -100)], [3.6, 3.4, 3, 2.8])),
        ("vessel", path(p, [(14, 36 + jitter(2), 30), (6, 38, -10), (4, 40, -40)], [1.8, 1.8, 1.8])),
        ("muscle", np.maximum(chest, -(chest + 13))),  # intercostals
        ("lung", chest + 13),
    ]
    return regions


def _physes(p: np.ndarray) -> np.ndarray:
    x, y, z = p
    return np.abs(z + 7 - 0.25 * (x - 6) - 2.5 * np.cos(y / 7)) + 50 * smoothstep(-x, 10, 11)


SHOULDER = Joint(
    name="shoulder",
    bones=("humerus", "scapula"),
    field_of_view=(93.0, 124.0, 93.0),
    centre=(-1.0, 0.0, -2.0),
    shapes=_bones,
    soft_tissue=_soft_tissue,
    physes=_physes,
    motion=(
        Motion((9, 6, 10), (1.5, 2, 2)),
        Motion((5, 4, 5), (1.5, 2, 2)),
    ),
    contrast={
        "air": 0.0,
        "skin": 0.42,
        "fat": 0.27,
        "muscle": 0.46,
        "tendon": 0.13,
        "meniscus": 0.14,
        "vessel": 0.80,
        "fluid": 0.95,
        "cartilage": 0.70,
        "cortex": 0.07,
        "marrow": 0.33,
        "lung": 0.03,
    },
    mode_seed=13,
)
