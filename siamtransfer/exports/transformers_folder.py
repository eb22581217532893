"""A folder for transformers: its own network, which AutoModel builds without timm, and an AutoImageProcessor.

The reader's layouts (checkpoints/layouts/hugging_face.py) say which tensor of transformers becomes which part
of a tensor of timm. Here they are run backwards: each tensor of transformers is filled with its own number,
the layout arranges the numbers, and where a number arrived, there the values for it are found.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from siamtransfer.exports.network import Network
from siamtransfer.exports.proof import Proof, Written, prove
from siamtransfer.exports.timm_folder import WEIGHTS, require_same_reading, write_weights
from siamtransfer.exports.transformers_config import Family, family_of
from siamtransfer.utils.errors import UserError

_UNUSED = "embeddings.mask_token"
"""What only masked training reads: zeros."""
_RESAMPLE = {"bilinear": 2, "bicubic": 3}


def require_transformers() -> None:
    """Raises UserError unless transformers is installed."""
    try:
        importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            "--layout transformers needs transformers, which is not installed: pip install 'transformers>=5'"
        ) from error


def write_transformers_folder(network: Network, folder: Path) -> tuple[Proof, Family]:
    """Writes config.json, model.safetensors and preprocessor_config.json into an existing folder, and proves
    them.

    Raises:
        UserError: transformers has no such network, or what it builds gives other features.
    """
    family = family_of(network)
    side = network.images.size
    if family.positions not in (None, side):
        raise UserError(
            f"{network.read.name} has positions for {family.positions} pixels, and images have {side}, for "
            f"which transformers interpolates them otherwise: say --size {family.positions}, or --layout timm"
        )
    with quiet_transformers():
        shapes = _write_skeleton(family, folder)
        state = tensors_of(network.read.state, shapes, family)
        write_weights(network, state, folder / WEIGHTS)
        _write_processor(network, folder)
        what = f"transformers' {family.what} of the folder"
        proof = prove(network, _by_transformers(folder, family), what)
    require_same_reading(network, folder)
    return proof, family


def _write_skeleton(family: Family, folder: Path) -> dict[str, tuple[int, ...]]:
    """Lets transformers write config.json and a file of weights; the names and shapes of the latter."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        network = AutoModel.from_config(family.config, **family.arguments)
    network.save_pretrained(folder)
    with safetensors.safe_open(folder / WEIGHTS, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def tensors_of(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], family: Family
) -> dict[str, Tensor]:
    """The tensors of transformers' names and shapes that the layout of the family makes `state` of.

    Raises:
        UserError: a tensor has no place there, or no value.
    """
    numbers = {name: number for number, name in enumerate(shapes, start=1) if name != _UNUSED}
    filled = {name: torch.full(shapes[name], float(number)) for name, number in numbers.items()}
    registers = "embeddings.register_tokens" in shapes
    if registers:  # there timm's class token is the sum of two tensors: the position of the token stays 0
        filled["embeddings.position_embeddings"][:, 0] = 0
    arranged = family.layout(filled)
    shaped = {name: tuple(tensor.shape) for name, tensor in state.items()}
    homeless = [name for name in {**shaped, **arranged} if shaped.get(name) != _shape(arranged.get(name))]
    if homeless:
        raise UserError(
            f"transformers' {family.what} and this network differ in the tensor {homeless[0]}: "
            "--layout timm writes a folder that AutoModel reads through timm"
        )
    found = {
        name: torch.zeros(shapes[name], dtype=torch.float32)
        if name == _UNUSED
        else torch.zeros_like(filled[name])
        for name in shapes
    }
    for name, places in arranged.items():
        for number in places.unique().tolist():
            source = next(each for each, own in numbers.items() if own == number)
            values = state[name][places == number]
            found[source][filled[source] == number] = values.to(torch.float32)
    for name, tensor in found.items():
        if name.endswith("num_batches_tracked"):
            found[name] = tensor.to(torch.int64)
    again = family.layout({name: tensor for name, tensor in found.items() if name != _UNUSED})
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    return found


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _write_processor(network: Network, folder: Path) -> None:
    from transformers import BitImageProcessor

    images = network.images
    BitImageProcessor(
        do_resize=True,
        size={"shortest_edge": images.resize},
        resample=_RESAMPLE[images.interpolation],
        do_center_crop=True,
        crop_size={"height": images.size, "width": images.size},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(network.normalisation.mean),
        image_std=list(network.normalisation.std),
        do_convert_rgb=network.channels == 3,
    ).save_pretrained(folder)


def _by_transformers(folder: Path, family: Family) -> Written:
    """The network and the processor that transformers makes of the folder. Images of the proof have the
    network's size already, so that the processor does not resize them."""
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder, **family.arguments).eval()
    processor = AutoImageProcessor.from_pretrained(folder)

    def features(batches: list[Tensor]) -> list[Tensor]:
        found = []
        for pixels in batches:
            inputs = processor(list(pixels), do_resize=False, do_center_crop=False, return_tensors="pt")
            with torch.inference_mode():
                found.append(feature_of(model(**inputs), family.feature))
        return found

    return features


def feature_of(output: Any, feature: str) -> Tensor:
    """The feature [N, D] in an output of transformers."""
    tensor: Tensor = output.last_hidden_state[:, 0] if feature == "token" else output.pooler_output
    return tensor.flatten(1)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps the bars and remarks of transformers off the screen, but for errors."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
