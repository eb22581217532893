"""The file of timm's weights of a name: in Hugging Face's cache, in torch hub's folder, or named.

    timm:vit_small_patch14_dinov2.lvd142m     timm:convnext_tiny=model.safetensors

Nothing is downloaded unless the user asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from siamtransfer.backbones.names import TIMM
from siamtransfer.backbones.timm import timm_name
from siamtransfer.utils.errors import UserError

_FILES = ("model.safetensors", "pytorch_model.bin")


class TimmWeights(NamedTuple):
    """Weights of timm: their full name, `timm:MODEL.TAG` where timm has tags for the model, and the file."""

    name: str
    file: Path


def find_timm_weights(source: str, *, download: bool = False) -> TimmWeights:
    """The weights that `timm:NAME[.TAG]` or `timm:NAME[.TAG]=FILE` names.

    Without a tag the weights that are in the cache are meant, and have to be the only ones.

    Args:
        source: the name.
        download: fetch the weights where they are not in the cache; without a tag those of timm's choice.

    Raises:
        UserError: timm has no such model or tag, there is no file (says how to get it), or there are several.
    """
    model, equals, path = source.removeprefix(TIMM).partition("=")
    name, _, tag = model.partition(".")
    try:
        timm_name(name)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    tags = _tags(name)
    if tag and tag not in tags:
        raise UserError(f"{source}: timm's weights of {name} are {', '.join(tags) or 'none'}")
    if equals:
        if not Path(path).is_file():
            raise UserError(f"{source}: there is no file {path}")
        return TimmWeights(TIMM + model, Path(path))
    if not tags:
        raise UserError(f"{source}: timm has no weights of {name}; name your file as {TIMM}{name}=FILE")
    found = {
        each: file for each in ([tag] if tag else tags) if (file := _cached(f"{name}.{each}")) is not None
    }
    if len(found) > 1:
        choices = " or ".join(f"{TIMM}{name}.{each}" for each in found)
        raise UserError(f"{source}: the cache has several weights of {name}; choose {choices}")
    if found:
        [(each, file)] = found.items()
        return TimmWeights(f"{TIMM}{name}.{each}", file)
    wanted = f"{name}.{tag or tags[0]}"
    if download:
        return TimmWeights(TIMM + wanted, _download(source, wanted))
    repository = _config(wanted).hf_hub_id
    place = f"huggingface.co/{repository}" if repository else _config(wanted).url
    raise UserError(
        f"{source}: no such weights are in the cache of Hugging Face or of torch hub, and nothing is "
        f"downloaded silently: run `siamtransfer identify {TIMM}{wanted} --download` once, or fetch them "
        f"from {place} and say {TIMM}{wanted}=FILE"
    )


def _tags(name: str) -> list[str]:
    """The tags of a model's weights, timm's choice first."""
    import timm

    usual = timm.get_pretrained_cfg(name)
    first = usual.tag if usual is not None else None
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    return sorted(tags, key=lambda each: each != first)


def _config(name: str) -> Any:
    import timm

    return timm.get_pretrained_cfg(name)


def _cached(name: str) -> Path | None:
    """The file of weights in Hugging Face's cache or in torch hub's folder; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    config = _config(name)
    if config.hf_hub_id:
        for file in (config.hf_hub_filename, *_FILES):
            found = try_to_load_from_cache(config.hf_hub_id, file) if file else None
            if isinstance(found, str):
                return Path(found)
    if config.url:
        file = Path(torch.hub.get_dir()) / "checkpoints" / config.url.rsplit("/", 1)[1]
        return file if file.is_file() else None
    return None


def _download(source: str, name: str) -> Path:
    """Fetches weights into the cache in which `_cached` looks."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    config = _config(name)
    if not config.hf_hub_id:
        raise UserError(f"{source}: timm's weights {name} are not on Hugging Face; fetch {config.url}")
    try:
        try:
            return Path(hf_hub_download(config.hf_hub_id, config.hf_hub_filename or _FILES[0]))
        except EntryNotFoundError:
            return Path(hf_hub_download(config.hf_hub_id, _FILES[1]))
    except Exception as error:  # of the network, of the host, of access rights: a dozen types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(f"{source}: {config.hf_hub_id} could not be downloaded ({reason})") from error
