from __future__ import annotations

import pytest
import torch
from torch import nn

from deepatlas.networks import registration_from_plan, registration_network, segmentation_from_plan, segmentation_network
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.networks.encoders import Conv3d

SIZES = {
    "pyramid": {"channels": (4, 6, 8), "fine_channels": (4,)},
    "dynunet": {"channels": (4, 6, 8, 8, 8)},
    "unet": {"channels": (4, 6, 8)},
}


@pytest.mark.parametrize("architecture", SIZES)
def test_logits_lie_on_the_grid_of_the_image(architecture):
    network = segmentation_network(3, architecture, **SIZES[architecture])
    assert network(torch.rand(2, 1, 16, 32, 48)).shape == (2, 3, 16, 32, 48)


@pytest.mark.parametrize("architecture", SIZES)
def test_every_parameter_learns(architecture):
    torch.manual_seed(0)
    network = segmentation_network(3, architecture, **SIZES[architecture])
    network(torch.rand(2, 1, 32, 32, 32)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_dynunet_begins_at_full_resolution():
    network = segmentation_network(2, "dynunet", channels=(4, 6, 8))
    seen = {}
    for name in ("input_block", "bottleneck"):
        getattr(network, name).register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: tuple(output.shape)}))
    network(torch.rand(1, 1, 16, 32, 16))
    assert seen == {"input_block": (1, 4, 16, 32, 16), "bottleneck": (1, 8, 4, 8, 4)}


@pytest.mark.parametrize("architecture", ["dynunet", "unet"])
def test_convolutions_of_a_librarys_network_are_safe_in_bf16(architecture):
    network = segmentation_network(2, architecture, **SIZES[architecture])
    found = {type(module) for module in network.modules() if isinstance(module, nn.Conv3d)}
    assert found == {Conv3d}


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="architecture must be 'pyramid', 'dynunet' or 'unet', not 'vnet'"):
        segmentation_network(2, "vnet")


@pytest.mark.parametrize("architecture", ["dynunet", "unet"])
def test_a_single_level_is_refused(architecture):
    with pytest.raises(ValueError, match=rf"--segmentation_channels \[8\]: a {architecture} has two levels or more"):
        segmentation_network(2, architecture, channels=[8])


@pytest.mark.parametrize(
    ("architecture", "levels", "fits"), [("pyramid", 4, True), ("pyramid", 5, False), ("dynunet", 5, True), ("dynunet", 6, False)]
)
def test_levels_that_the_grid_has_not(architecture, levels, fits):
    sizes = {"architecture": architecture, "channels": [8] * levels}
    plan = Plan(labels={0: "background", 1: "bone"}, size=(48, 32, 48), extra={"segmentation": sizes})
    if fits:
        segmentation_from_plan(plan)
        return
    with pytest.raises(DataError, match=rf"--segmentation_channels .*: {levels} levels are too many for the grid of \[48, 32, 48\] voxels"):
        segmentation_from_plan(plan)


@pytest.mark.parametrize("channels", [32, "32,64", [32, 0], [32, 64.0]])
def test_channels_that_are_no_list(channels):
    plan = Plan(labels={0: "background", 1: "bone"}, size=(32, 32, 32), extra={"registration": {"channels": channels}})
    with pytest.raises(DataError, match="--registration_channels must be a list of positive whole numbers, one a level"):
        registration_from_plan(plan)


@pytest.mark.parametrize("option", ["hidden", "fine_channels"])
def test_sizes_that_are_no_list(option):
    build = registration_network if option == "hidden" else segmentation_network
    kind = "registration" if option == "hidden" else "segmentation"
    with pytest.raises(DataError, match=f"--{kind}_{option} must be a list of positive whole numbers"):
        build(2, **{option: 8})


def test_a_grid_whose_deepest_level_is_one_voxel():
    plan = Plan(labels={0: "background", 1: "bone"}, size=(16, 16, 16), extra={"registration": {"channels": [8] * 4}})
    with pytest.raises(DataError, match="4 levels are too many"):
        registration_from_plan(plan)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="backbone must be 'conv' or 'swin', not 'resnet'"):
        segmentation_network(2, backbone="resnet")


def test_symmetric_plain_displacements_are_refused():
    with pytest.raises(DataError, match="--symmetric true needs --diffeomorphic true"):
        registration_network(2, diffeomorphic="false", symmetric="true")
