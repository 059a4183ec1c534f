from __future__ import annotations

import numpy as np
import pytest
import torch

from multidomain_segmentation.sampling import UNLABELLED, BalancedSliceSampler, SliceDataset, SliceDraw, collate_slices
from multidomain_segmentation.stages import Schedule
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan, SlicePlan

PLAN = DomainPlan(
    domains={name: SlicePlan(labels={0: "background", 1: "bone"}) for name in ("ankle", "knee", "shoulder")}, patch_size=(32, 16)
)


def volume(domain: int, slices: int = 10, shown: int = 2, size=(40, 48), labelled: bool = True) -> dict:
    """A volume with foreground in the first ``shown`` slices, rows 30 .. 35 and columns 4 .. 6; the image numbers its pixels."""
    label = torch.zeros(slices, *size, dtype=torch.uint8)
    label[:shown, 30:36, 4:7] = 1
    image = torch.arange(label.numel()).reshape(label.shape).half() / label.numel()
    return {"image": image, "domain": domain, "name": ""} | ({"label": label} if labelled else {})


@pytest.fixture
def dataset():
    cases = [volume(0), volume(0, slices=30), volume(1), volume(1, shown=0), volume(1, labelled=False), volume(2, size=(20, 12))]
    return SliceDataset(cases, transform=lambda case: case, num_workers=0, progress=False)


def sampler(dataset, **options) -> BalancedSliceSampler:
    return BalancedSliceSampler(dataset, PLAN, **{"slices_per_domain": 4, **options})


def draws(made: BalancedSliceSampler, steps: int) -> list[SliceDraw]:
    return [draw for step in range(steps) for draw in made.batch(step)]


def test_each_batch_has_the_same_number_of_every_domain(dataset):
    for step in range(20):
        batch = collate_slices([dataset[draw] for draw in sampler(dataset).batch(step)])
        assert batch["domain"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_structures_that_no_label_shows_are_warned_of_once(dataset, caplog):
    labels = {"ankle": {0: "b", 1: "bone"}, "knee": {0: "b", 1: "bone", 4: "ghost"}, "shoulder": {0: "b", 1: "bone", 2: "cuff", 3: "disc"}}
    plan = DomainPlan(domains={name: SlicePlan(labels=values) for name, values in labels.items()}, patch_size=(32, 16))
    sampler(dataset, domains=["ankle", "knee"])
    BalancedSliceSampler(dataset, plan, rank=1, world_size=2)
    assert not caplog.records
    BalancedSliceSampler(dataset, plan)
    (record,) = caplog.records
    # the smaller slices of the shoulder show nothing at all
    unseen = (
        "'ghost' of the domain 'knee', 'bone' of the domain 'shoulder', 'cuff' of the domain 'shoulder', 'disc' of the domain 'shoulder'"
    )
    assert f"no training label shows {unseen}:" in record.message


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_domains_in_turn(dataset, count):
    made = sampler(dataset, domains_per_step=count)
    steps = [{dataset[draw]["domain"] for draw in made.batch(step)} for step in range(60)]
    assert {len(domains) for domains in steps} <= {1: {1}, 2: {1, 2}}.get(count, {3})
    turns = [sum(domain in domains for domains in steps) for domain in range(3)]
    assert all(0.7 * 20 * min(count, 3) <= turn <= 20 * min(count, 3) for turn in turns)
    assert len({tuple(domains) for domains in steps}) > 1 or count >= 3


@pytest.mark.parametrize("count", [0, 1.5, "two"])
def test_what_is_no_number_of_domains(dataset, count):
    with pytest.raises(DataError, match="domains_per_step must be"):
        sampler(dataset, domains_per_step=count)


def test_labelled_cases_are_drawn_alike_however_many_slices_they_have(dataset):
    drawn = [draw.case for draw in draws(sampler(dataset), 250)]
    assert set(drawn) == {0, 1, 2, 3, 5}
    assert 420 < drawn.count(0) < 580  # 500 expected, 16 a standard deviation
    assert drawn.count(5) == 1000


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.7, 0.7, 0.82), (0.0, 0.14, 0.26)])
def test_share_of_slices_that_show_a_structure(dataset, share, low, high):
    # of the case with 10 slices, 2 with foreground: share + (1 - share) / 5
    drawn = [draw.slice < 2 for draw in draws(sampler(dataset, foreground_share=share, domains=["ankle"]), 500) if draw.case == 0]
    assert low <= sum(drawn) / len(drawn) <= high


