from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tools.data.checks import DataError
from tools.networks.domain_norm import DomainBatchNorm, domain_parameters
from tools.networks.multidomain_unet import MultiDomainSegmentation

DOMAINS = {"ankle": 3, "knee": 2, "hip": 4}
SMALL = {"channels": (4, 6, 8), "embedding": 5}


def network(**options) -> MultiDomainSegmentation:
    torch.manual_seed(0)
    return MultiDomainSegmentation(DOMAINS, **{**SMALL, **options})


def values(*shape: int) -> torch.Tensor:
    """Random along the last axis only: a file of it stays small."""
    return torch.rand(shape[-1]).expand(shape)


@pytest.fixture(scope="module")
def torchvision_weights(tmp_path_factory) -> Path:
    """A resnet18 checkpoint with the names and shapes of torchvision's, made by hand."""
    torch.manual_seed(0)
    state = {"conv1.weight": values(64, 3, 7, 7)}

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{key}"] = values(channels)

    norm("bn1", 64)
    for level, planes in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            before = planes if block or level == 1 else planes // 2
            prefix = f"layer{level}.{block}"
            state[f"{prefix}.conv1.weight"] = values(planes, before, 3, 3)
            state[f"{prefix}.conv2.weight"] = values(planes, planes, 3, 3)
            norm(f"{prefix}.bn1", planes)
            norm(f"{prefix}.bn2", planes)
            if before != planes:
                state[f"{prefix}.downsample.0.weight"] = values(planes, before, 1, 1)
                norm(f"{prefix}.downsample.1", planes)
    state["fc.weight"], state["fc.bias"] = values(1000, 512), values(1000)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skips": "attention"},
        {"domain_norms": False},
        {"domain_heads": False},
        {"domain_norms": False, "domain_heads": False, "skips": "attention"},
        {"decoder_channels": (7, 3)},
        {"encoder": "resnet10"},
        {"encoder": "resnet10", "skips": "attention", "decoder_channels": (16, 8, 8, 4, 4)},
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (37, 26)])
def test_shapes(options, size):
    made, images = network(**options), torch.rand(5, 1, *size)
    logits, embeddings, _ = made(images, torch.tensor([2, 0, 2, 0, 0]))
    assert {name: (torch.arange(5)[rows].tolist(), logits.shape) for name, (rows, logits) in logits.items()} == {
        "ankle": ([1, 3, 4], (3, 3, *size)),
        "hip": ([0, 2], (2, 4, *size)),
    }
    assert [tuple(z.shape) for z in embeddings] == [(5, 5)] * len(made.encoder.channels)


@pytest.mark.parametrize("options", [{}, {"domain_heads": False}, {"skips": "attention"}])
def test_a_mixed_batch_equals_one_domain_at_a_time(options):
    made, images = network(**options).train(), torch.rand(6, 1, 16, 16)
    domains = torch.tensor([1, 0, 2, 1, 0, 2])
    apart = copy.deepcopy(made)
    logits, embeddings, _ = made(images, domains)
    for k, name in enumerate(DOMAINS):
        rows = domains == k
        alone = apart(images[rows], name)
        torch.testing.assert_close(logits[name].logits, alone.logits[name].logits)
        for z, expected in zip(embeddings, alone.embeddings):
            torch.testing.assert_close(z[rows], expected)
    torch.testing.assert_close(made.state_dict(), apart.state_dict())


@pytest.mark.parametrize("options", [{}, {"domain_heads": False}, {"encoder": "resnet10"}])
def test_deep_supervision_answers_at_every_scale(options):
    made = network(deep_supervision=True, **options)
    _, _, coarse = made(torch.rand(3, 1, 32, 26), torch.tensor([1, 0, 1]))
    assert len(coarse) == len(made.decoder)
    for i, scale in enumerate(coarse, 1):
        rows, columns = 32 // 2**i, -(-26 // 2**i)
        assert {name: part.logits.shape for name, part in scale.items()} == {"ankle": (1, 3, rows, columns), "knee": (2, 2, rows, columns)}


def test_deep_supervision_leaves_the_finest_answer_as_it_is():
    made, plain = network(deep_supervision=True).eval(), network().eval()
    plain.load_state_dict({key: value for key, value in made.state_dict().items() if not key.startswith("coarse_heads.")})
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(made.predict(images, "hip"), plain.predict(images, "hip"))
    assert torch.equal(made(images, "hip").logits["hip"].logits, plain.predict(images, "hip"))


def test_one_domain():
    made, images = network().eval(), torch.rand(2, 1, 16, 16)
    answer = made(images, "knee")
    assert torch.equal(made.predict(images, "knee"), answer.logits["knee"].logits)
    assert torch.equal(made(images, ["knee", "knee"]).logits["knee"].logits, answer.logits["knee"].logits)


def test_without_domain_norms_and_heads_only_the_channels_depend_on_the_domain():
    made, images = network(domain_norms=False, domain_heads=False).eval(), torch.rand(1, 1, 16, 16)
    assert not any(isinstance(module, DomainBatchNorm) for module in made.modules())
    assert torch.equal(made.predict(images, "ankle")[:, 0], made.predict(images, "hip")[:, 0])
    assert all(torch.equal(a, b) for a, b in zip(made(images, "ankle").embeddings, made(images, "hip").embeddings))


def test_every_parameter_of_the_domains_present_learns():
    made = network(skips="attention", deep_supervision=True)
    logits, embeddings, coarse = made(torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 0, 1]))
    (
        sum(part.logits.square().sum() for scale in (logits, *coarse) for part in scale.values())
        + sum((z * torch.rand_like(z)).sum() for z in embeddings)
    ).backward()
    own = {id(parameter) for parameter in domain_parameters(made, "hip")}
    assert all((parameter.grad is None) == (id(parameter) in own) for parameter in made.parameters())


