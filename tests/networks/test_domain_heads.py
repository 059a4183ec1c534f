from __future__ import annotations

import copy

import pytest
import torch

from tools.data.checks import DataError
from tools.networks.domain_heads import DomainHead, UnionHead
from tools.networks.domain_selector import DomainSelector

CLASSES = {"ankle": 3, "knee": 2, "hip": 4}


@pytest.fixture
def selector() -> DomainSelector:
    return DomainSelector(list(CLASSES))


@pytest.mark.parametrize("head", [DomainHead, UnionHead])
@pytest.mark.parametrize(
    ("domains", "rows"),
    [
        ([2, 0, 2, 0], {"ankle": [1, 3], "hip": [0, 2]}),
        ([0, 1, 1, 2], {"ankle": [0], "knee": [1, 2], "hip": [3]}),
        ([2, 2, 1, 1], {"knee": [2, 3], "hip": [0, 1]}),
    ],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_logits_by_domain(selector, head, domains, rows, dims):
    made, features = head(5, CLASSES, selector, dims), torch.rand(4, 5, *(6, 4, 3)[:dims])
    with selector.use(torch.tensor(domains)):
        answer = made(features)
    assert list(answer) == list(rows)
    for name, (found, logits) in answer.items():
        assert torch.arange(4)[found].tolist() == rows[name]
        assert logits.shape == (len(rows[name]), CLASSES[name], *features.shape[2:])
        with selector.use(name):
            torch.testing.assert_close(made(features[rows[name]])[name].logits, logits)


def test_each_domain_has_its_own_convolution(selector):
    head, features = DomainHead(5, CLASSES, selector), torch.rand(2, 5, 3, 3)
    with selector.use(["hip", "knee"]):
        answer = head(features)
    assert torch.equal(answer["hip"].logits, head.convs["hip"](features[:1]))
    answer["hip"].logits.sum().backward()
    assert head.convs["knee"].weight.grad is None


def test_blocks_of_the_union(selector):
    head = UnionHead(1, CLASSES, selector)
    assert head.conv.out_channels == 1 + 2 + 1 + 3
    with torch.no_grad():
        head.conv.weight.zero_()
        head.conv.bias.copy_(torch.arange(7))
    with selector.use(["ankle", "knee", "hip"]):
        answer = head(torch.rand(3, 1, 1, 1))
    assert {name: logits.flatten().tolist() for name, (_, logits) in answer.items()} == {
        "ankle": [0, 1, 2],
        "knee": [0, 3],
        "hip": [0, 4, 5, 6],
    }


@pytest.mark.parametrize(("source", "copied"), [("ankle", True), ("knee", False), (None, False)])
def test_adding_a_domain(selector, source, copied):
    head = DomainHead(5, CLASSES, selector).requires_grad_(False)
    before = copy.deepcopy(head.state_dict())
    selector.add("shoulder")
    head.add_domain("shoulder", 3, source)
    assert all(torch.equal(head.state_dict()[key], value) for key, value in before.items())
    assert torch.equal(head.convs["shoulder"].weight, head.convs["ankle"].weight) == copied
    assert all(parameter.requires_grad for parameter in head.convs["shoulder"].parameters())
    with selector.use("shoulder"):
        assert head(torch.rand(1, 5, 2, 2))["shoulder"].logits.shape == (1, 3, 2, 2)


@pytest.mark.parametrize("head", [DomainHead, UnionHead])
def test_classes_of_other_domains(selector, head):
    with pytest.raises(DataError, match=r"classes are given for \['ankle'\], but the domains are"):
        head(5, {"ankle": 3}, selector)


@pytest.mark.parametrize("head", [DomainHead, UnionHead])
def test_too_few_classes(selector, head):
    with pytest.raises(DataError, match="domain 'knee' needs at least two classes"):
        head(5, {**CLASSES, "knee": 1}, selector)


@pytest.mark.parametrize("head", [DomainHead, UnionHead])
def test_size_of_the_batch(selector, head):
    with selector.use(["knee"]), pytest.raises(ValueError, match="a batch of 2 samples, but the domains of 1"):
        head(5, CLASSES, selector)(torch.rand(2, 5, 1, 1))
