"""A folder for timm: `timm.create_model("local-dir:OUT", pretrained=True)`.

config.json names the architecture, the arguments that its tensors do not show (heads, pooling, activation,
size of the position embeddings, channels), and how images are prepared. model.safetensors has the tensors
under timm's names, and in its metadata how siamtransfer reads them. torchvision's ResNets are timm's of the
same name, tensor by tensor.
"""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.backbones.library_backbone import LibraryBackbone
from siamtransfer.backbones.names import FULL_WIDTH, TORCHVISION, WITHOUT_WEIGHTS
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.preprocessing import Preprocessing
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.recorded_reading import recorded
from siamtransfer.checkpoints.to_torchvision import write_state
from siamtransfer.exports.network import Network
from siamtransfer.exports.proof import Proof, Written, prove
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_OF_THE_NETWORK = (
    *("architecture", "input_size", "fixed_input_size", "min_input_size", "first_conv", "classifier"),
)
"""What timm's configuration of its own weights says of the network; the rest is about those weights."""


def write_timm_folder(network: Network, folder: Path) -> Proof:
    """Writes CONFIG and WEIGHTS into an existing folder, and proves them.

    Raises:
        UserError: timm has no such network, or what it builds gives other features.
    """
    model = timm_model(network)
    _write_config(network, model, folder / CONFIG)
    write_weights(network, network.read.state, folder / WEIGHTS)
    proof = prove(network, _read_by_timm(network, folder), "timm.create_model of the folder")
    require_same_reading(network, folder)
    return proof


def timm_model(network: Network) -> Any:
    """timm's network without a classifier, whose tensors have the names of the backbone's; its weights are
    not to be used.

    Raises:
        UserError: timm has none; says what can be written instead.
    """
    import timm

    backbone, architecture = network.backbone, network.read.architecture
    if isinstance(backbone, ResNetBackbone):
        _refuse_foreign_resnet(backbone)
        options: dict[str, Any] = {"num_classes": 0}
        if backbone.output_stride != 32:
            options["output_stride"] = backbone.output_stride
        if backbone.in_channels != 3:
            options["in_chans"] = backbone.in_channels
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return timm.create_model(backbone.name, **options)
    if architecture.name.startswith(TORCHVISION) or not isinstance(backbone, LibraryBackbone):
        raise UserError(
            f"{architecture.name} has other names of tensors in timm, if timm has it at all: write it by "
            "to-torchvision, or by --to onnx or torch-export"
        )
    if architecture.norm_eps is not None:
        say(
            f"note: the norms of this network have an epsilon of {architecture.norm_eps:g}, which timm's "
            "config.json cannot state; timm takes its own, and the proof covers that"
        )
    if architecture.positions is not None:
        say(
            f"note: positions are interpolated as {architecture.positions} here, which timm's config.json "
            f"cannot state: at other sizes than {network.images.size} pixels timm gives other features"
        )
    return backbone.model


def _refuse_foreign_resnet(backbone: ResNetBackbone) -> None:
    """Raises UserError for a ResNet that timm does not build."""
    reasons = {
        "one block in each stage, and timm's have more": backbone.name in WITHOUT_WEIGHTS,
        f"a width of {backbone.width}, and timm's have {FULL_WIDTH}": backbone.width != FULL_WIDTH,
        f"the stem {backbone.stem}, and timm's have a 7x7 stem with max-pooling": backbone.stem != "imagenet",
        "its stride in the 1x1 convolutions, and timm's have it in the 3x3 ones": backbone.stride_in_1x1,
        f"the norm {backbone.norm}, and timm's have batch norm": backbone.norm != "batch",
    }
    for reason, wrong in reasons.items():
        if wrong:
            raise UserError(
                f"timm has no such {backbone.name}: it has {reason}; write it by --to onnx or torch-export, "
                "or where it has the usual stem by --to huggingface --layout transformers"
            )


def _write_config(network: Network, model: Any, path: Path) -> None:
    from timm.models._hub import save_config_for_hf

    if "data_config" not in inspect.signature(save_config_for_hf).parameters:
        raise UserError("the installed timm is too old to write its folders: pip install 'timm>=1.0.31'")
    described: Any = copy.copy(model)  # shares the layers; only the attribute below is its own
    described.pretrained_cfg = {
        key: value
        for key, value in model.pretrained_cfg.items()
        if key in _OF_THE_NETWORK and value is not None
    }
    images = network.images
    save_config_for_hf(
        described,
        str(path),
        data_config={
            "input_size": (network.channels, images.size, images.size),
            "mean": tuple(network.normalisation.mean),
            "std": tuple(network.normalisation.std),
            "interpolation": images.interpolation,
            "crop_pct": crop_share(images),
            "crop_mode": "center",
        },
    )
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model_args"].pop("num_classes", None)  # stands above already; transformers refuses it twice
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def crop_share(images: Preprocessing) -> float:
    """timm's crop_pct: of the shorter side of the resized image, which timm takes to be int(size / share)."""
    share = images.size / images.resize
    while int(images.size / share) < images.resize:
        share -= 1e-9
    return share


def write_weights(network: Network, state: dict[str, Tensor], path: Path) -> None:
    """The tensors as .safetensors, with the reading of the network in the metadata, as all our converters
    write it."""
    read = network.read
    with path.open("wb") as file:
        write_state(state, ".safetensors", file, recorded(read.architecture, read.reading, read.digest))


def _read_by_timm(network: Network, folder: Path) -> Written:
    """The network and the normalisation that timm makes of the folder.

    Raises:
        UserError: timm prepares images otherwise.
    """
    import timm

    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    images = network.images
    found = (tuple(config["input_size"]), config["interpolation"], int(images.size / config["crop_pct"]))
    wanted = ((network.channels, images.size, images.size), images.interpolation, images.resize)
    if found != wanted:
        raise UserError(f"timm would prepare images as {found} and not as {wanted}: nothing was written")
    mean, std = (torch.tensor(config[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))

    def features(batches: list[Tensor]) -> list[Tensor]:
        with torch.inference_mode():
            return [model((pixels.float() / 255 - mean) / std) for pixels in batches]

    return features


def require_same_reading(network: Network, folder: Path) -> None:
    """Raises UserError unless siamtransfer reads of the folder the same tensors, the same network and the
    same normalisation."""
    read, again = network.read, read_backbone(folder)
    pairs = {
        "weights": (again.digest, read.digest),
        "network": (again.architecture.as_dict(), read.architecture.as_dict()),
        "normalisation": (again.normalisation, read.normalisation),
    }
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            raise UserError(
                f"siamtransfer would read another {what} of the folder, {found} instead of {wanted}: "
                "nothing was written"
            )
