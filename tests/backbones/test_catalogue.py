"""The catalogue of fingerprints: it has the networks as the libraries build them, and knows look-alikes."""

from __future__ import annotations

from functools import cache

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from siamtransfer.backbones.architecture import Architecture, build_backbone
from siamtransfer.backbones.catalogue import Shape, fingerprint, load_catalogue, pack
from siamtransfer.backbones.identify import identify
from siamtransfer.backbones.torchvision import classifiers, with_classifier
from siamtransfer.utils.errors import UserError

SMALL = [
    "convnext_atto",
    "resnet50d",
    "regnety_002",
    "mobilenetv3_small_100",
    "test_vit",
    "vit_small_patch16_dinov3",
]


@cache
def shapes_of(name: str, classes: int = 1000) -> dict[str, Shape]:
    """The shapes of timm's network of that name with a classifier."""
    with torch.device("meta"):
        return shapes(timm.create_model(name, num_classes=classes))


def shapes(network: nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_every_network_of_the_two_libraries_is_in_it() -> None:
    catalogue = load_catalogue()
    names = {name for groups in catalogue.exact.values() for group in groups for name in group}
    assert catalogue.made_from["timm"] <= timm.__version__
    assert {"timm:resnet50", "timm:vit_giant_patch14_dinov2", "torchvision:regnet_y_128gf"} <= names
    if catalogue.made_from["timm"] == timm.__version__:
        assert {f"timm:{name}" for name in timm.list_models()} <= names
    assert {f"torchvision:{name}" for name in classifiers()} <= names


@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_found_with_any_classifier_and_without(name: str, classes: int) -> None:
    found = identify(shapes_of(name, classes))
    assert found.architecture == Architecture(f"timm:{name}")
    trunk = found.architecture.shapes()
    assert {key: shape for key, shape in shapes_of(name, classes).items() if key not in found.head} == trunk
    assert bool(found.head) == bool(classes)


@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "vit_b_32", "regnet_y_400mf"])
def test_torchvisions_classifiers_are_found(name: str) -> None:
    with torch.device("meta"):
        found = identify(shapes(with_classifier(name)))
    assert found.architecture == Architecture(f"torchvision:{name}")


def test_one_tensor_more_or_less_or_of_another_shape_is_not_found() -> None:
    whole = shapes_of("convnext_atto")
    name = "stages.1.blocks.0.mlp.fc1.weight"
    for changed in (
        {key: shape for key, shape in whole.items() if key != name},
        {**whole, "stages.9.weight": (3, 3)},
        {**whole, name: (whole[name][0], whole[name][1] + 1)},
    ):
        assert load_catalogue().find(changed) is None
        with pytest.raises(ValueError, match="lacks the first layers"):
            identify(changed)


def test_look_alikes_are_named() -> None:
    usual = identify(shapes_of("resnet50"))
    assert usual.usual and usual.architecture.name == "resnet50"
    assert {"timm:resnetaa50", "timm:resnetblur50"} <= set(usual.others)
    clip = identify(shapes_of("vit_base_patch32_clip_224"))
    assert not clip.usual
    assert "timm:vit_base_patch32_clip_quickgelu_224" in (clip.architecture.name, *clip.others)


def test_networks_of_one_group_compute_the_same_and_those_of_two_do_not() -> None:
    catalogue = load_catalogue()
    groups = catalogue.exact[fingerprint(shapes_of("vit_small_patch16_224", 0))]
    assert {"timm:vit_small_patch16_224", "timm:deit_small_patch16_224"} <= set(groups[0])
    assert torch.equal(*features("timm:vit_small_patch16_224", "timm:deit_small_patch16_224"))
    groups = catalogue.exact[fingerprint(shapes_of("mobilenetv3_small_075", 0))]
    assert [group[0] for group in groups] == ["timm:mobilenetv3_small_075", "timm:tf_mobilenetv3_small_075"]
    first, second = features("timm:mobilenetv3_small_075", "timm:tf_mobilenetv3_small_075")
    assert not torch.allclose(first, second, atol=0.1 * float(first.std()))


