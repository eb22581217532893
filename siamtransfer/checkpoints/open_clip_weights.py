"""Weights of open_clip: a folder as open_clip writes it, or a file and open_clip's name of its network.

    openclip:FOLDER     openclip:ViT-B-32=open_clip_pytorch_model.bin     openclip:ViT-L-14-336-quickgelu=FILE

Nothing is downloaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from siamtransfer.backbones.names import TIMM
from siamtransfer.backbones.timm import timm_name
from siamtransfer.checkpoints.open_clip_config import CONFIG, activation_beside
from siamtransfer.checkpoints.options import OPEN_CLIP
from siamtransfer.utils.errors import UserError

_VIT = re.compile(r"ViT-(S|M|B|L|H|g|bigG)-(\d+)(?:-(\d+))?(-quickgelu)?")
_WIDTHS = {
    "S": "small",
    "M": "medium",
    "B": "base",
    "L": "large",
    "H": "huge",
    "g": "giant",
    "bigG": "gigantic",
}
_RESNET = re.compile(r"RN(50|101|50x4|50x16|50x64)(-quickgelu)?")


class OpenClipWeights(NamedTuple):
    """A file or folder of open_clip, and timm's name of the image tower where the source names it."""

    path: Path
    network: str | None


def find_open_clip_weights(source: str) -> OpenClipWeights:
    """What `openclip:FOLDER` or `openclip:NAME=FILE` names.

    Raises:
        UserError: there is no such file or folder, the folder is not open_clip's, or timm has no network
            like the one of that name.
    """
    name, equals, path = source.removeprefix(OPEN_CLIP).partition("=")
    if equals:
        if not Path(path).is_file():
            raise UserError(f"{source}: there is no file {path}")
        network = _network(source, name)
        _refuse_other_activation(source, Path(path), network)
        return OpenClipWeights(Path(path), network)
    folder = Path(name)
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise UserError(f"{source}: the folder has no {CONFIG}, so open_clip did not write it")
        return OpenClipWeights(folder, None)
    raise UserError(
        f"{source}: there is no folder {name}, and nothing is downloaded here: give {OPEN_CLIP}FOLDER, or "
        f"{OPEN_CLIP}NAME=FILE with open_clip's name of the network, as {OPEN_CLIP}ViT-B-32=FILE"
    )


def _refuse_other_activation(source: str, path: Path, network: str) -> None:
    """Raises UserError where the configuration beside the file says another activation than the name."""
    try:
        stated = activation_beside(path)
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    if stated is not None and "vit_" in network and (stated == "quick_gelu") != ("quickgelu" in network):
        raise UserError(
            f"{source}: {CONFIG} beside the file says that the activation is {stated}, and the name says "
            f"another: give {OPEN_CLIP}{path.parent} or the name that fits"
        )


def _network(source: str, name: str) -> str:
    """timm's name of the image tower of a network of open_clip."""
    vit, resnet = _VIT.fullmatch(name), _RESNET.fullmatch(name)
    if vit:
        width, patch, side, quick = vit.groups()
        known = f"vit_{_WIDTHS[width]}_patch{patch}_clip_{'quickgelu_' if quick else ''}{side or 224}"
    elif resnet:  # its image tower has the same activation in both variants
        known = f"resnet{resnet[1]}_clip"
    else:
        raise UserError(
            f"{source}: {name} is none of open_clip's names that are known here, ViT-B-32, ViT-L-14-336, "
            f"ViT-B-32-quickgelu, RN50 and the like: give the folder, as {OPEN_CLIP}FOLDER, or the file alone"
        )
    try:
        return timm_name(TIMM + known)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
