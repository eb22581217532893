"""What a network looks at: reads it, opens the images, writes the pictures, and returns the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.attention.attention_pictures import show_attention
from siamtransfer.evaluation.attention.config import AttentionConfig
from siamtransfer.evaluation.attention.feature_pictures import (
    compute_maps,
    show_components,
    show_similarity,
)
from siamtransfer.evaluation.attention.network import Network, choose_subjects
from siamtransfer.evaluation.attention.subjects import InputSize, Subjects, input_size, open_subjects
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError


def evaluate(config: AttentionConfig, runtime: Runtime) -> Result:
    """Writes the pictures into `config.out`; the metrics are the Jaccard index and the shares of variance.

    Raises:
        UserError: the program runs on several ranks, the network lacks what is asked for, or whatever reading
            checkpoint and images and writing pictures finds.
    """
    if runtime.world_size > 1:
        raise UserError("attention runs in one process: start it without torchrun")
    network = Network.open(config, runtime)
    shown = choose_subjects(config, network.backbone)
    subjects = open_subjects(config)
    size = input_size(network.backbone, config, subjects)
    assert config.out is not None
    Path(config.out).mkdir(parents=True, exist_ok=True)
    metrics: dict[str, float] = {}
    protocol = _protocol(subjects, size, shown, config, runtime)
    if "attention" in shown:
        found, more = show_attention(network, subjects, size, config)
        metrics |= found
        protocol |= more
    if "pca" in shown or "similarity" in shown:
        maps = compute_maps(network, subjects, size, config)
        protocol["layers"] = config.layers
        if "pca" in shown:
            metrics |= show_components(maps, config)
            protocol |= {"pca": config.pca, "pca_foreground": config.pca_foreground}
        if "similarity" in shown:
            protocol["similarity"] = show_similarity(maps, config)
    say_metrics({name: value for name, value in metrics.items() if not name.endswith("/head")})
    provenance = {**network.provenance, "images_fingerprint": subjects.fingerprint, "out": config.out}
    return Result("attention", metrics, protocol, provenance)


def _protocol(
    subjects: Subjects, size: InputSize, shown: list[Any], config: AttentionConfig, runtime: Runtime
) -> dict[str, Any]:
    remarks = subjects.masks.remarks if subjects.masks else []
    return {
        "images": subjects.name,
        "images_in_set": len(subjects.images),
        "images_shown": len(subjects.spread(config.pictures)),
        "shown": shown,
        "input": {"side": size.side, "resize": config.resize, "multiple_of": size.multiple},
        "interpolation": "bilinear, antialiased",
        "precision": runtime.precision,
        **({"image_remarks": remarks} if remarks else {}),
    }