def test_windows_of_foreground_slices_hold_foreground_and_stay_inside(dataset):
    made = sampler(dataset, foreground_share=1.0)
    for draw in draws(made, 100):
        if draw.case in (0, 1, 2):
            assert dataset[draw]["label"].any()
            assert 0 <= draw.top <= 40 - 32
            assert 0 <= draw.left <= 48 - 16
    assert len({draw.left for draw in draws(made, 100) if draw.case == 0}) > 3


def test_windows_hold_foreground_where_structures_lie_far_apart():
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    label = torch.stack([torch.hypot(rows - k, columns - k) < 10 for k in (12, 83)]).any(0).expand(3, -1, -1).to(torch.uint8)
    case = {"image": label.half(), "label": label, "domain": 0}
    made = SliceDataset([case], transform=lambda case: case, num_workers=0, progress=False)
    drawn = draws(sampler(made, foreground_share=1.0, domains=["ankle"]), 100)
    assert all(made[draw]["label"].any() for draw in drawn)
    assert 150 < sum(draw.top < 32 for draw in drawn) < 250  # 200 expected, 10 a standard deviation


def test_pixels_to_place_windows_around_are_few_and_spread():
    label = torch.zeros(2, 64, 128, dtype=torch.uint8)
    label[1, :, 32:96] = 1
    case = {"image": label.half(), "label": label, "domain": 0}
    made = sampler(SliceDataset([case], transform=lambda case: case, num_workers=0, progress=False), domains=["ankle"])
    assert list(made.points[0]) == [1]
    assert made.points[0][1].dtype == np.int32
    rows, columns = np.divmod(made.points[0][1], 128)
    assert len(set(zip(rows, columns))) == 256
    assert label[1, rows, columns].all()
    assert (rows.min(), rows.max()) == (0, 63)
    assert len(set(columns)) > 32


def test_small_slices_are_padded_on_both_sides(dataset):
    draw = next(draw for draw in sampler(dataset, domains=["shoulder"]).batch(0))
    assert (draw.top, draw.left) == (-6, -2)
    crop = dataset[draw]
    assert crop["image"].shape == (1, 32, 16)
    assert crop["label"].shape == (32, 16)
    torch.testing.assert_close(crop["image"][0, 6:26, 2:14], dataset[5]["image"][draw.slice].float())
    assert not crop["image"][0, :6].any()
    assert not crop["image"][0, :, 14:].any()


def test_draws_depend_on_seed_and_step_alone(dataset):
    first, second, other = (sampler(dataset, seed=seed) for seed in (5, 5, 6))
    assert second.batch(7) == first.batch(7)
    assert [first.batch(k) for k in range(20)] == [second.batch(k) for k in range(20)]
    assert [first.batch(k) for k in range(20)] != [other.batch(k) for k in range(20)]


def test_a_domain_is_drawn_alike_alone_and_beside_others(dataset):
    together, alone = sampler(dataset), sampler(dataset, domains=["knee"])
    assert all(together.batch(k)[4:8] == alone.batch(k) for k in range(10))


def test_a_domain_is_drawn_alike_whatever_its_number(dataset):
    knees = SliceDataset([volume(0), volume(0, shown=0)], transform=lambda case: case, num_workers=0, progress=False)
    alone = BalancedSliceSampler(knees, DomainPlan(domains={"knee": PLAN.domains["knee"]}, patch_size=(32, 16)), slices_per_domain=4)
    for step in range(10):
        assert [draw[1:] for draw in alone.batch(step)] == [draw[1:] for draw in sampler(dataset).batch(step)[4:8]]


def test_a_pass_goes_on_where_the_last_ended(dataset):
    made = sampler(dataset, epoch_length=3)
    assert len(made) == 3
    assert list(made) + list(made) == [made.batch(k) for k in range(6)]
    made.next_step = 30
    assert list(made) == [made.batch(k) for k in (30, 31, 32)]


