from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from tools.pictures import registration_picture, scatter_picture, segmentation_picture, table_picture

SHAPE = (16, 20, 12)


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    return (np.linalg.norm(grid - np.array(centre), axis=-1) < radius).astype(np.int16)


def pixels(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)[..., :3]


def draw_pair(path: Path, amplitude: float, **options) -> np.ndarray:
    fixed, moving = ball((8, 10, 6), 4), ball((9, 10, 6), 4)
    ddf = torch.zeros(3, *SHAPE)
    ddf[1] = amplitude * torch.sin(torch.linspace(0, 3.14, SHAPE[1]))[None, :, None]
    registration_picture(path, fixed * 1.0, torch.from_numpy(moving * 1.0), fixed * 0.9, ddf, fixed, moving, fixed, **options)
    return pixels(path)


@pytest.mark.parametrize("labels", [True, False])
def test_registration_picture_is_a_large_png_that_is_not_blank(tmp_path: Path, labels: bool) -> None:
    path = tmp_path / "new" / "pair.png"
    label = ball((8, 10, 6), 4) if labels else None
    image = ball((8, 10, 6), 4) * 1.0
    registration_picture(path, image, image, image, np.zeros((3, *SHAPE)), label, label, label, title="a to b")
    drawn = pixels(path)
    assert min(drawn.shape[:2]) > 800
    assert drawn.std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["pair.png"]


def test_registration_picture_shows_the_deformation(tmp_path: Path) -> None:
    still, moved = draw_pair(tmp_path / "a.png", 0.0), draw_pair(tmp_path / "b.png", 2.0)
    assert still.shape == moved.shape
    assert (np.abs(still - moved).max(axis=-1) > 0.1).mean() > 0.02


def test_registration_picture_keeps_the_proportions_in_millimetres(tmp_path: Path) -> None:
    cube, tall = draw_pair(tmp_path / "a.png", 0.0), draw_pair(tmp_path / "b.png", 0.0, spacing=(1.0, 2.0, 1.0))
    assert cube.shape[0] / cube.shape[1] < tall.shape[0] / tall.shape[1]


@pytest.mark.parametrize(
    ("name", "value"), [("moving", np.zeros((4, 4, 4))), ("warped_label", np.zeros((4, 4, 4), int)), ("ddf", np.zeros((3, 4, 4, 4)))]
)
def test_registration_picture_refuses_another_shape(tmp_path: Path, name: str, value: np.ndarray) -> None:
    arguments = {"fixed": np.zeros(SHAPE), "moving": np.zeros(SHAPE), "warped": np.zeros(SHAPE), "ddf": np.zeros((3, *SHAPE))}
    with pytest.raises(ValueError, match=f"^{name} has the shape"):
        registration_picture(tmp_path / "pair.png", **(arguments | {name: value}))
    assert not list(tmp_path.iterdir())


def test_segmentation_picture_differs_by_prediction_and_shows_the_truth(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random(SHAPE)
    truth = ball((8, 10, 6), 4)
    drawn = {}
    for name, prediction, reference in (("good", truth, truth), ("bad", 2 * ball((6, 8, 6), 4), truth), ("alone", truth, None)):
        segmentation_picture(tmp_path / f"{name}.png", image, prediction, reference, {0: "background", 1: "bone", 2: "other"}, title=name)
        drawn[name] = pixels(tmp_path / f"{name}.png")
        assert drawn[name].std() > 0.05
    assert np.abs(drawn["good"] - drawn["alone"]).max() > 0.5
    assert drawn["good"].shape != drawn["bad"].shape or np.abs(drawn["good"] - drawn["bad"]).max() > 0.5


def test_segmentation_picture_of_slices_shows_those_with_structures(tmp_path: Path) -> None:
    truth = np.zeros(SHAPE, int)
    truth[4:8, 6:12, [3, 5, 7, 9, 11]] = 1
    for column, index in enumerate((5, 7, 9)):
        bright = np.broadcast_to(np.arange(SHAPE[2]) == index, SHAPE) * 1.0
        segmentation_picture(tmp_path / "case.png", bright, truth, truth, across=2)
        thirds = np.array_split(pixels(tmp_path / "case.png"), 3, axis=1)
        assert int(np.argmax([third.mean() for third in thirds])) == column


def test_segmentation_picture_refuses_an_axis_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="across must be None, 0, 1 or 2, not 3"):
        segmentation_picture(tmp_path / "case.png", np.zeros(SHAPE), np.zeros(SHAPE, int), across=3)


def test_segmentation_picture_of_an_empty_prediction(tmp_path: Path) -> None:
    segmentation_picture(tmp_path / "empty.png", np.random.default_rng(0).random(SHAPE), np.zeros(SHAPE, int))
    assert pixels(tmp_path / "empty.png").std() > 0.05


def test_segmentation_picture_refuses_another_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^truth has the shape \(4, 4, 4\)"):
        segmentation_picture(tmp_path / "case.png", np.zeros(SHAPE), np.zeros(SHAPE, int), np.zeros((4, 4, 4), int))


def test_table_picture_skips_missing_values_and_grows_with_the_methods(tmp_path: Path) -> None:
    rows = [
        {"method": m, "case": k, "dice": v} for m in ("one", "two", "three") for k, v in enumerate((0.5, "0.6", "", None, float("nan")))
    ]
    table_picture(tmp_path / "three.png", rows, title="scores", reference={"required": 0.55})
    table_picture(tmp_path / "one.png", rows[:5])
    assert pixels(tmp_path / "three.png").shape[0] > pixels(tmp_path / "one.png").shape[0]


def test_table_picture_refuses_rows_without_a_value(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row has a finite 'dice'"):
        table_picture(tmp_path / "none.png", [{"method": "one", "dice": ""}])


def test_scatter_picture_has_a_row_of_panels_a_name(tmp_path: Path) -> None:
    points = np.random.default_rng(0).random((20, 2))
    panels = {f"scale {k}": {"knee": points, "heart": points[:3] + 2} for k in range(3)}
    scatter_picture(tmp_path / "one.png", {"": panels})
    scatter_picture(tmp_path / "two.png", {"with": panels, "without": {"scale 0": {"heart": points}}}, title="embeddings")
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert two.shape[0] > 1.5 * one.shape[0]
    assert one.std() > 0.03


def test_scatter_picture_refuses_no_panels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no panels"):
        scatter_picture(tmp_path / "none.png", {"with": {}})
