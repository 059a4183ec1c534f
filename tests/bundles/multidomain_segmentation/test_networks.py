from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monai.data import MetaTensor

from multidomain_segmentation.losses import MultiDomainLoss, OverlapLoss
from multidomain_segmentation.networks import DomainNetwork, learning_parameters, network_from_plan, prior_from_plan
from multidomain_segmentation.union import union_channels, union_names
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan, SlicePlan
from tools.data.slices import crop
from tools.losses import MultiscaleContrastiveLoss
from tools.networks.domain_heads import DomainLogits
from tools.networks.multidomain_unet import MultiDomainOutput

PLAN = DomainPlan(
    domains={
        "ankle": SlicePlan(labels={0: "background", 2: "tibia", 5: "talus"}),
        "knee": SlicePlan(labels={0: "nothing", 1: "femur", 3: "tibia"}),
    },
    patch_size=(16, 16),
    extra={
        "network": {"channels": [4, 6, 8], "embedding": 5, "domain_norms": "true", "domain_heads": True},
        "prior": {"channels": [4, 4], "width": 3},
    },
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return network_from_plan(PLAN).eval()


def test_sizes_come_from_the_plan(network):
    assert network.encoder.channels == (4, 6, 8)
    assert network.selector.names == ("ankle", "knee")
    assert {name: layer.out_channels for name, layer in prior_from_plan(PLAN).last.items()} == {"ankle": 3, "knee": 3}


def test_the_union_merges_names():
    assert union_names(PLAN) == ("background", "tibia", "talus", "femur")
    assert union_channels(PLAN, "ankle") == (0, 1, 2)
    assert union_channels(PLAN, "knee") == (0, 3, 1)


def test_a_volume_is_answered_slice_by_slice(network):
    volume, answering = torch.rand(2, 1, 5, 16, 24), DomainNetwork(network, PLAN, slices=3)
    with torch.no_grad():
        answer = answering(volume, domain="knee")
        expected = torch.stack([network.predict(volume[:, :, k], "knee") for k in range(5)], dim=2)
    assert answer.shape == (2, 3, 5, 16, 24)
    torch.testing.assert_close(answer, expected)


def test_without_a_domain_the_answer_is_over_the_union(network):
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        answer, own = DomainNetwork(network, PLAN, "knee")(images), network.predict(images, "knee")
    assert answer.shape == (2, 4, 16, 16)
    torch.testing.assert_close(answer[:, [0, 3, 1]], own)
    assert (answer.softmax(1)[:, 2] == 0).all()


@pytest.mark.parametrize(("noted", "expected"), [("knee", "knee"), (["knee"], "knee"), (None, "ankle")])
def test_the_domain_may_be_noted_in_the_image(network, noted, expected):
    image = MetaTensor(torch.rand(1, 1, 16, 16), meta={"domain": noted} if noted else {})
    with torch.no_grad():
        answer = DomainNetwork(network, PLAN)(image)
        own = network.predict(image.as_tensor(), expected)
    torch.testing.assert_close(answer[:, list(union_channels(PLAN, expected))], own)


def test_small_slices_are_padded_like_the_crops_of_training(network):
    plan = replace(PLAN, patch_size=(32, 48))
    slices = torch.rand(2, 1, 21, 48)
    window = torch.stack([crop(slice_[0], (21 - 32) // 2, 0, (32, 48))[None] for slice_ in slices])
    expected = network.predict(window, "knee")[..., 6:27, :]
    assert torch.equal(DomainNetwork(network, plan)(slices, domain="knee"), expected)
    assert not torch.equal(network.predict(slices, "knee"), expected)


def test_large_slices_are_answered_as_they_are(network):
    slices = torch.rand(2, 1, 40, 48)
    answer = DomainNetwork(network, replace(PLAN, patch_size=(32, 48)))(slices, domain="knee")
    assert torch.equal(answer, network.predict(slices, "knee"))


def test_its_state_is_that_of_the_network(network):
    made = DomainNetwork(network_from_plan(PLAN), PLAN)
    made.load_state_dict(network.state_dict())
    assert made.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in made.state_dict().items())


def test_unknown_domain(network):
    with pytest.raises(DataError, match="unknown domain 'kneee', the nearest is 'knee'"):
        DomainNetwork(network, PLAN, "kneee")


def test_parameters_of_one_domain(network):
    own = {id(parameter) for parameter in learning_parameters(network, ["knee"])}
    named = {name for name, parameter in network.named_parameters() if id(parameter) in own}
    assert named
    assert all(".knee." in name for name in named)
    assert len(list(learning_parameters(network))) == len(list(network.parameters()))


def test_overlap_by_hand():
    """Two of four pixels are the structure; the prediction is undecided everywhere."""
    labels = torch.tensor([[0.0, 0, 1, 1]]).view(1, 1, 2, 2)
    labels = torch.cat((1 - labels, labels), 1)
    loss = OverlapLoss(2.0)(torch.zeros(1, 2, 2, 2), labels)
    assert float(loss) == pytest.approx(1 - 2 * 1 / (2 + 2) + 2 * 0.693147, abs=1e-4)


def test_coarser_scales_by_hand():
    """Half of the pixels are the structure. The finest scale is undecided; the coarsest, one pixel of which is half structure, says 3/4."""
    labels = torch.tensor([[0.0, 0, 1, 1]]).view(1, 1, 2, 2)
    finest = DomainLogits(slice(0, 1), torch.zeros(1, 2, 2, 2))
    coarse = DomainLogits(slice(0, 1), torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1))
    output = MultiDomainOutput({"ankle": finest}, [], [{"ankle": coarse}])
    parts = MultiDomainLoss(None, 0.0, 0.0)(output, {"ankle": torch.cat((1 - labels, labels), 1)}, torch.tensor([0]))
    fine_loss = (1 - 2 * 1 / (2 + 2)) + 0.693147
    coarse_loss = (1 - 2 * 0.375 / (0.75 + 0.5)) + 0.836988  # -(ln 1/4 + ln 3/4) / 2
    assert float(parts.segmentation) == pytest.approx((fine_loss + coarse_loss / 2) / 1.5, abs=1e-4)


@pytest.mark.parametrize(("weighting", "ankle", "value"), [("equal", 0.5, 0.699254), ("loss", 0.853157, 1.048098)])
def test_weighting_of_domains_by_hand(weighting, ankle, value):
    """Half of the pixels are the structure; undecided: 1/2 + ln 2 = 1.193147; sure to 0.9: 0.1 - ln 0.9 = 0.205361."""
    labels = torch.tensor([[0.0, 0, 1, 1]]).view(1, 1, 2, 2)
    labels = torch.cat((1 - labels, labels), 1)
    undecided, sure = torch.zeros(1, 2, 2, 2, requires_grad=True), (0.1 + 0.8 * labels).log()
    output = MultiDomainOutput({"ankle": DomainLogits(slice(0, 1), undecided), "knee": DomainLogits(slice(1, 2), sure)}, [], [])
    loss = MultiDomainLoss(None, 0.0, 0.0, domain_weighting=weighting)
    parts = loss(output, {"ankle": labels, "knee": labels}, torch.tensor([0, 1]))
    assert float(parts.segmentation) == pytest.approx(value, abs=1e-4)
    (found,), (own,) = (torch.autograd.grad(part, undecided, retain_graph=True) for part in (parts.loss, parts.domains["ankle"]))
    torch.testing.assert_close(found, ankle * own, rtol=1e-4, atol=0)


def batch() -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    labels = {name: torch.nn.functional.one_hot(torch.randint(3, (2, 16, 16)), 3).movedim(-1, 1).float() for name in PLAN.names}
    return torch.rand(4, 1, 16, 16), labels, torch.tensor([0, 0, 1, 1])


def test_the_loss_is_the_sum_of_its_weighted_parts(network):
    images, labels, domains = batch()
    loss = MultiDomainLoss(prior_from_plan(PLAN), contrastive_weight=0.3, prior_weight=0.5)
    output = network(images, domains)
    parts = loss(output, labels, domains)
    torch.testing.assert_close(parts.loss, parts.segmentation + parts.contrastive + parts.prior)
    torch.testing.assert_close(parts.segmentation, (parts.domains["ankle"] + parts.domains["knee"]) / 2)
    torch.testing.assert_close(parts.contrastive, 0.3 * MultiscaleContrastiveLoss()(output.embeddings, domains))
    assert float(parts.prior) > 0


def test_parts_can_be_switched_off(network):
    images, labels, domains = batch()
    parts = MultiDomainLoss(None, 0.0, 0.0)(network(images, domains), labels, domains)
    assert (float(parts.contrastive), float(parts.prior)) == (0, 0)
    torch.testing.assert_close(parts.loss, parts.segmentation)


def test_a_prior_is_needed():
    with pytest.raises(ValueError, match="prior_weight needs a prior"):
        MultiDomainLoss(None, prior_weight=0.1)


def test_an_unknown_weighting():
    with pytest.raises(DataError, match="domain_weighting must be one of equal, loss, not 'focal'"):
        MultiDomainLoss(None, 0.0, 0.0, domain_weighting="focal")
