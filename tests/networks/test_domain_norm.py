from __future__ import annotations

import copy
import io

import pytest
import torch
from monai.networks.nets import BasicUNet
from monai.networks.nets.resnet import ResNetFeatures
from torch import nn

from tools.data.checks import DataError
from tools.networks.domain_norm import DomainBatchNorm, add_domain_norms, convert_domain_norms, domain_parameters
from tools.networks.domain_selector import DomainSelector

NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
NAMES = ("ankle", "knee", "hip")


def source(dims: int = 2, channels: int = 3, **options) -> nn.Module:
    """A batch normalisation that looks pre-trained."""
    norm = NORMS[dims](channels, **options)
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if tensor is not None:
            nn.init.uniform_(tensor, 0.5, 2)
    return norm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("domains", [(2, 0, 1, 0, 2, 2), (0, 0, 1, 1, 2, 2), (1, 1, 1, 1, 1, 1), (0, 2, 2, 0, 0, 0), (2, 2, 2, 0, 0, 0)])
def test_exact_against_separate_layers(dims, training, options, domains):
    torch.manual_seed(0)
    norm = source(dims, **options).train(training)
    selector = DomainSelector(NAMES)
    layer, separate = DomainBatchNorm(norm, selector), [copy.deepcopy(norm) for _ in NAMES]
    domains = torch.tensor(domains)
    inputs = [torch.randn(6, 3, *(4, 5, 2)[:dims], requires_grad=True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    weights = torch.randn_like(inputs[0])
    for _ in range(2):
        with selector.use(domains):
            answer = layer(inputs[0])
        expected = torch.zeros_like(answer)
        for k in domains.unique():
            expected[domains == k] = separate[k](inputs[1][domains == k])
        assert torch.equal(answer, expected)
        (answer * weights).sum().backward()
        (expected * weights).sum().backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    for name, one in zip(NAMES, separate):
        mine = layer.norms[name]
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), one.state_dict().values()))
        for a, b in zip(mine.parameters(), one.parameters()):
            assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


def test_a_domain_with_a_single_sample_learns_from_its_voxels():
    selector = DomainSelector(NAMES)
    layer, image = DomainBatchNorm(nn.BatchNorm2d(1), selector), torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    with selector.use("knee"):
        assert layer(image).flatten().tolist() == pytest.approx([-1, 1], abs=1e-4)
    assert layer.norms["knee"].running_mean.item() == pytest.approx(0.1 * 2)


def test_a_single_value_is_normalised_by_the_running_statistics():
    selector, norm = DomainSelector(NAMES), nn.BatchNorm2d(1)
    norm.running_mean.fill_(1)
    norm.running_var.fill_(4)
    layer = DomainBatchNorm(norm, selector)
    with selector.use(["knee", "hip", "ankle"]):
        answer = layer(torch.tensor([2.0, 5.0, 4.0]).reshape(3, 1, 1, 1)).flatten()
    assert answer.tolist() == pytest.approx([0.5, 2, 1.5], abs=1e-4)
    assert layer.norms["hip"].running_mean.item() == 1


def resnet() -> nn.Module:
    return ResNetFeatures("resnet10", pretrained=False, spatial_dims=2, in_channels=1)


def unet() -> nn.Module:
    return BasicUNet(2, 1, 2, features=(2, 2, 2, 2, 2, 2), norm="batch")


def nested() -> nn.Module:
    inner = nn.ModuleDict({"block": nn.ModuleList([nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())])})
    return nn.Sequential(inner["block"][0], nn.BatchNorm2d(2))


@pytest.mark.parametrize("make", [resnet, unet, nested])
def test_a_converted_network_answers_like_the_original_in_every_domain(make):
    torch.manual_seed(0)
    network, images = make(), torch.rand(4, 1, 32, 32)
    network(images)
    original = copy.deepcopy(network).eval()
    selector = convert_domain_norms(network.eval(), NAMES)
    assert sum(isinstance(module, DomainBatchNorm) for module in network.modules()) == sum(
        isinstance(module, nn.BatchNorm2d) for module in original.modules()
    )
    with selector.use(["hip", "ankle", "knee", "hip"]), torch.no_grad():
        for answer, expected in zip(network(images), original(images)):
            torch.testing.assert_close(answer, expected)


def test_a_norm_used_twice_stays_one():
    norm = nn.BatchNorm2d(1)
    network = nn.Sequential(norm, nn.Sequential(norm))
    convert_domain_norms(network, NAMES)
    assert network[0] is network[1][0]


def test_copies_and_state_dictionaries_hold_nothing_of_a_batch():
    network = nested()
    selector = convert_domain_norms(network, NAMES)
    images = torch.rand(2, 1, 8, 8)
    with selector.use(torch.tensor([0, 2])):
        network(images)
        twin = copy.deepcopy(network)
        stored = io.BytesIO()
        torch.save(network.state_dict(), stored)
    assert "1.norms.knee.running_mean" in network.state_dict()
    assert twin[1].selector is twin[0][1].selector
    assert twin[1].selector is not selector
    with pytest.raises(RuntimeError, match="with selector.use"):
        twin(images)
    other = nested()
    convert_domain_norms(other, NAMES)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values()))