def features(name: str, other: str) -> tuple[Tensor, Tensor]:
    """Of two networks with the weights of the first, on the same images; batch norms take their moments."""
    torch.manual_seed(0)
    first, second = build_backbone(name).train(), build_backbone(other).train()
    second.load_state_dict(first.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        return first(images), second(images)


def test_a_vit_for_images_of_a_size_without_a_name_is_found_and_computes_the_same() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=0).eval()
    found = identify(shapes(theirs)).architecture
    assert found == Architecture("timm:vit_tiny_patch16_224", image_size=96)
    ours = found.build().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    with pytest.raises(ValueError, match="no square of patches"):
        identify({**shapes(theirs), "pos_embed": (1, 36, 192)})


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_networks_for_other_channels_are_found(name: str) -> None:
    with torch.device("meta"):
        found = identify(shapes(timm.create_model(name, in_chans=4))).architecture
    assert found.in_channels == 4
    assert found._replace(in_channels=3) == identify(shapes_of(name)).architecture
    assert found.build()(torch.zeros(1, 4, 224, 224)).shape[0] == 1


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"name": "torchvision:convnext_tin"}, "did you mean convnext_tiny"),
        ({"name": "torchvision:alexnet", "in_channels": 0}, "one channel or more"),
        ({"name": "torchvision:alexnet", "width": 32}, "torchvision's ResNets only"),
        ({"name": "torchvision:alexnet", "drop_path": 0.1}, "timm's models only"),
        ({"name": "resnet18", "in_channels": 0}, "one channel or more"),
        ({"name": "resnet18", "image_size": 64}, "image_size cannot be chosen"),
        ({"name": "timm:convnext_atto", "image_size": 64}, "no size of images that could be chosen"),
    ],
)
def test_choices_that_do_not_apply_are_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(**choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "regnet_y_400mf"])
def test_a_classifier_of_torchvision_gives_what_its_last_layer_takes(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    ours = build_backbone(f"torchvision:{name}").eval()
    trunk = {key: tensor for key, tensor in theirs.state_dict().items() if key in ours.state_dict()}
    ours.load_state_dict(trunk, strict=True)
    taken: list[Tensor] = []
    last = [m for m in theirs.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    last.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs(images)
        h = ours(images)
    expected = taken[0] if taken[0].ndim == 2 else taken[0].mean(dim=(2, 3))
    assert torch.allclose(h, expected, atol=1e-6)
    assert h.shape == (2, ours.dim)


def test_the_file_depends_on_its_content_alone() -> None:
    first = pack({"b": "1", "a": "2"}, {"k": [["x"], ["y"]], "j": [["z"]]}, {}, [{"q", "p"}, ()])
    second = pack({"a": "2", "b": "1"}, {"j": [["z"]], "k": [["x"], ["y"]]}, {}, [(), ("p", "q")])
    assert first == second


def test_gemmas_infinite_bounds_are_no_diverged_training() -> None:
    architecture = Architecture("timm:gemma4_vit_167m")
    state = {name: torch.zeros(()).expand(shape) for name, shape in architecture.shapes().items()}
    bound = next(name for name in state if name.endswith(".input_max"))
    kept = architecture.complete(state | {bound: torch.tensor(float("inf")).expand(state[bound].shape)})
    assert bool(kept[bound].isinf().all())
    for name, value in ((bound, float("nan")), (next(iter(state)), float("inf"))):
        with pytest.raises(ValueError, match="NaN or infinity"):
            architecture.complete(state | {name: torch.tensor(value).expand(state[name].shape)})


def test_position_embeddings_of_four_axes_are_no_first_convolution() -> None:
    for classes in (0, 7):
        assert identify(shapes_of("volo_d1_224", classes)).architecture == Architecture("timm:volo_d1_224")
