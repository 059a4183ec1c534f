from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.losses import GlobalMutualInformationLoss
from torch import nn
from training_runs import curves

from deepatlas.losses import RegistrationLoss, SegmentationLoss
from deepatlas.networks import registration_network, segmentation_network
from deepatlas.stages import Schedule
from deepatlas.training import DeepAtlasUpdate
from deepatlas.validation import RegistrationValidation
from tools.data.augmentation import Augmentation
from tools.losses import AnatomyLoss
from tools.networks.registration import RegistrationOutput
from tools.registration.displacement import warp

FROM_IMAGES = {"registration": 1, "registration_from": "images"}
FROM_LABELS = {"registration": 1, "registration_from": "labels"}
FROM_SEGMENTATIONS = {"registration": 1, "registration_from": "segmentations"}
SUPERVISED = {"segmentation": 1, "segmentation_from": "labels"}
CARRIED = {"segmentation": 1, "segmentation_from": "registration"}
ANSWERED = {"segmentation": 1, "segmentation_from": "segmentations"}
CASES = {"both": [True, True], "fixed": [True, False], "moving": [False, True], "neither": [False, False]}


class Segmentation(nn.Module):
    """Logits (0, s I) at each voxel, with one parameter s."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, image):
        return torch.cat((torch.zeros_like(image), self.scale * image), dim=1)


class Registration(nn.Module):
    """A shift along the first axis, its one parameter; notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.seen = nn.Parameter(torch.tensor(0.4)), []

    def forward(self, fixed, moving):
        self.seen.append((fixed.detach().clone(), moving.detach().clone(), self.training))
        ddf = torch.stack((self.shift * torch.ones_like(fixed[:, 0]), *torch.zeros_like(fixed).expand(-1, 2, -1, -1, -1).unbind(1)), dim=1)
        return RegistrationOutput(ddf, ddf[..., ::2, ::2, ::2], None, None)


def update(stage: dict, augmentation: Augmentation | None = None, **options) -> DeepAtlasUpdate:
    segmentation, registration = Segmentation(), Registration()
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (segmentation, registration)]
    schedule = Schedule([{"name": "stage", **stage}], 10, warmup=0.0)
    return DeepAtlasUpdate(
        segmentation, registration, *optimizers, schedule, 2, augmentation=augmentation, precision="float32", max_norm=1e9, **options
    )


def batch(labelled: list[bool]) -> dict[str, torch.Tensor]:
    """Fixed cases first, then moving ones; labels of unlabelled cases are zero, as :func:`collate_pairs` makes them."""
    random = torch.Generator().manual_seed(0)
    image = torch.rand(len(labelled), 1, 6, 6, 6, generator=random)
    known = torch.tensor(labelled)
    label = (image.roll(1, 2) > 0.5).long() * known.view(-1, 1, 1, 1, 1)
    return {"image": image, "label": label, "labelled": known}


def one_hot(label: torch.Tensor) -> torch.Tensor:
    return torch.cat((label == 0, label == 1), dim=1).float()


def step(made: DeepAtlasUpdate, data: dict[str, torch.Tensor], number: int = 1) -> dict[str, float]:
    state = SimpleNamespace(iteration=number, device=torch.device("cpu"))
    return made(SimpleNamespace(state=state), {key: value.clone() for key, value in data.items()})


def parameters(made: DeepAtlasUpdate) -> tuple[float, float]:
    return made.networks["segmentation"].scale.item(), made.networks["registration"].shift.item()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stage", [FROM_IMAGES, FROM_SEGMENTATIONS])
def test_a_registration_step_moves_the_registration_alone(case, stage):
    made = update(stage)
    parts = step(made, batch(CASES[case]))
    scale, shift = parameters(made)
    assert scale == 2.0
    assert made.networks["segmentation"].scale.grad is None
    assert shift != pytest.approx(0.4)
    assert (parts["registration/anatomy"] > 0) == (stage is FROM_SEGMENTATIONS)
    assert made.networks["registration"].training
    assert not made.networks["segmentation"].training


