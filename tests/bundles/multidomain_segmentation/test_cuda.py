"""On a GPU the networks learn what they learn on the processor, by labels and by the running average's answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from multidomain_segmentation.losses import MultiDomainLoss
from multidomain_segmentation.networks import learning_parameters, network_from_plan, prior_from_plan
from multidomain_segmentation.sampling import UNLABELLED
from multidomain_segmentation.stages import Schedule
from multidomain_segmentation.training import MultiDomainUpdate
from tools.data.augmentation import Augmentation
from tools.data.domain_plan import DomainPlan, SlicePlan

pytestmark = pytest.mark.cuda

STAGES = [{"name": "p", "network": "prior"}, {"name": "n"}, {"name": "a", "learn_from": "answers"}]
STEPS = 18


def losses(device: str, precision: str, heads: bool) -> list[float]:
    """Of a training of six steps a stage; a loss or gradient that is not finite raises."""
    network_options = {"channels": [16, 32, 64], "embedding": 8, "deep_supervision": True, "domain_heads": heads, "domain_norms": heads}
    plan = DomainPlan(
        domains={name: SlicePlan(labels={0: "background", 1: "bone"}) for name in ("ankle", "knee")},
        extra={"network": network_options, "prior": {"channels": [4, 4], "width": 3}},
    )
    torch.manual_seed(0)
    network, prior = network_from_plan(plan).to(device), prior_from_plan(plan).to(device)
    optimizers = [torch.optim.AdamW(parameters, 1e-3) for parameters in (learning_parameters(network), prior.parameters())]
    loss = MultiDomainLoss(prior, prior_weight=0.1)
    made = MultiDomainUpdate(
        network, prior, *optimizers, Schedule(STAGES, STEPS), plan, loss, Augmentation(), precision=precision, teacher_decay=0.5
    )
    result = []
    for number in range(1, STEPS + 1):
        image = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(number))
        label = (image[:, 0] > 0.5).long()
        if number > 2 * STEPS // 3:
            label[[2, 3, 6, 7]] = UNLABELLED
        batch = {"image": image, "label": label, "domain": torch.tensor([0] * 4 + [1] * 4)}
        state = SimpleNamespace(iteration=number, device=torch.device(device))
        result.append(made(SimpleNamespace(state=state), batch)["loss"])
    return result


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.02), ("bf16", 0.1)])
def test_training(heads: bool, precision: str, tolerance: float):
    assert losses("cuda", precision, heads) == pytest.approx(losses("cpu", "float32", heads), rel=tolerance)
