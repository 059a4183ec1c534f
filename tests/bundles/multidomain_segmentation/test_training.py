"""One step: what learns, from what, and what stays as it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from multidomain_segmentation.losses import MultiDomainLoss
from multidomain_segmentation.networks import learning_parameters, network_from_plan, prior_from_plan
from multidomain_segmentation.sampling import UNLABELLED
from multidomain_segmentation.stages import Schedule
from multidomain_segmentation.training import MultiDomainUpdate
from tools.bundle.steps import name_seed, seeded_generator
from tools.data.augmentation import Augmentation
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan, SlicePlan

PLAN = DomainPlan(
    domains={name: SlicePlan(labels={0: "background", 1: "bone"}) for name in ("ankle", "hip", "knee")},
    extra={"network": {"channels": [4, 4], "embedding": 4}, "prior": {"channels": [4, 4], "width": 3}},
)
STAGES = [{"name": "p", "share": 0.5, "network": "prior"}, {"name": "n", "share": 0.5}]


def update(stages=STAGES, new_domains=(), weight: float = 0.1, **options) -> MultiDomainUpdate:
    torch.manual_seed(0)
    network, prior = network_from_plan(PLAN), prior_from_plan(PLAN)
    optimizers = [torch.optim.SGD(learning_parameters(network, new_domains), 0.1), torch.optim.SGD(prior.parameters(), 0.1)]
    schedule, loss = Schedule(stages, 10, prior=weight > 0, warmup=0.0), MultiDomainLoss(prior, prior_weight=weight)
    return MultiDomainUpdate(network, prior, *optimizers, schedule, PLAN, loss, precision="float32", new_domains=new_domains, **options)


def batch(domains: list[int]) -> dict[str, torch.Tensor]:
    image = torch.rand(len(domains), 1, 16, 16, generator=torch.Generator().manual_seed(3))
    return {"image": image, "label": (image[:, 0] > 0.5).long(), "domain": torch.tensor(domains)}


def step(made: MultiDomainUpdate, data: dict[str, torch.Tensor], number: int) -> dict[str, float]:
    state = SimpleNamespace(iteration=number, device=torch.device("cpu"))
    return made(SimpleNamespace(state=state), {key: value.clone() for key, value in data.items()})


def changed(made: MultiDomainUpdate, data: dict[str, torch.Tensor], number: int) -> tuple[set[str], set[str], dict[str, float]]:
    before = [{key: value.clone() for key, value in made.networks[name].state_dict().items()} for name in ("network", "prior")]
    parts = step(made, data, number)
    after = [made.networks[name].state_dict() for name in ("network", "prior")]
    return *({key for key in a if not torch.equal(a[key], b[key])} for a, b in zip(before, after)), parts


def test_the_prior_learns_first_and_alone():
    network, prior, parts = changed(update(), batch([0, 0, 2, 2]), 1)
    assert not network
    assert any(key.startswith("trunk") for key in prior)
    assert set(parts) == {"loss", "prior/ankle", "prior/knee"}
    assert parts["loss"] == pytest.approx((parts["prior/ankle"] + parts["prior/knee"]) / 2, rel=1e-5)


def test_then_the_network_with_the_prior_frozen():
    network, prior, parts = changed(update(), batch([0, 0, 2, 2]), 6)
    assert not prior
    assert {"head.convs.ankle.weight", "head.convs.knee.weight"} <= network
    assert not any(".hip." in key for key in network)
    assert parts["loss"] == pytest.approx(sum(parts[f"network/{name}"] for name in ("segmentation", "contrastive", "prior")), rel=1e-5)
    assert parts["network/segmentation"] == pytest.approx((parts["network/ankle"] + parts["network/knee"]) / 2, rel=1e-5)


def test_only_a_new_domains_norms_and_head_learn():
    made = update(stages=STAGES[1:], new_domains=("knee",), weight=0.0)
    network, prior, _ = changed(made, batch([2, 2]), 1)
    assert not prior
    assert network
    assert all(".knee." in key for key in network)
    assert any("running_mean" in key for key in network)
    assert "head.convs.knee.weight" in network


def test_a_prior_that_nothing_trains():
    with pytest.raises(DataError, match="prior_weight needs a stage that trains the prior before the network"):
        update(stages=STAGES[1:])
    update(stages=STAGES[1:], finetune="true")


@pytest.mark.parametrize(("domains", "warnings"), [([0, 1], 1), ([2], 1), ([0, 0, 1, 1], 0)])
def test_steps_without_a_pair_of_one_domain_are_warned_of_once(domains, warnings, caplog):
    made = update()
    for number in (1, 6, 7):  # the prior's, and two of the network's
        step(made, batch(domains), number)
    assert sum("the contrastive term is 0: raise --slices_per_domain" in record.message for record in caplog.records) == warnings


def test_augmentation_depends_on_seed_step_and_domain_alone():
    made, other = (update(augmentation=Augmentation(), seed=seed) for seed in (4, 5))
    together, alone = batch([0, 0, 2, 2]), {key: value[2:] for key, value in batch([0, 0, 2, 2]).items()}

    def prepared(one: MultiDomainUpdate, data: dict, number: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels, _ = one.prepare({key: value.clone() for key, value in data.items()}, torch.device("cpu"), number)
        return images[-2:], labels["knee"]

    images, labels = prepared(made, together)
    for again in (prepared(made, together), prepared(made, alone)):
        torch.testing.assert_close(again[0], images, rtol=0, atol=0)
        torch.testing.assert_close(again[1], labels, rtol=0, atol=0)
    assert not torch.equal(prepared(made, together, 4)[0], images)
    assert not torch.equal(prepared(other, together)[0], images)
    torch.testing.assert_close(labels.sum(1), torch.ones(2, 16, 16))


def test_the_prior_is_shown_softened_masks():
    masks = {"knee": F.one_hot(torch.randint(2, (6, 8, 8), generator=torch.Generator().manual_seed(1)), 2).movedim(-1, 1).float()}
    made = update(prior_softness=0.5)
    shown = made.soften(masks, 3)["knee"]
    torch.testing.assert_close(shown.sum(1), torch.ones(6, 8, 8))
    shares = 2 * shown.amin((1, 2, 3))  # of the uniform distribution over two classes
    assert len(set(shares.tolist())) == 6
    assert 0 < shares.min() < shares.max() < 0.5
    torch.testing.assert_close(shown, (1 - shares.view(-1, 1, 1, 1)) * masks["knee"] + shares.view(-1, 1, 1, 1) / 2)
    assert torch.equal(made.soften(masks, 3)["knee"], shown)
    assert not torch.equal(made.soften(masks, 4)["knee"], shown)


def test_the_prior_decodes_the_masks_as_they_are():
    made, data, asked = update(prior_softness=0.5), batch([2, 2]), {}

    def reconstruction(prior, labels, shown):
        asked.update(labels=labels["knee"], shown=shown["knee"])
        return MultiDomainLoss.reconstruction(made.loss, prior, labels, shown)

    made.loss.reconstruction = reconstruction
    step(made, data, 1)
    torch.testing.assert_close(asked["labels"], F.one_hot(data["label"], 2).movedim(-1, 1).float())
    assert 0 < asked["shown"].min() < asked["shown"].max() < 1


ANSWERS = [{"name": "a", "learn_from": "answers"}]


def answering(**options) -> MultiDomainUpdate:
    return update(ANSWERS, weight=0.0, finetune="true", **options)


def test_the_teacher_is_a_running_average_of_weights_and_statistics():
    made = answering(teacher_decay=0.75)
    states = []
    for number in (1, 2):
        step(made, batch([0, 0, 2, 2]), number)
        states.append({key: value.clone() for key, value in made.networks["network"].state_dict().items()})
    moved = 0
    for key, value in made.teacher.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * states[0][key] + 0.25 * states[1][key])
            moved += "running_mean" in key and not torch.equal(states[0][key], states[1][key])
    assert moved


def test_the_teacher_answers_for_missing_labels_before_images_are_deformed():
    augmentation = Augmentation(rotation=60.0, elastic=0.0)
    made = answering(augmentation=augmentation, seed=4)
    made.teacher.module.predict = lambda images, domain: torch.cat((torch.full_like(images, 0.3), images), dim=1)
    data = batch([0, 0, 2, 2])
    data["label"][[1, 3]] = UNLABELLED
    _, labels, _ = made.prepare({key: value.clone() for key, value in data.items()}, torch.device("cpu"), 3)
    undeformed = F.one_hot(torch.cat((data["label"][:1], (data["image"][1] > 0.3).long())), 2).movedim(-1, 1).float()
    expected = augmentation.deform(data["image"][:2], undeformed, seeded_generator(4, 3, name_seed("ankle"), 0))[1]
    torch.testing.assert_close(labels["ankle"], expected)
    assert not torch.equal(expected, undeformed)


def test_no_teacher_where_nothing_is_to_be_answered():
    assert update().teacher is None


def test_answers_of_a_network_that_has_learnt_nothing():
    with pytest.raises(DataError, match="the stage 'a' learns from the answers of a network that has learnt nothing yet"):
        update(ANSWERS, weight=0.0)
