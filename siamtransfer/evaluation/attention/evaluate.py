"""What a network looks at: reads it, opens the images, writes the pictures, and returns the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamtransfer.data.pixel_form import RGB
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.attention.attention_pictures import show_attention
from siamtransfer.evaluation.attention.config import AttentionConfig
from siamtransfer.evaluation.attention.feature_pictures import (
    compute_maps,
    show_components,
    show_similarity,
)
from siamtransfer.evaluation.attention.network import Network, choose_subjects
from siamtransfer.evaluation.attention.subjects import Subjects, input_size, open_subjects
from siamtransfer.evaluation.dense.input_size import InputSize
from siamtransfer.evaluation.dense.sheet import Findings, write_sheets
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
    findings: list[Findings] = []
    protocol = _protocol(subjects, size, config, runtime)
    if "pca" in shown or "similarity" in shown:  # first, as the rest may take hours
        maps = compute_maps(network, subjects, size, config)
        if "similarity" in shown:
            findings.append(show_similarity(maps, config))
        if "pca" in shown:
            findings.append(show_components(maps, config))
    if "attention" in shown:
        findings.append(show_attention(network, subjects, size, config))
    metrics: dict[str, float] = {}
    provenance = {**network.provenance, "images_fingerprint": subjects.fingerprint, "out": config.out}
    for found in findings:
        metrics |= found.metrics
        protocol |= found.protocol
        provenance |= found.provenance
    say_metrics({name: value for name, value in metrics.items() if not name.endswith("/head")})
    assert config.out is not None
    write_sheets(
        {name: sheet for found in findings for name, sheet in found.sheets.items()}, Path(config.out)
    )
    values = next((found.values for found in findings if found.values is not None), None)
    return Result("attention", metrics, protocol, provenance | {"shown": shown}, values)


def _protocol(
    subjects: Subjects, size: InputSize, config: AttentionConfig, runtime: Runtime
) -> dict[str, Any]:
    """What moves the numbers, whatever is shown."""
    remarks = subjects.masks.remarks if subjects.masks else []
    return {
        "images": subjects.name,
        "images_in_set": len(subjects.images),
        **getattr(subjects.images, "form", RGB).as_dict(),
        "input": {"side": size.side, "resize": config.resize, "interpolation": "bilinear, antialiased"},
        "precision": runtime.precision,
        **({"image_remarks": remarks} if remarks else {}),
    }
