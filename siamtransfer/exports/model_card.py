"""The model card of a folder for the Hub: README.md with metadata in YAML.

It says what is known and no more: numbers come from records of these weights alone, and what nothing states
(the license, often the method) is said to be not stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from siamtransfer.exports.network import Network
from siamtransfer.exports.proof import Proof
from siamtransfer.records.scores import LICENSE, Score, card_metadata, reading_lines, scores_table

CARD = "README.md"


class Loading(NamedTuple):
    """By which libraries the folder can be loaded, and how transformers' AutoModel is called: further
    arguments, and the part of its output that is the feature."""

    timm: bool
    transformers: bool
    arguments: str
    feature: str


def model_card(
    network: Network,
    account: Mapping[str, Any],
    name: str,
    loading: Loading,
    scores: Sequence[Score],
    proofs: Mapping[str, Proof],
) -> str:
    """The text of README.md."""
    parts = [
        f"---\n{_metadata(network, name, loading, scores)}\n{LICENSE}\n---",
        f"# {name}",
        _what(network, account),
        "## Features",
        *_code(network, loading),
        "## Images",
        _images(network),
        "## Training",
        _training(network, account),
        "## Scores",
        _scores(scores),
        "## How the weights were read",
        reading_lines(account["reading"], account["assumptions"]),
        "## Proof",
        _proof(proofs),
        "## License",
        "Not stated by the checkpoint. Whoever publishes this folder states it in the first lines here.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(network: Network, name: str, loading: Loading, scores: Sequence[Score]) -> str:
    """The card's YAML."""
    method = network.read.meta.get("method")
    names = {"timm": loading.timm, "transformers": loading.transformers}
    return card_metadata(
        name,
        scores,
        method=str(method) if method else None,
        data=_training_set(network),
        libraries=[library for library, loads in names.items() if loads],
    )


def _what(network: Network, account: Mapping[str, Any]) -> str:
    read = network.read
    shape = f"{network.channels} channels to features of {network.backbone.dim} numbers"
    return (
        f"The backbone `{read.name}` without a head, from images of {shape}: {read.parameters:,} parameters. "
        f"Written by siamtransfer {account['versions']['siamtransfer']} from `{account['source']}`. "
        f"The digest of its weights (SHA-256 over names, shapes and numbers) is `{read.digest}`."
    )


def _code(network: Network, loading: Loading) -> list[str]:
    """How to get a feature by each library, as code that runs in this folder with an image.jpg."""
    blocks = []
    if network.channels == 3:
        image = 'image = Image.open("image.jpg").convert("RGB")'
        from_pil = "from PIL import Image\n"
    else:
        side = network.images.size
        image = f"image = torch.rand({network.channels}, {side}, {side})  # your image, in [0, 1]"
        from_pil = ""
    if loading.timm:
        blocks.append(
            "```python\n"
            f"import timm\nimport torch\n{from_pil}\n"
            'name = "local-dir:."  # on the Hub: "hf-hub:YOU/NAME"\n'
            "model = timm.create_model(name, pretrained=True).eval()\n"
            "settings = timm.data.resolve_model_data_config(model)\n"
            f"{image}\n" + _timm_input(network) + "with torch.inference_mode():\n"
            f"    features = model(images)  # [1, {network.backbone.dim}]\n"
            "```"
        )
    if loading.transformers:
        blocks.append(
            "```python\n"
            f"import torch\n{from_pil}from transformers import AutoImageProcessor, AutoModel\n\n"
            'name = "."  # on the Hub: "YOU/NAME"\n'
            "processor = AutoImageProcessor.from_pretrained(name)\n"
            f"model = AutoModel.from_pretrained(name{loading.arguments}).eval()\n"
            f"{image}\n"
            "with torch.inference_mode():\n"
            '    output = model(**processor(image, return_tensors="pt"))\n'
            f"features = output.{loading.feature}.flatten(1)  # [1, {network.backbone.dim}]\n"
            "```"
        )
    return blocks


def _timm_input(network: Network) -> str:
    """The lines that make `images` of `image` for timm."""
    if network.channels == 3:
        return (
            "transform = timm.data.create_transform(**settings, is_training=False)\n"
            "images = transform(image)[None]\n"
        )
    return (
        'mean, std = (torch.tensor(settings[key]).reshape(-1, 1, 1) for key in ("mean", "std"))\n'
        "images = ((image - mean) / std)[None]\n"
    )


def _images(network: Network) -> str:
    images, (mean, std) = network.images, network.normalisation
    known = (
        "as the checkpoint or the files beside it state"
        if network.stated
        else "which is the usual preparation, for nothing states the author's"
    )
    numbers = "; ".join(
        f"{what} {', '.join(f'{number:g}' for number in part)}"
        for what, part in (("mean", mean), ("std", std))
    )
    return (
        f"The shorter side becomes {images.resize} pixels ({images.interpolation}), the central square of "
        f"{images.size} is cut out, {known}. Pixels in [0, 1] are normalised: {numbers}."
    )


def _training(network: Network, account: Mapping[str, Any]) -> str:
    data, untrained = _training_set(network), account["format"] == "random"
    lines = [
        f"- Method: {'none, the weights are random' if untrained else account['method'] or 'not stated'}",
        f"- Epochs: {account['epochs'] or 'not stated'}",
        f"- Images: {data or 'not stated'}",
        f"- Format of the checkpoint: {account['format']}, branch {account['branch']}",
    ]
    return "\n".join(lines)


def _training_set(network: Network) -> str | None:
    """The name of the images of the pretraining, which our own checkpoints record."""
    config = network.read.meta.get("config")
    data = config.get("data") if isinstance(config, Mapping) else None
    name = data.get("name") if isinstance(data, Mapping) else None
    return name if isinstance(name, str) else None


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return "Not measured: no records were given to the export."
    return scores_table(scores)


def _proof(proofs: Mapping[str, Proof]) -> str:
    lines = [
        f"- {prefix.strip('/')}: the largest difference over {proof.images} images is {proof.absolute:.1e}, "
        f"{proof.relative:.1e} of the largest feature."
        for prefix, proof in proofs.items()
    ]
    return "Features of this folder against those of the checkpoint, float32 on a CPU:\n\n" + "\n".join(lines)