@pytest.mark.parametrize("case", CASES)
def test_registration_takes_the_soft_segmentation_where_a_label_is_missing(case):
    made, data = update(FROM_SEGMENTATIONS), batch(CASES[case])
    parts = step(made, data)
    soft = Segmentation()(data["image"]).softmax(1).detach()
    fixed, moving = (one_hot(data["label"][i : i + 1]) if CASES[case][i] else soft[i : i + 1] for i in (0, 1))
    ddf = Registration()(data["image"][:1], data["image"][1:]).ddf.detach()
    expected = RegistrationLoss()(
        RegistrationOutput(ddf, ddf[..., ::2, ::2, ::2], None, None), data["image"][:1], data["image"][1:], fixed, moving
    )
    assert parts["registration/anatomy"] == pytest.approx(float(expected.anatomy), abs=1e-6)
    assert parts["registration/similarity"] == pytest.approx(float(expected.similarity), abs=1e-6)
    assert parts["loss"] == pytest.approx(float(expected.loss), abs=1e-6)


@pytest.mark.parametrize("stage", [FROM_IMAGES, FROM_LABELS])
def test_a_symmetric_network_learns_from_both_directions(stage):
    """The mean over both: the second one is that of the swapped pair by the swapped answer."""
    made, data = update(stage), batch([True, True])
    swapped_ddf = Registration()(data["image"][1:], data["image"][:1]).ddf.detach() * 3
    swapped = RegistrationOutput(swapped_ddf, swapped_ddf[..., ::2, ::2, ::2], None, None)
    made.networks["registration"].register_forward_hook(lambda module, inputs, output: output._replace(swapped=swapped))
    parts = step(made, data)
    images = data["image"].chunk(2)
    labels = one_hot(data["label"]).chunk(2) if stage is FROM_LABELS else (None, None)
    ddf = Registration()(*images).ddf.detach()
    there = RegistrationLoss()(RegistrationOutput(ddf, ddf[..., ::2, ::2, ::2], None, None), *images, *labels)
    back = RegistrationLoss()(swapped, *images[::-1], *labels[::-1])
    assert float(there.loss) != pytest.approx(float(back.loss), abs=1e-4)
    assert parts["loss"] == pytest.approx(float(there.loss + back.loss) / 2, abs=1e-6)
    assert parts["registration/similarity"] == pytest.approx(float(there.similarity + back.similarity) / 2, abs=1e-6)


@pytest.mark.parametrize("case", ["both", "fixed", "moving"])
def test_segmentation_loss_of_the_label_cases(case):
    made, data = update(CARRIED, segmentation_loss=SegmentationLoss(2.0, 3.0, cross_entropy_weight=0.0)), batch(CASES[case])
    parts = step(made, data)
    dice, soft, labels = AnatomyLoss(), Segmentation()(data["image"]).softmax(1).detach(), one_hot(data["label"])
    ddf = Registration()(data["image"][:1], data["image"][1:]).ddf.detach()
    rows = [i for i in (0, 1) if CASES[case][i]]
    supervised = 2 * dice(soft[rows], labels[rows])
    anatomy = {
        "both": 0.0,  # S_m o phi against S_t: no gradient to F_S
        "fixed": 3 * dice(warp(soft[1:], ddf), labels[:1]),
        "moving": 3 * dice(warp(labels[1:], ddf), soft[:1]),
    }[case]
    assert parts["segmentation/supervised"] == pytest.approx(float(supervised), abs=1e-6)
    assert parts["segmentation/anatomy"] == pytest.approx(float(anatomy), abs=1e-6)
    assert parts["loss"] == pytest.approx(float(supervised + anatomy), abs=1e-6)


@pytest.mark.parametrize("case", ["both", "fixed", "moving"])
def test_a_segmentation_step_moves_the_segmentation_alone(case):
    made = update(CARRIED)
    step(made, batch(CASES[case]))
    scale, shift = parameters(made)
    assert scale != pytest.approx(2.0)
    assert shift == torch.tensor(0.4).item()
    assert made.networks["registration"].shift.grad is None
    assert [training for *_, training in made.networks["registration"].seen] == ([] if case == "both" else [False])


