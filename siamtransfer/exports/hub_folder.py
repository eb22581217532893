"""A folder for the Hub: timm's or transformers' layout, the account of the export, and a model card."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from siamtransfer.exports.account import account_of
from siamtransfer.exports.model_card import CARD, Loading, model_card
from siamtransfer.exports.network import Network
from siamtransfer.exports.options import Layout
from siamtransfer.exports.proof import Proof, Written, prove
from siamtransfer.exports.timm_folder import write_timm_folder
from siamtransfer.exports.transformers_folder import (
    feature_of,
    quiet_transformers,
    require_transformers,
    write_transformers_folder,
)
from siamtransfer.records.scores import Score
from siamtransfer.utils.log import say

_POOLED = "pooler_output"


def write_hub_folder(
    network: Network, folder: Path, name: str, layout: Layout, scores: Sequence[Score]
) -> dict[str, Proof]:
    """Writes the files of a layout and the card into an existing folder, and proves the files.

    Args:
        name: the model's name in the card.
        scores: what the card reports; of these weights.

    Raises:
        UserError: the network has no such layout, or what is built of the folder gives other features.
    """
    if layout == "transformers":
        require_transformers()
        proof, family = write_transformers_folder(network, folder)
        proofs = {"transformers/": proof}
        feature = "last_hidden_state[:, 0]" if family.feature == "token" else _POOLED
        further = "".join(f", {key}={value}" for key, value in family.arguments.items())
        loading = Loading(timm=False, transformers=True, arguments=further, feature=feature)
    else:
        proofs = {"timm/": write_timm_folder(network, folder)}
        both = importlib.util.find_spec("transformers") is not None
        if both:
            proofs["transformers/"] = _prove_wrapper(network, folder)
        else:
            say("note: transformers is not installed, so its AutoModel was not tried on the folder")
        loading = Loading(timm=True, transformers=both, arguments="", feature=_POOLED)
    card = model_card(network, account_of(network, "huggingface"), name, loading, scores, proofs)
    (folder / CARD).write_text(card, encoding="utf-8")
    return proofs


def _prove_wrapper(network: Network, folder: Path) -> Proof:
    """Proves that AutoModel gives the features of a folder of timm, through timm."""
    with quiet_transformers():
        return prove(network, _by_wrapper(network, folder), "transformers' AutoModel through timm")


def _by_wrapper(network: Network, folder: Path) -> Written:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()

    def features(batches: list[Tensor]) -> list[Tensor]:
        with torch.inference_mode():
            outputs = [model(pixel_values=network.normalise(pixels)) for pixels in batches]
        return [feature_of(output, "pooled") for output in outputs]

    return features