def test_weights_of_other_domains_are_refused():
    first, second = nested(), nested()
    convert_domain_norms(first, NAMES)
    convert_domain_norms(second, ("ankle", "knee", "shoulder"))
    with pytest.raises(
        DataError, match=r"weights of the domains \['ankle', 'hip', 'knee'\], but the network's are \['ankle', 'knee', 'shou"
    ):
        second.load_state_dict(first.state_dict())


@pytest.mark.parametrize(("source_name", "mean"), [("knee", 4.0), (None, 3.0)])
def test_adding_a_domain(source_name, mean):
    network = nested()
    selector = convert_domain_norms(network, NAMES)
    for value, name in zip((2.0, 4.0, 3.0), NAMES):
        network[1].norms[name].running_mean.fill_(value)
        network[1].norms[name].num_batches_tracked.fill_(int(value))
    network.requires_grad_(False)
    before = dict(network.named_parameters())
    state = copy.deepcopy(network.state_dict())
    add_domain_norms(network, selector, "shoulder", source_name)
    assert selector.names == (*NAMES, "shoulder")
    added = network[1].norms["shoulder"]
    assert added.running_mean.tolist() == [mean, mean]
    assert added.num_batches_tracked.dtype == torch.long
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())
    assert all(dict(network.named_parameters())[name] is parameter for name, parameter in before.items())
    assert [parameter.requires_grad for parameter in domain_parameters(network, "shoulder")] == [True] * 4
    with selector.use("shoulder"):
        network(torch.rand(1, 1, 8, 8))
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


def test_a_domain_can_be_added_once():
    network = nested()
    selector = convert_domain_norms(network, NAMES)
    with pytest.raises(DataError, match="two domains are named 'knee'"):
        add_domain_norms(network, selector, "knee")


def test_an_unknown_source_changes_nothing():
    network = nested()
    selector = convert_domain_norms(network, NAMES)
    with pytest.raises(DataError, match=r"unknown domain 'spine', known are \['ankle', 'hip', 'knee'\]"):
        add_domain_norms(network, selector, "shoulder", "spine")
    assert selector.names == NAMES


@pytest.mark.parametrize("domains", ["spine", ["ankle", "spine"]])
def test_an_unknown_domain_names_the_known(domains):
    with (
        pytest.raises(DataError, match=r"unknown domain 'spine', known are \['ankle', 'hip', 'knee'\]"),
        DomainSelector(NAMES).use(domains),
    ):
        pass


@pytest.mark.parametrize("index", [3, -1])
def test_an_unknown_index_names_the_known(index):
    with pytest.raises(DataError, match=f"unknown domain {index}, known are 0 to 2"), DomainSelector(NAMES).use(torch.tensor([0, index])):
        pass


@pytest.mark.parametrize("names", [[], ["knee", "knee"], [""], ["T1.5"], ["keys"], [3]])
def test_unfit_names(names):
    with pytest.raises(DataError, match="domain"):
        DomainSelector(names)


@pytest.mark.parametrize("domains", [torch.zeros(2), torch.zeros(2, 1, dtype=torch.long), [], torch.zeros(0, dtype=torch.long)])
def test_unfit_domains_of_a_batch(domains):
    with pytest.raises(ValueError, match="domains must be a LongTensor|the batch is empty"), DomainSelector(NAMES).use(domains):
        pass


def test_the_batch_must_have_as_many_samples_as_domains():
    selector = DomainSelector(NAMES)
    with selector.use([*NAMES]), pytest.raises(ValueError, match="a batch of 2 samples, but the domains of 3"):
        DomainBatchNorm(nn.BatchNorm2d(1), selector)(torch.rand(2, 1, 4, 4))


def test_use_may_be_nested():
    selector = DomainSelector(NAMES)
    with selector.use("knee"):
        with selector.use("hip"):
            assert [group.name for group in selector.groups] == ["hip"]
        assert [group.name for group in selector.groups] == ["knee"]


def test_nothing_to_convert():
    with pytest.raises(ValueError, match="holds no batch normalisation"):
        convert_domain_norms(nn.Sequential(nn.Conv2d(1, 1, 1)), NAMES)


def test_converted_already():
    network = nested()
    convert_domain_norms(network, NAMES)
    with pytest.raises(ValueError, match="domain-specific already"):
        convert_domain_norms(network, NAMES)


def test_no_parameters_of_its_own():
    with pytest.raises(DataError, match="nothing of its own for domain 'knee'"):
        domain_parameters(nn.Conv2d(1, 1, 1), "knee")


def test_half_precision():
    selector = DomainSelector(NAMES)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    convert_domain_norms(network, selector)
    images = torch.rand(4, 1, 8, 8)
    with selector.use(torch.tensor([0, 1, 0, 1])):
        expected = network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer = network(images)
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.float(), expected, atol=0.1, rtol=0.05)
