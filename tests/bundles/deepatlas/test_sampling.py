from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from deepatlas.sampling import PairSampler, collate_pairs
from deepatlas.stages import Schedule
from tools.data.checks import DataError


def cases(labelled: int, unlabelled: int) -> list[dict[str, str]]:
    return [{"image": f"i{k}"} | ({"label": f"l{k}"} if k < labelled else {}) for k in range(labelled + unlabelled)]


def sampler(labelled: int, unlabelled: int, stage: dict, **options) -> PairSampler:
    schedule = Schedule([{"name": "stage", **stage}], 1000)
    return PairSampler(cases(labelled, unlabelled), schedule, **{"pairs": 2, "segmentation_pairs": 2, **options})


def pairs(made: PairSampler, steps: int) -> list[tuple[int, int]]:
    """(fixed, moving) of many steps."""
    result = []
    for step in range(steps):
        batch = made.batch(step)
        result += list(zip(batch[: len(batch) // 2], batch[len(batch) // 2 :]))
    return result


FROM_IMAGES = {"registration": 1, "registration_from": "images"}
FROM_LABELS = {"registration": 1, "registration_from": "labels"}
FROM_SEGMENTATIONS = {"registration": 1, "registration_from": "segmentations"}
SUPERVISED = {"segmentation": 1, "segmentation_from": "labels"}
CARRIED = {"segmentation": 1, "segmentation_from": "registration"}
ANSWERED = {"segmentation": 1, "segmentation_from": "segmentations"}


@pytest.mark.parametrize("stage", [FROM_LABELS, SUPERVISED])
def test_steps_that_learn_from_labels_get_two_labelled_cases(stage):
    drawn = pairs(sampler(3, 5, stage), 200)
    assert {case for pair in drawn for case in pair} == {0, 1, 2}
    assert all(fixed != moving for fixed, moving in drawn)
    assert len(set(drawn)) == 6  # all ordered pairs of three


@pytest.mark.parametrize("stage", [FROM_LABELS, SUPERVISED])
def test_a_single_label_is_paired_with_itself(stage):
    assert set(pairs(sampler(1, 5, stage), 50)) == {(0, 0)}


def test_registration_from_images_takes_all_pairs_alike():
    drawn = pairs(sampler(1, 3, FROM_IMAGES), 1500)
    counts = [drawn.count((a, b)) for a in range(4) for b in range(4) if a != b]
    assert sum(counts) == 3000
    assert min(counts) > 200  # 250 expected, 15 a standard deviation
    assert max(counts) < 300


def test_segmentation_carried_over_has_a_label_in_every_pair_on_either_side():
    drawn = pairs(sampler(1, 4, CARRIED), 300)
    assert all(0 in pair and len(set(pair)) == 2 for pair in drawn)
    assert 250 < sum(fixed == 0 for fixed, _ in drawn) < 350
    assert {case for pair in drawn for case in pair} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.0, 0.30, 0.37), (0.5, 0.62, 0.71)])
@pytest.mark.parametrize("stage", [FROM_SEGMENTATIONS, ANSWERED])
def test_share_of_pairs_with_a_label(stage, share, low, high):
    # Without the share, a pair of six cases holds the labelled one in 2 / 6.
    drawn = pairs(sampler(1, 5, stage, labelled_pairs=share, segmentation_pairs=2), 1500)
    assert low <= sum(0 in pair for pair in drawn) / len(drawn) <= high


def test_draws_depend_on_seed_and_step_alone():
    first, second = sampler(2, 4, CARRIED, seed=5), sampler(2, 4, CARRIED, seed=5)
    assert second.batch(7) == first.batch(7)
    assert [first.batch(k) for k in range(20)] == [second.batch(k) for k in range(20)]
    other = sampler(2, 4, CARRIED, seed=6)
    assert [first.batch(k) for k in range(20)] != [other.batch(k) for k in range(20)]


def test_a_pass_goes_on_where_the_last_ended():
    made = sampler(2, 4, CARRIED, epoch_length=3)
    assert len(made) == 3
    assert list(made) + list(made) == [made.batch(k) for k in range(6)]
    made.next_step = 30
    assert list(made) == [made.batch(k) for k in (30, 31, 32)]


@pytest.mark.parametrize("stage", [FROM_LABELS, FROM_SEGMENTATIONS, CARRIED, ANSWERED])
def test_two_processes_take_the_halves_of_the_large_batch(stage):
    together = sampler(2, 4, stage, pairs=4, segmentation_pairs=4)
    parts = [sampler(2, 4, stage, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(20):
        whole, (first, second) = together.batch(step), [part.batch(step) for part in parts]
        assert whole == first[:2] + second[:2] + first[2:] + second[2:]


def test_each_network_has_its_own_size_of_batch():
    made = sampler(2, 4, {"registration": 1, "segmentation": 1}, pairs=3, segmentation_pairs=1)
    assert [len(made.batch(k)) for k in range(4)] == [2, 6, 2, 6]


def test_stages_that_need_no_label_take_none():
    assert len(sampler(0, 3, FROM_IMAGES).batch(0)) == 4


@pytest.mark.parametrize("stage", [FROM_LABELS, SUPERVISED, CARRIED, ANSWERED])
def test_no_label(stage):
    with pytest.raises(DataError, match="no training case has a label"):
        sampler(0, 3, stage)


def test_one_case():
    with pytest.raises(DataError, match="at least two training cases, there are 1"):
        sampler(1, 0, FROM_IMAGES)


def test_collate():
    image, label = MetaTensor(torch.rand(1, 2, 2, 2)), MetaTensor(torch.ones(1, 2, 2, 2, dtype=torch.int64))
    batch = collate_pairs([{"image": image, "label": label}, {"image": image + 1}])
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "image": (2, 1, 2, 2, 2),
        "label": (2, 1, 2, 2, 2),
        "labelled": (2,),
    }
    assert batch["labelled"].tolist() == [True, False]
    assert batch["label"].dtype == torch.int64
    assert batch["label"][0].eq(1).all()
    assert batch["label"][1].eq(0).all()
    assert not any(isinstance(value, MetaTensor) for value in batch.values())
