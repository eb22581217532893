"""The segmentation probes as a function: the numbers of the program, from opened sets or arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.evaluation.segmentation.api import segmentation_probes
from siamtransfer.programs.segmentation import main
from siamtransfer.records.comparison import compare
from siamtransfer.segmentation.data.from_arrays import ObjectMasks, from_masks
from siamtransfer.segmentation.data.registry import open_segmentation
from siamtransfer.utils.errors import UserError

SOURCE = "random:resnet18:width=8:stem=small"
SETS = [
    open_segmentation("fashion-scenes", split=s, size=32, count=n) for s, n in (("train", 6), ("test", 3))
]
FAST: dict[str, Any] = {"probe": ["knn"], "device": "cpu", "precision": "float32"}


def test_it_has_the_numbers_and_the_protocol_of_the_program(tmp_path: Path) -> None:
    words = ["--data.name=fashion-scenes", "--data.size=32", "--data.count=6", "--data.test-count=3"]
    options = [
        "--probe=knn",
        "--device=cpu",
        "--precision=float32",
        "--layers=layer2",
        "--window=24",
        "--k=4",
    ]
    record = main([SOURCE, *words, *options, f"--record={tmp_path / 'program.json'}"])
    assert record is not None
    result = segmentation_probes(SOURCE, *SETS, **FAST, layers="layer2", window=24, k=[4])
    own = result.record()
    assert own["metrics"] == record["metrics"]
    assert own["protocol"] == record["protocol"]
    old, new = record["provenance"], own["provenance"]
    for name in old.keys() & new.keys() - {"time", "command", "commit", "cost"}:
        assert new[name] == old[name]
    assert {"weights_digest", "layers", "train_patches", "test_fingerprint"} < old.keys() & new.keys()
    result.save(tmp_path / "api.json")
    assert compare(tmp_path / "program.json", tmp_path / "api.json", setting="knn/k=4").differences["miou"]


def test_a_backbone_stays_as_it_was_and_pixels_need_none() -> None:
    backbone, read = load_backbone(SOURCE)
    backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    result = segmentation_probes((backbone, read), *SETS, **FAST, layers="layer1", size=16)
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert result.protocol["input"]["side"] == 16
    pixels = segmentation_probes("pixels", *SETS, **FAST, pixel_patch=4)
    assert pixels.provenance["layers"] == "pixels"


def test_sets_in_memory_are_those_of_files(tmp_path: Path) -> None:
    opened = SETS[0]
    images = [opened.image(index) for index in range(3)]
    masks = [opened.mask(index) for index in range(3)]
    for index, mask in enumerate(masks):
        Image.fromarray(mask).save(tmp_path / f"{index}.png")
    kinds = [
        from_masks(np.stack(images), np.stack(masks).astype(np.int64), opened.classes),
        from_masks(images, [Image.fromarray(mask) for mask in masks], opened.classes),
        from_masks([Image.fromarray(i) for i in images], sorted(tmp_path.iterdir()), opened.classes),
    ]
    assert kinds[1].fingerprint == kinds[2].fingerprint
    results = [
        segmentation_probes("pixels", found, SETS[1], **FAST, size=32, k=[3]).metrics for found in kinds
    ]
    assert results[0] == results[1] == results[2]


def black(masks: np.ndarray, **options: int) -> ObjectMasks:
    """A black image of four pixels with these masks of one class."""
    return from_masks(np.zeros((1, 2, 2, 3), np.uint8), masks, ["a"], **options)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: segmentation_probes(SOURCE, *SETS, **FAST, windows=3), "'windows'; did you mean window"),
        (lambda: segmentation_probes(SOURCE, *SETS, probe=["svm"]), "there is no probe 'svm'"),
        (lambda: segmentation_probes(nn.Flatten(), *SETS, **FAST, normalisation="none"), "has no maps"),
        (lambda: from_masks([], [1], ["a"]), "0 images and 1 masks"),
        (
            lambda: black(np.zeros((1, 2, 2, 3), int)).mask(0),
            r"masks/train\[0\] is int64\[2, 2, 3\]; integers",
        ),
        (lambda: black(np.full((1, 2, 2), 9)).mask(0), r"value 9 \(4 pixels\)"),
        (lambda: black(np.full((1, 2, 2), -1)).mask(0), "outside 0"),
        (lambda: black(np.zeros((1, 2, 2), int), ignore=0), "ignore is 0"),
    ],
)
def test_mistakes_are_sentences(call: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        call()
