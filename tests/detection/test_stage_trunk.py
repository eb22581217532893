"""Networks of timm in stages below a feature pyramid: their maps, against timm's own `features_only`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.thorough import more
from torch import Tensor, nn
from torch.nn import functional

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.detection.build_pyramid import PyramidOptions, build_pyramid_trunk, is_plain_vit
from siamtransfer.detection.pyramid_trunk import LEVELS
from siamtransfer.detection.stage_trunk import StageMaps, StageTrunk, stage_facts
from siamtransfer.utils.errors import UserError


def features_only(trunk: StageMaps, **options: Any) -> nn.Module:
    """timm's network of maps with the weights of `trunk`, all of which are changed before, because a layer
    scale begins near zero. timm may join the first words of a name by `_`."""
    import timm

    model: nn.Module = timm.create_model(trunk.name.removeprefix("timm:"), features_only=True, **options)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    known = {key.replace(".", "_"): value for key, value in trunk.state_dict().items()}
    model.load_state_dict({key: known[key.replace(".", "_")] for key in model.state_dict()})
    return model.eval()


def images(height: int = 64, width: int = 96, count: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_convnext2", {}),
        ("test_efficientnet", {}),
        more("regnety_002", {}),
        more("resnet14t", {}),
        ("mobilenetv3_small_050", {}),
        ("swin_tiny_patch4_window7_224", {"strict_img_size": False}),
    ],
)
def test_the_maps_are_those_of_timms_features_only(name: str, options: dict[str, Any]) -> None:
    trunk, x = StageMaps(Architecture(f"timm:{name}")).eval(), images()
    with torch.no_grad():
        expected, maps = features_only(trunk, **options)(x)[-len(LEVELS) :], trunk(x)
    for features, theirs, stride in zip(maps, expected, LEVELS.values(), strict=True):
        if theirs.shape[1] != features.shape[1]:  # timm gives Swin's as [N, h, w, C]
            theirs = theirs.permute(0, 3, 1, 2)
        assert features.shape[2:] == (64 // stride, 96 // stride)
        torch.testing.assert_close(features, theirs)
    assert [features.shape[1] for features in maps] == list(
        stage_facts(Architecture(f"timm:{name}")).channels
    )


def test_a_swin_computes_at_its_own_size_what_timm_computes_for_that_size_only() -> None:
    import timm

    name = "swin_tiny_patch4_window7_224"
    original = timm.create_model(name, num_classes=0, strict_img_size=True).eval()
    trunk, x = StageMaps(Architecture(f"timm:{name}")).eval(), images(224, 224)
    trunk.load_state_dict(original.state_dict())
    with torch.no_grad():
        expected = original.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")
        for features, theirs in zip(trunk(x), expected, strict=True):
            torch.testing.assert_close(features, theirs)
        with pytest.raises(AssertionError, match="doesn't match model"):
            original(images())


def test_tensors_have_timms_names() -> None:
    architecture = Architecture("timm:test_convnext")
    assert {
        name: tuple(tensor.shape) for name, tensor in StageTrunk(architecture).bottom_up.state_dict().items()
    } == architecture.shapes()


@pytest.mark.parametrize(
    ("name", "normed"), [("test_convnext", True), ("test_efficientnet", False), ("test_resnet", False)]
)
def test_a_layer_norm_is_on_the_maps_of_networks_with_layer_norms(name: str, normed: bool) -> None:
    trunk, x = StageTrunk(Architecture(f"timm:{name}")).eval(), images()
    with torch.no_grad():
        raw, maps = trunk.bottom_up(x), trunk(x)
    assert list(maps) == ["res2", "res3", "res4", "res5"] == list(trunk.channels)
    for features, (level, given) in zip(raw, maps.items(), strict=True):
        assert given.shape[1] == trunk.channels[level]
        if normed:
            last = functional.layer_norm(features.permute(0, 2, 3, 1), features.shape[1:2], eps=1e-6)
            torch.testing.assert_close(given, last.permute(0, 3, 1, 2))
        else:
            assert torch.equal(given, features)
    assert not StageTrunk(Architecture(f"timm:{name}"), map_norm="").norms
    assert len(StageTrunk(Architecture(f"timm:{name}"), map_norm="LN").norms) == 4


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "regnetz_005", "rexnet_100"])
def test_what_no_map_is_made_of_does_not_learn(name: str) -> None:
    """Of several processes each would wait for the gradients of such parameters."""
    trunk = StageTrunk(Architecture(f"timm:{name}")).train()
    before = {key: value.clone() for key, value in trunk.bottom_up.state_dict().items()}
    sum(features.square().mean() for features in trunk(images(64, 64, 2)).values()).backward()
    without = {key for key, value in trunk.bottom_up.model.named_parameters() if value.grad is None}
    frozen = {key for key, value in trunk.bottom_up.model.named_parameters() if not value.requires_grad}
    assert without == frozen == stage_facts(Architecture(f"timm:{name}")).unused
    moved = {
        key for key, value in trunk.bottom_up.state_dict().items() if not torch.equal(value, before[key])
    }
    norms = {key.rpartition(".")[0] for key in before if key.endswith("running_mean")}
    idle = {norm for norm in norms if f"{norm}.weight" in frozen}
    assert {key.rpartition(".")[0] for key in moved} == norms - idle


def test_stochastic_depth_acts_in_training_only() -> None:
    architecture, x = Architecture("timm:test_convnext"), images(64, 64, 4)
    torch.manual_seed(0)
    deep = StageTrunk(architecture, drop_path=0.5)
    plain = StageTrunk(architecture)
    plain.load_state_dict(deep.state_dict())
    with torch.no_grad():
        assert torch.equal(deep.eval()(x)["res5"], plain.eval()(x)["res5"])
        assert not torch.equal(deep.train()(x)["res5"], plain.train()(x)["res5"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "timm:nest_tiny",
            "nest_tiny has maps of the strides 4, 8, 16, and a feature pyramid needs 4, 8, 16 and",
        ),
        ("timm:gcvit_xxtiny", "gcvit_xxtiny does not take images of 96x160 pixels, and detectors need any"),
        ("timm:mobilevitv2_050", "makes a map of 4x6 from 96x160 pixels, where a feature pyramid needs 3x5"),
        ("resnet18", "resnet18 is torchvision's, and .* name timm's, such as timm:resnet18"),
        ("torchvision:convnext_tiny", "torchvision:convnext_tiny is torchvision's"),
    ],
)
def test_networks_without_the_maps_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        StageTrunk(Architecture(name))


def test_other_images_than_of_three_channels_are_refused() -> None:
    with pytest.raises(UserError, match="takes images of 5 channels; detectors have 3"):
        StageTrunk(Architecture("timm:test_convnext", in_channels=5))


def test_a_trunk_is_chosen_by_its_maps() -> None:
    assert is_plain_vit(Architecture("timm:test_vit"))
    for name in ("test_convnext", "visformer_tiny"):
        assert not is_plain_vit(Architecture(f"timm:{name}"))
    trunk = build_pyramid_trunk(Architecture("timm:test_convnext"), options=PyramidOptions(map_norm=""))
    assert isinstance(trunk, StageTrunk) and not trunk.is_pyramid and not trunk.norms
    assert build_pyramid_trunk(Architecture("timm:test_vit"), options=PyramidOptions()).is_pyramid