def test_two_processes_take_the_halves_of_the_large_batch(dataset):
    whole, parts = sampler(dataset), [sampler(dataset, slices_per_domain=2, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(10):
        first, second = (part.batch(step) for part in parts)
        assert whole.batch(step) == [draw for k in (0, 2, 4) for draw in first[k : k + 2] + second[k : k + 2]]


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader(dataset, workers):
    made = sampler(dataset, epoch_length=2)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=made, collate_fn=collate_slices, num_workers=workers)
    batch = next(iter(loader))
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "image": ((12, 1, 32, 16), torch.float32),
        "label": ((12, 32, 16), torch.int64),
        "domain": ((12,), torch.int64),
    }


def test_domain_without_a_labelled_case():
    cases = SliceDataset([volume(0), volume(1, labelled=False), volume(2)], lambda case: case, num_workers=0, progress=False)
    with pytest.raises(DataError, match="the domain 'knee' has no labelled training case"):
        sampler(cases)
    assert len(sampler(cases, domains=["shoulder", "ankle"]).batch(0)) == 8


def test_stages_choose_among_the_domains(dataset):
    stages = [{"name": "pretraining", "domains": "others"}, {"name": "finetuning", "domains": "target"}]
    made = sampler(dataset, schedule=Schedule(stages, 4, target="knee"))
    drawn = [collate_slices([dataset[draw] for draw in made.batch(step)])["domain"].tolist() for step in range(4)]
    assert drawn == [[0] * 4 + [2] * 4] * 2 + [[1] * 4] * 2
    assert made.batch(3) == sampler(dataset, domains=["knee"]).batch(3)


def test_unknown_target(dataset):
    with pytest.raises(DataError, match="--target hip: no such domain"):
        sampler(dataset, schedule=Schedule([{"name": "finetuning", "domains": "target"}], 4, target="hip"))


def test_unknown_domain(dataset):
    with pytest.raises(DataError, match="unknown domain 'kneee', the nearest is 'knee'"):
        sampler(dataset, domains=["kneee"])


ANSWERS = [{"name": "n"}, {"name": "a", "learn_from": "answers"}]


def test_unlabelled_slices_come_after_as_many_labelled_ones(dataset):
    made = sampler(dataset, schedule=Schedule(ANSWERS, 20))
    for step in range(20):
        batch = collate_slices([dataset[draw] for draw in made.batch(step)])
        missing = (batch["label"] == UNLABELLED).flatten(1)
        assert (missing.all(1) == missing.any(1)).all()
        expected = "lllluuuu" if step >= 10 else "llll"
        # the ankle and the shoulder have no unlabelled case
        assert missing[batch["domain"] == 1].all(1).tolist() == [letter == "u" for letter in expected]
        assert not missing[batch["domain"] != 1].any()
        assert batch["domain"].bincount().tolist() == [len(expected)] * 3


def test_a_stage_of_more_slices(dataset):
    made = sampler(dataset, schedule=Schedule([{"name": "n"}, {"name": "m", "slices": 3}], 20))
    assert [len(made.batch(step)) for step in (9, 10)] == [12, 36]
    assert made.batch(10)[12:24][:4] == sampler(dataset).batch(10)[4:8]


def test_labelled_slices_are_the_same_with_and_without_unlabelled_ones(dataset):
    plain, answered = sampler(dataset), sampler(dataset, schedule=Schedule(ANSWERS[1:], 20))
    for step in range(5):
        assert answered.batch(step)[8:12] == plain.batch(step)[4:8]


def test_domains_are_those_of_the_labelled_cases():
    cases = [volume(0), volume(1, labelled=False)]
    assert SliceDataset(cases, transform=lambda case: case, num_workers=0, progress=False).domains == (0,)


def test_processes_share_the_unlabelled_slices(dataset):
    whole = sampler(dataset, schedule=Schedule(ANSWERS[1:], 20), domains=["knee"]).batch(3)
    parts = [
        sampler(dataset, schedule=Schedule(ANSWERS[1:], 20), domains=["knee"], slices_per_domain=2, rank=rank, world_size=2).batch(3)
        for rank in (0, 1)
    ]
    assert [parts[0][:2], parts[1][:2], parts[0][2:], parts[1][2:]] == [whole[0:2], whole[2:4], whole[4:6], whole[6:8]]


def test_nothing_is_unlabelled(dataset):
    with pytest.raises(DataError, match="the stage 'a' learns from unlabelled images, but every training case of .'ankle'. has a label"):
        sampler(dataset, schedule=Schedule(ANSWERS, 20), domains=["ankle"])
