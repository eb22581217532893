"""Two ranks share the images of the segmentation probes and give the numbers of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.mask_layouts import mask_of, write_own
from support.small_runs import on_ranks

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.segmentation.config import MaskedData, SegmentationConfig
from siamtransfer.evaluation.segmentation.evaluate import evaluate
from siamtransfer.records.image_areas import ImageAreas
from siamtransfer.utils.errors import UserError


def config(**options: Any) -> SegmentationConfig:
    """All probes of a small network on five train images; one image at a time, so that no batch rounds
    otherwise."""
    data = MaskedData(name="fashion-scenes", size=64, count=5, test_count=3)
    small = SegmentationConfig(checkpoint="random:resnet18:width=8:stem=small", data=data, device="cpu")
    small = replace(small, forward_batch_size=1, layers="layer3", k=[3], restarts=1, strengths=[0.01])
    return replace(small, **options)


def own(root: str) -> MaskedData:
    """Masks of one's own, of which the train split is scored too."""
    return MaskedData(name="masks", root=root, test_split="train")


def score_both(runtime: Runtime, broken: str, one_image: str) -> dict[str, Any]:
    """On each rank: the metrics and the areas of the probes, with windows and with fewer images than ranks;
    and the error of a set whose second mask is broken."""
    found: dict[str, Any] = {}
    for name, each in {
        "whole": config(),
        "windows": config(window=48, stride=32, patches_per_image=7, probe=["linear"]),
        "one image": config(size=64, probe=["knn"], data=own(one_image)),
    }.items():
        result = evaluate(each, runtime)
        if result is None:
            found[name] = None
        else:
            assert isinstance(result.predictions, ImageAreas)
            areas = {key: counts.areas() for key, counts in result.predictions.settings.items()}
            found[name] = (result.metrics, areas, result.provenance["train_patches"])
    try:
        evaluate(config(size=64, probe=["knn"], data=own(broken)), runtime)
    except UserError as error:
        found["error"] = str(error)
    return found


def test_two_ranks_give_the_numbers_of_one(tmp_path: Path) -> None:
    masks = [mask_of([0, 1]), mask_of([0, 1])]
    write_own(tmp_path / "broken", masks, ["a", "b"])
    second = max((tmp_path / "broken/masks/train").iterdir())
    second.write_bytes(b"no image")
    write_own(tmp_path / "one", masks[:1], ["a", "b"])
    arguments = (str(tmp_path / "broken"), str(tmp_path / "one"))
    alone = score_both(Runtime(torch.device("cpu"), torch.float32), *arguments)
    main, other = on_ranks(score_both, *arguments, timeout_minutes=1)
    for name in ("whole", "windows", "one image"):
        metrics, areas, patches = main[name]
        assert other[name] is None
        assert metrics == pytest.approx(alone[name][0], abs=1e-9)
        assert patches == alone[name][2]
        for setting, values in areas.items():
            assert np.array_equal(values, alone[name][1][setting])
    assert second.name in alone["error"]
    assert main["error"] == other["error"] == alone["error"]
