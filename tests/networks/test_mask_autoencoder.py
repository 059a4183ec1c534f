from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tools.data.checks import DataError
from tools.networks.domain_norm import DomainBatchNorm, domain_parameters
from tools.networks.mask_autoencoder import MaskAutoencoder

DOMAINS = {"ankle": 3, "knee": 2}


def made(**options) -> MaskAutoencoder:
    torch.manual_seed(0)
    return MaskAutoencoder(DOMAINS, **{"channels": (4, 6, 5), "width": 3, **options})


@pytest.mark.parametrize("size", [(16, 24), (13, 18)])
@pytest.mark.parametrize(("domain", "classes"), DOMAINS.items())
def test_shapes(size, domain, classes):
    network, masks = made(), torch.rand(2, classes, *size)
    code = network.encode(masks, domain)
    assert code.shape == (2, 5, -(-size[0] // 8), -(-size[1] // 8))
    assert network(masks, domain).shape == masks.shape


def test_every_normalisation_is_domain_specific():
    network = made()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.trunk.children())
    network(torch.rand(2, 3, 16, 16), "ankle").sum().backward()
    norms = [module for module in network.modules() if isinstance(module, DomainBatchNorm)]
    assert norms
    assert all(norm.norms["ankle"].num_batches_tracked == 1 and norm.norms["knee"].num_batches_tracked == 0 for norm in norms)
    assert all(parameter.grad is None for parameter in domain_parameters(network, "knee"))
    assert all(parameter.grad is not None for parameter in domain_parameters(network, "ankle"))
    assert all(parameter.grad is not None for name, parameter in network.named_parameters() if "knee" not in name)


def test_learns_to_copy_masks():
    network = made(channels=(6, 8), width=4)
    labels = torch.zeros(2, 16, 16, dtype=torch.long)
    labels[0, 2:9, 3:12], labels[1, 6:14, 4:10] = 1, 1
    masks = F.one_hot(labels, 2).movedim(3, 1).float()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        loss = F.cross_entropy(network(masks, "knee"), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


@pytest.mark.parametrize("call", ["encode", "forward", "decode"])
def test_unknown_domain(call):
    with pytest.raises(DataError, match=r"unknown domain 'hip', known are \['ankle', 'knee'\]"):
        getattr(made(), call)(torch.rand(1, 2, 8, 8), "hip")


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 3, 8, 8, 8)])
def test_shape_of_the_masks(shape):
    with pytest.raises(ValueError, match=r"masks of domain 'ankle' must be \(B, 3, H, W\)"):
        made().encode(torch.rand(shape), "ankle")


def test_too_few_classes():
    with pytest.raises(DataError, match="domain 'hip' needs at least two classes"):
        MaskAutoencoder({**DOMAINS, "hip": 1})


def test_channels_that_are_no_list():
    with pytest.raises(DataError, match="prior_channels must be a list of positive whole numbers, one a level, not 16"):
        MaskAutoencoder(DOMAINS, channels=16)