@pytest.mark.parametrize(("case", "sign"), [("fixed", 1), ("moving", 1)])
def test_the_carried_label_alone_teaches_the_unlabelled_image(case, sign):
    """Without the supervised part the gradient comes from the unlabelled image only, whichever side it is on."""
    made, data = update(CARRIED, segmentation_loss=SegmentationLoss(supervised_weight=0.0)), batch(CASES[case])
    step(made, data)
    unlabelled = CASES[case].index(False)
    network = Segmentation()
    ddf = Registration()(data["image"][:1], data["image"][1:]).ddf.detach()
    soft, labels = network(data["image"][unlabelled : unlabelled + 1]).softmax(1), one_hot(data["label"])
    first, second = (warp(soft, ddf), labels[:1]) if case == "fixed" else (warp(labels[1:], ddf), soft)
    AnatomyLoss()(first, second).backward()
    assert parameters(made)[0] == pytest.approx(2.0 - 0.1 * float(network.scale.grad), abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_answers_of_the_teacher_are_carried_where_a_label_is_missing(case):
    made, data = update(ANSWERED, segmentation_loss=SegmentationLoss(2.0, 3.0, 5.0, cross_entropy_weight=0.0)), batch(CASES[case])
    with torch.no_grad():
        made.teacher.module.scale.fill_(4.0)
    parts = step(made, data)
    student, teacher = Segmentation(), Segmentation()
    with torch.no_grad():
        teacher.scale.fill_(4.0)
    logits, answers = student(data["image"]).detach(), teacher(data["image"]).softmax(1).detach()
    known = torch.tensor(CASES[case]).view(2, 1, 1, 1, 1)
    labels = torch.where(known, one_hot(data["label"]), answers)
    ddf = Registration()(data["image"][:1], data["image"][1:]).ddf.detach()
    dice, soft, rows = AnatomyLoss(), logits.softmax(1), [i for i in (0, 1) if CASES[case][i]]
    supervised = 2 * dice(soft[rows], labels[rows]) if rows else 0.0
    if case == "both":
        anatomy = consistency = 0.0
    else:
        # A fixed label that is missing is learnt from the moving case, otherwise the moving one from the fixed case.
        anatomy = 3 * (dice(warp(soft[1:], ddf), labels[:1]) if case == "fixed" else dice(warp(labels[1:], ddf), soft[:1]))
        others = [i for i in (0, 1) if not CASES[case][i]]
        consistency = -5 * (answers[others] * logits[others].log_softmax(1)).sum(1).mean()
    assert parts["segmentation/supervised"] == pytest.approx(float(supervised), abs=1e-6)
    assert parts["segmentation/anatomy"] == pytest.approx(float(anatomy), abs=1e-6)
    assert parts["segmentation/consistency"] == pytest.approx(float(consistency), abs=1e-5)
    assert parts["loss"] == pytest.approx(float(supervised + anatomy + consistency), abs=1e-5)


@pytest.mark.parametrize("case", ["fixed", "neither"])
def test_answers_without_the_registration(case):
    made, data = update({**ANSWERED, "segmentation_from": "answers"}), batch(CASES[case])
    parts = step(made, data)
    logits = Segmentation()(data["image"]).detach()
    others = [i for i in (0, 1) if not CASES[case][i]]
    expected = -(logits[others].softmax(1) * logits[others].log_softmax(1)).sum(1).mean()
    assert parts["segmentation/consistency"] == pytest.approx(float(expected), abs=1e-5)
    assert parts["segmentation/anatomy"] == 0.0
    assert (parts["segmentation/supervised"] > 0) == (case == "fixed")
    assert made.networks["registration"].seen == []


@pytest.mark.parametrize(("hard", "kind"), [(False, "soft"), ("true", "hard")])
def test_what_stands_in_for_a_missing_label(hard, kind):
    for stage, name, expected in (
        (FROM_SEGMENTATIONS, "registration", kind),
        (ANSWERED, "segmentation", kind),
        ({**ANSWERED, "segmentation_from": "answers"}, "segmentation", kind),
        (FROM_IMAGES, "registration", None),
        (SUPERVISED, "segmentation", None),
        (CARRIED, "segmentation", None),
    ):
        made = update(stage, hard_answers=hard)
        assert made.stands_in(made.schedule.stages[0], name) == expected


@pytest.mark.parametrize(("decay", "share"), [(0.0, 0.0), (0.75, 0.75)])
def test_the_teacher_is_a_running_average_of_the_segmentation(decay, share):
    made = update(SUPERVISED, teacher_decay=decay)
    step(made, batch(CASES["both"]), 1)
    first = parameters(made)[0]
    assert made.teacher.module.scale.item() == first  # the average begins at the first step
    step(made, batch(CASES["both"]), 2)
    second = parameters(made)[0]
    assert first != pytest.approx(second)
    assert made.teacher.module.scale.item() == pytest.approx(share * first + (1 - share) * second)


def test_the_registration_takes_the_teachers_most_probable_classes():
    made, data = update(FROM_SEGMENTATIONS, hard_answers=True), batch(CASES["neither"])
    with torch.no_grad():
        made.teacher.module.scale.fill_(-1.0)  # background everywhere, but for it F_S would say foreground
    assert torch.equal(made.answer(data["image"], hard=True), one_hot(torch.zeros_like(data["image"])))
    parts = step(made, data)
    assert parts["registration/anatomy"] == 0.0  # nothing to align


def test_answers_are_deformed_with_their_images():
    made, data = update(ANSWERED, Augmentation(rotation=0, scaling=0, translation=2.0, elastic=0, probability=0)), batch(CASES["fixed"])
    data["label"][:] = 0
    images, _, labels, _ = made.prepare({k: v.clone() for k, v in data.items()}, torch.device("cpu"), 0, False, "soft")
    answer = made.answer(data["image"])
    _, expected = made.augmentation.deform(data["image"], answer, torch.Generator())  # another shift
    assert not torch.allclose(images, data["image"], atol=1e-3)
    assert not torch.allclose(labels[1:], answer[1:], atol=1e-3)
    # A shift commutes with an answer voxel by voxel, up to interpolation of a curved function.
    assert (labels[1:] - made.answer(images)[1:]).abs().max() < 0.05
    assert not torch.allclose(labels[1:], expected[1:], atol=1e-3)


@pytest.mark.parametrize(("weight", "least"), [(1.0, 0.0), (3.0, np.log(3) / 2), (0.25, -1.0)])
def test_the_weight_of_the_background_in_hard_answers(weight, least):
    made, data = update(FROM_SEGMENTATIONS, background_weight=weight), batch(CASES["neither"])
    # Logits (0, 2 I): foreground where exp(2 I) > weight.
    assert torch.equal(made.answer(data["image"], hard=True), one_hot(data["image"] > least))
    assert torch.allclose(made.answer(data["image"]).sum(1), torch.ones(2, 6, 6, 6))


def test_a_weight_of_the_background_that_is_none():
    with pytest.raises(ValueError, match="background_weight must be positive, not 0"):
        update(SUPERVISED, background_weight=0.0)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none(decay):
    with pytest.raises(ValueError, match="teacher_decay must be at least 0 and below 1"):
        update(SUPERVISED, teacher_decay=decay)


def test_a_segmentation_step_without_any_label():
    with pytest.raises(ValueError, match="needs a labelled case"):
        step(update(CARRIED), batch(CASES["neither"]))


def test_pairs_of_unlike_label_cases_in_one_batch():
    labelled = [True, True, False, False, True, True]  # (fixed 0, moving 3), (1, 4), (2, 5): one label, two, one
    made, data = update(CARRIED, segmentation_loss=SegmentationLoss(cross_entropy_weight=0.0)), batch(labelled)
    parts = step(made, data)
    soft, labels, dice = Segmentation()(data["image"]).softmax(1).detach(), one_hot(data["label"]), AnatomyLoss()
    ddf = Registration()(data["image"][:1], data["image"][:1]).ddf.detach()
    expected = (dice(warp(soft[3:4], ddf), labels[:1]) + dice(warp(labels[5:], ddf), soft[2:3])) / 2
    assert parts["segmentation/anatomy"] == pytest.approx(float(expected), abs=1e-6)
    seen_fixed, seen_moving, _ = made.networks["registration"].seen[0]
    assert torch.equal(seen_fixed, data["image"][[0, 2]])
    assert torch.equal(seen_moving, data["image"][[3, 5]])


def test_registration_is_shown_images_without_intensity_changes():
    made = update(CARRIED, Augmentation(rotation=0, scaling=0, translation=0, elastic=0, probability=1.0))
    data = batch(CASES["fixed"])
    images, augmented, *_ = made.prepare({k: v.clone() for k, v in data.items()}, torch.device("cpu"), 0, intensities=True)
    torch.testing.assert_close(images, data["image"], atol=1e-5, rtol=0)
    assert (augmented - images).abs().mean() > 0.01
    step(made, data)
    torch.testing.assert_close(made.networks["registration"].seen[0][0], data["image"][:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("learning", ["segmentation", "registration"])
def test_each_network_has_its_own_augmentation(learning):
    still, moving = (Augmentation(rotation=0, scaling=0, translation=t, elastic=0, probability=0) for t in (0, 3))
    made = update(CARRIED, still, registration_augmentation=moving)
    data = batch(CASES["fixed"])
    images, *_ = made.prepare({k: v.clone() for k, v in data.items()}, torch.device("cpu"), 0, intensities=learning == "segmentation")
    assert torch.allclose(images, data["image"], atol=1e-5) is (learning == "segmentation")


def test_augmentation_depends_on_seed_step_and_place_in_the_whole_batch():
    data = batch([True] * 8)

    def prepared(rows: list[int], number: int = 3, **options) -> torch.Tensor:
        part = {key: value[rows].clone() for key, value in data.items()}
        return update(CARRIED, Augmentation(), **options).prepare(part, torch.device("cpu"), number, True)[1]

    whole = prepared(list(range(8)))
    assert torch.equal(whole, prepared(list(range(8))))
    # two processes of two pairs each
    assert torch.equal(whole[[0, 1, 4, 5]], prepared([0, 1, 4, 5], rank=0))
    assert torch.equal(whole[[2, 3, 6, 7]], prepared([2, 3, 6, 7], rank=1))
    assert not torch.equal(whole, prepared(list(range(8)), number=4))
    assert not torch.equal(whole, prepared(list(range(8)), seed=1))


def test_learning_rates_follow_the_schedule_of_their_own_network():
    made = update({"registration": 1, "segmentation": 1})
    rates = []
    for number in range(1, 11):
        step(made, batch(CASES["both"]), number)
        rates.append(tuple(made.optimizers[name].param_groups[0]["lr"] for name in ("segmentation", "registration")))
    expected = [0.1 * made.schedule.learning_rate(made.schedule(2 * k)) for k in range(5)]
    assert [rate for rate, _ in rates[::2]] == pytest.approx(expected)
    assert [rate for _, rate in rates[1::2]] == pytest.approx(expected)


def test_gradients_are_clipped():
    made = update(FROM_IMAGES)
    made.max_norm = 1e-3
    step(made, batch(CASES["both"]))
    assert abs(parameters(made)[1] - 0.4) == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("stage", [FROM_LABELS, FROM_SEGMENTATIONS, SUPERVISED, CARRIED])
def test_real_networks_leave_the_frozen_one_alone(stage, precision):
    torch.manual_seed(0)
    networks = [segmentation_network(2, channels=(4, 4, 4)), registration_network(2, channels=(4, 4, 4), hidden=(4, 4, 4))]
    optimizers = [torch.optim.AdamW(network.parameters(), lr=0.01) for network in networks]
    schedule = Schedule([{"name": "stage", **stage}], 10)
    made = DeepAtlasUpdate(*networks, *optimizers, schedule, 2, augmentation=Augmentation(), precision=precision)
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    image = torch.rand(2, 1, 16, 16, 16)
    labelled = [True, True] if "labels" in stage.values() else [True, False]
    data = {"image": image, "label": (image > 0.5).long(), "labelled": torch.tensor(labelled)}
    parts = step(made, data, number=5)
    assert all(np.isfinite(value) for value in parts.values())
    changed = [any(not torch.equal(a, b) for a, b in zip(old, network.parameters())) for old, network in zip(before, networks)]
    assert changed == ["segmentation" in stage, "registration" in stage]


@pytest.mark.parametrize(("finetune", "shared"), [(False, True), ("true", False)])
def test_features_are_shared_where_the_stage_begins_and_learn_apart_afterwards(finetune, shared):
    torch.manual_seed(0)
    networks = [segmentation_network(2, channels=(4, 4, 4)), registration_network(2, channels=(4, 4, 4), hidden=(4, 4, 4))]
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.0) for network in networks]
    stages = [{"name": "apart", **FROM_LABELS}, {"name": "joint", **FROM_LABELS, "share_features": True}]
    made = DeepAtlasUpdate(*networks, *optimizers, Schedule(stages, 4), 2, precision="float32", finetune=finetune)
    image = torch.rand(2, 1, 16, 16, 16)
    data = {"image": image, "label": (image > 0.5).long(), "labelled": torch.tensor([True, True])}
    same = []
    for number in range(1, 5):
        step(made, data, number)
        states = [network.features.state_dict() for network in networks]
        same.append(all(torch.equal(states[0][key], states[1][key]) for key in states[0]))
        if number == 3:
            next(networks[1].features.parameters()).data.add_(1)
    assert same == [False, False, shared, False]


def test_features_of_unlike_networks_cannot_be_shared():
    with pytest.raises(ValueError, match="same features"):
        update({**FROM_LABELS, "share_features": True})


class Cases(torch.utils.data.Dataset):
    def __init__(self, *shifts: int, label: bool = True) -> None:
        self.shifts, self.label = shifts, label

    def __len__(self) -> int:
        return len(self.shifts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        label = torch.zeros(1, 8, 8, 8, dtype=torch.int64)
        label[:, self.shifts[index] : self.shifts[index] + 4] = 1
        return {"image": label.float()} | ({"label": label} if self.label else {})


@pytest.mark.parametrize(("shift", "dice"), [(0.0, 0.5), (2.0, 0.5)])
def test_validation(shift, dice):
    network = Registration()
    network.shift.data.fill_(shift)
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    RegistrationValidation(network, Cases(1, 3), interval=1).attach(engine)
    engine.run([0], max_epochs=1)
    # planes 1-4 and 3-6: two of four meet unmoved; a shift by two brings one of the two pairs together and the other apart
    assert engine.state.metrics["registration_dice"] == pytest.approx(dice)
    assert engine.state.metrics["folds"] == 0


def test_validation_without_labels_reports_folds():
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    RegistrationValidation(Registration(), Cases(1, 3, label=False), interval=1).attach(engine)
    engine.run([0], max_epochs=1)
    assert set(engine.state.metrics) == {"folds"}


def unregistered(dataset) -> float:
    """Mean Dice of the shell and core over all pairs of the data set as it lies."""
    import nibabel as nib

    labels = [np.asarray(nib.load(path).dataobj) for path in sorted((dataset / "labelsTr").iterdir())]
    dice = [
        2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for a in labels for b in labels if a is not b for v in (2, 5)
    ]
    return float(np.mean(dice))


def test_the_real_configuration_learns(model, ellipsoid_dataset, evaluated):
    summary = json.loads((evaluated / "summary.json").read_text())
    before = unregistered(ellipsoid_dataset)
    assert before < 0.55
    assert summary["metrics"]["registration_dice_mean"]["mean"] > before + 0.15
    assert summary["metrics"]["dice_mean"]["mean"] > 0.8


def test_mutual_information_by_an_option(train, tmp_path, monkeypatch):
    """Of MONAI, for images of different contrast, as the page says it."""
    values, forward = [], GlobalMutualInformationLoss.forward

    def noted(self, pred, target):
        values.append(forward(self, pred, target))
        return values[-1]

    monkeypatch.setattr(GlobalMutualInformationLoss, "forward", noted)
    options = {"epochs": 1, "epoch_length": 1, "validation_interval": 1, "similarity_weight": 2.0}
    train(tmp_path, "experiments/unsupervised", similarity={"_target_": "monai.losses.GlobalMutualInformationLoss"}, **options)
    there, back = map(float, values)
    assert max(there, back) < 0
    assert curves(tmp_path)["step/registration/similarity"] == [pytest.approx(there + back)]
