from __future__ import annotations

import pytest
import torch

from tools.networks.encoders import ConvEncoder
from tools.networks.registration import FeaturePyramid
from tools.networks.segmentation import PyramidSegmentation
from tools.networks.shape_backbones import DeepSSMBackbone, PyramidBackbone
from tools.networks.shape_networks import ProgressiveShapeNetwork, ShapeNetwork, TLShapeNetwork

SIZE = (32, 32, 32)


def pyramid() -> PyramidBackbone:
    channels = (4, 4, 8, 8)
    return PyramidBackbone(PyramidSegmentation(FeaturePyramid(ConvEncoder(1, channels), channels), 3), SIZE, vector_channels=8, squeeze=4)


def base() -> DeepSSMBackbone:
    return DeepSSMBackbone(SIZE, 3, (2, 3, 4, 5, 6), hidden=8, vector_channels=7)


def shapes(cases: int = 6, points: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, points, 3, generator=generator) * 5 + torch.randn(cases, points, 3, generator=generator)


def progressive(backbone=None, **options) -> ProgressiveShapeNetwork:
    torch.manual_seed(0)
    options = {"scales": (4, 8, 12), "modes": (2, 3, 4), "refinements": [1, 1, 2], "hidden": 8} | options
    network = ProgressiveShapeNetwork(backbone or pyramid(), size=SIZE, spacing=(1.0, 1.5, 2.0), **options)
    network.fit(shapes())
    return network


@pytest.mark.parametrize("backbone", [pyramid, base])
def test_features_have_the_shapes_that_are_announced(backbone):
    made = backbone()
    features = made(torch.rand(2, 1, *SIZE))
    assert features.vector.shape == (2, made.vector_channels)
    assert sum(feature_map.shape[1] for feature_map in features.maps) == made.map_channels
    assert len(features.maps) == len(made.grids)
    assert [feature_map.shape[2] for feature_map in features.maps] == [32 // stride for stride, _ in made.grids]
    assert features.logits.shape == (2, 3, *SIZE)


def test_pyramid_logits_are_those_of_the_segmentation_network():
    backbone, image = pyramid().eval(), torch.rand(1, 1, *SIZE)
    torch.testing.assert_close(backbone(image).logits, backbone.segmentation(image))


@pytest.mark.parametrize("backbone", [pyramid, base])
def test_an_image_alone_is_segmented(backbone):
    assert progressive(backbone())(torch.rand(2, 1, *SIZE)).shape == (2, 3, *SIZE)


@pytest.mark.parametrize("backbone", [pyramid, base])
def test_points_of_all_scales(backbone):
    output = progressive(backbone()).shape(torch.rand(2, 1, *SIZE))
    assert [tuple(points.shape) for points in output.points] == [(2, 4, 3), (2, 8, 3), (2, 12, 3)]
    assert [len(steps) for steps in output.steps] == [2, 2, 3]
    assert output.uncertainty.shape == (2, 12)
    assert (output.uncertainty > 0).all()


def test_expected_errors_are_calibrated_in_answers_and_not_in_training():
    network, image = progressive(), torch.rand(1, 1, *SIZE)
    plain = network(image, scales=3).uncertainty
    network.calibration.copy_(torch.linspace(0.5, 2.0, 12))
    torch.testing.assert_close(network.shape(image).uncertainty, plain * torch.linspace(0.5, 2.0, 12))
    torch.testing.assert_close(network(image, scales=3).uncertainty, plain)


def test_only_the_scales_asked_for():
    output = progressive()(torch.rand(2, 1, *SIZE), scales=2)
    assert [points.shape[1] for points in output.points] == [4, 8]
    assert output.uncertainty.shape == (2, 8)


def test_the_first_scale_is_within_its_shape_model():
    network = progressive(refinements=0)
    output = network.shape(torch.rand(2, 1, *SIZE))
    decoder = network.decoders[0]
    offset = (output.points[0] - decoder.mean).flatten(1)
    modes = decoder.modes.flatten(1)
    torch.testing.assert_close(offset @ modes.T @ modes, offset, atol=1e-4, rtol=1e-4)


def test_later_scales_learn_from_the_last_loss_alone():
    network = progressive()
    network.shape(torch.rand(2, 1, *SIZE)).points[-1].square().mean().backward()
    for part in (network.heads[0], network.refiners[0], network.backbone.segmentation.features.encoder):
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_decoders_learn_only_when_they_are_not_frozen():
    network = progressive()
    for frozen in (True, False):
        network.freeze_decoders(frozen)
        network.shape(torch.rand(2, 1, *SIZE)).points[-1].square().mean().backward()
        assert all((decoder.weight.grad is None) is frozen for decoder in network.decoders)


def test_reconstruction_of_training_shapes_by_all_modes():
    network = progressive(scales=(12,), modes=(5,), refinements=0)
    torch.testing.assert_close(network.reconstruct(shapes()), shapes(), atol=1e-4, rtol=0)


def test_one_state_dictionary_restores_network_and_shape_model():
    network, other = progressive().eval(), ProgressiveShapeNetwork(pyramid(), (4, 8, 12), (2, 3, 4), SIZE, (1.0, 1.5, 2.0), [1, 1, 2], 8)
    assert network.fitted
    assert not other.fitted
    other.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, *SIZE)
    torch.testing.assert_close(other.eval().shape(image).points[-1], network.shape(image).points[-1])


def test_points_are_float32_in_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        output = progressive().shape(torch.rand(2, 1, *SIZE))
    assert output.points[-1].dtype == torch.float32


def test_scales_must_rise():
    with pytest.raises(ValueError, match="rise"):
        ShapeNetwork(pyramid(), (8, 4))


def test_modes_for_each_scale():
    with pytest.raises(ValueError, match="modes"):
        progressive(modes=(2, 3))


def test_refinements_for_each_scale():
    with pytest.raises(ValueError, match="refinements"):
        progressive(refinements=[1, 1])


def test_logits_lie_where_the_grids_say():
    backbone = base()
    backbone.head.forward = lambda quarter: torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 3, 8, 8, 8)
    step, begin = backbone.grids[1]
    logits = backbone(torch.rand(1, 1, *SIZE)).logits[0, 0, :, 5, 5]
    torch.testing.assert_close(logits[2:-2], (torch.arange(2.0, 30.0) - begin) / step)


def test_five_channels():
    with pytest.raises(ValueError, match="five"):
        DeepSSMBackbone(SIZE, 3, (2, 3))


def test_tl_network():
    network = TLShapeNetwork(base(), 12, 5)
    network.fit(shapes())
    images, points = torch.rand(2, 1, *SIZE), shapes(2)
    assert network(images).shape == (2, 3, *SIZE)
    output = network.shape(images)
    assert output.points[0].shape == (2, 12, 3)
    assert output.uncertainty.shape == (2, 12)
    code, true, rebuilt = network(images, scales=1, points=points).codes
    assert code.shape == true.shape == (2, 5)
    torch.testing.assert_close(rebuilt, network.reconstruct(points))


def test_the_auto_encoder_alone_does_not_look_at_the_image():
    network = TLShapeNetwork(base(), 12, 5)
    network.fit(shapes())
    output = network(torch.full((2, 1, *SIZE), torch.nan), scales=0, points=shapes(2))
    assert output.points == ()
    assert output.codes[0] is None
    assert output.codes[2].isfinite().all()