def test_imagenet_weights(torchvision_weights):
    made = network(encoder="resnet18", weights=torchvision_weights)
    state = torch.load(torchvision_weights, weights_only=True)
    encoder = made.encoder
    torch.testing.assert_close(encoder.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(encoder.layer2[0].downsample[0].weight, state["layer2.0.downsample.0.weight"])
    for name in DOMAINS:
        assert torch.equal(encoder.bn1.norms[name].running_var, state["bn1.running_var"])
        assert torch.equal(encoder.layer4[1].bn2.norms[name].weight, state["layer4.1.bn2.weight"])
    grey = torch.rand(1, 1, 16, 16)
    colour = nn.functional.conv2d(grey.expand(1, 3, 16, 16), state["conv1.weight"], stride=2, padding=3)
    torch.testing.assert_close(encoder.conv1(grey), colour, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("layer3.0.bn1.weight"), "no tensor 'layer3.0.bn1.weight'"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), r"tensor 'bn1.bias' \(3,\) does not fit"),
        (lambda state: state.update({"layer1.0.conv3.weight": torch.zeros(1)}), "tensor 'layer1.0.conv3.weight'"),
        (lambda state: state.update({"epoch": 3}), "not a state dictionary of tensors"),
    ],
)
def test_unfit_weights(torchvision_weights, tmp_path, change, fault):
    state = torch.load(torchvision_weights, weights_only=True)
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(DataError, match=rf"other\.pth: .*{fault}"):
        network(encoder="resnet18", weights=tmp_path / "other.pth")


def test_unreadable_weights(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"broken\.pth: not readable as weights"):
        network(encoder="resnet10", weights=tmp_path / "broken.pth")


def test_missing_weights(tmp_path):
    with pytest.raises(DataError, match=r"none\.pth: no such weights"):
        network(encoder="resnet10", weights=tmp_path / "none.pth")


@pytest.mark.parametrize("source", [None, "ankle"])
@pytest.mark.parametrize("options", [{}, {"deep_supervision": True}])
def test_a_new_domain_trains_without_touching_the_others(source, options):
    made, images = network(**options), torch.rand(4, 1, 16, 16)
    made(images, "ankle")
    made.eval()
    before = {name: made.predict(images, name) for name in DOMAINS}
    made.add_domain("shoulder", 3, source)
    if source:
        assert torch.equal(made.predict(images, "shoulder"), before[source])
    optimiser = torch.optim.AdamW(domain_parameters(made, "shoulder"), 1e-2)
    made.train()
    made(images, "shoulder").logits["shoulder"].logits.square().mean().backward()
    optimiser.step()
    made.eval()
    assert all(torch.equal(made.predict(images, name), value) for name, value in before.items())
    again = MultiDomainSegmentation({**DOMAINS, "shoulder": 3}, **SMALL, **options).eval()
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.predict(images, "shoulder"), made.predict(images, "shoulder"))


def test_distributed_with_an_absent_domain(tmp_path):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        made = network()
        parallel = DistributedDataParallel(made, find_unused_parameters=True)
        for domains in ([0, 2], [1, 1], [0, 2]):
            logits, embeddings, _ = parallel(torch.rand(2, 1, 16, 16), torch.tensor(domains))
            (sum(part.logits.square().sum() for part in logits.values()) + sum(z.sum() for z in embeddings)).backward()
        assert all(parameter.grad.isfinite().all() for parameter in made.parameters())
    finally:
        dist.destroy_process_group()


def test_half_precision():
    made, images = network(), torch.rand(4, 1, 16, 16)
    domains = torch.tensor([0, 1, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, embeddings, _ = made(images, domains)
        sum(part.logits.float().square().mean() for part in logits.values()).backward()
    assert all(z.dtype == torch.float32 for z in embeddings)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in made.parameters())


def test_unknown_domain():
    with pytest.raises(DataError, match=r"unknown domain 'spine', known are \['ankle', 'hip', 'knee'\]"):
        network()(torch.rand(1, 1, 16, 16), "spine")


def test_number_of_domains():
    with pytest.raises(ValueError, match="a batch of 2 samples, but the domains of 3"):
        network()(torch.rand(2, 1, 16, 16), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"encoder": "vgg"}, "encoder must be 'plain' or one of"),
        ({"weights": "some.pth"}, "weights are for a ResNet encoder"),
        ({"skips": "none"}, "skips must be 'plain' or 'attention'"),
        ({"embedding": -3}, "embedding must be a whole number from 0 on, not -3"),
        ({"embedding": "64d"}, "embedding must be a whole number"),
        ({"channels": (4,)}, "at least two levels"),
        ({"channels": 32}, "channels must be a list of positive whole numbers, one a level, not 32"),
        ({"channels": "32,64"}, "channels must be a list of positive whole numbers"),
        ({"channels": (32, 0)}, "channels must be a list of positive whole numbers"),
        ({"decoder_channels": 32}, "decoder_channels must be a list of positive whole numbers"),
        ({"decoder_channels": (4,)}, "decoder_channels must have 2 levels"),
    ],
)
def test_options(options, fault):
    with pytest.raises(DataError, match=fault):
        network(**options)


def test_no_embeddings():
    made = network(embedding=0)
    assert made(torch.rand(1, 1, 16, 16), "knee").embeddings == []


def test_a_shared_head_takes_no_domain():
    with pytest.raises(DataError, match="only a network with a last layer for each domain"):
        network(domain_heads=False).add_domain("shoulder", 2)


def test_too_few_classes():
    with pytest.raises(DataError, match="domain 'knee' needs at least two classes"):
        MultiDomainSegmentation({"knee": 1}, **SMALL)
