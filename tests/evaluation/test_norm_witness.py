"""The witness: the right reading is the closest, wrong ones are named, and what cannot be told is said."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.originals import as_trained
from support.thorough import more
from torch import Tensor

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.checkpoints.normalisation import NAMES, Normalisation
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of
from siamtransfer.checkpoints.reading import ASSUMED, Fact, Reading
from siamtransfer.data import open_labelled
from siamtransfer.data.from_objects import from_array
from siamtransfer.data.imageset import ImageSet
from siamtransfer.evaluation.norm_candidates import candidates, in_use
from siamtransfer.evaluation.norm_statistics import (
    MOST,
    Moments,
    divergence,
    measure,
    random_crops,
    trained_norms,
)
from siamtransfer.evaluation.norm_witness import ALARM, explain, warn_if_unlikely

RESNET18, RESNET50 = Architecture("resnet18", 16, "imagenet"), Architecture("resnet50", 16, "imagenet")


CROPS = 32
"""Crops of a measurement: half of the default, twice as many as a warning takes."""
_KEPT: dict[tuple[Architecture, Normalisation], dict[str, Tensor]] = {}


@pytest.fixture(scope="module")
def images() -> ImageSet:
    scenes, _ = open_labelled("fashion-scenes", size=32, count=300)
    return from_array(np.stack([scenes.image(n) for n in range(300)]))


def reader(
    architecture: Architecture, state: dict[str, Tensor], normalisation: Normalisation
) -> ReadBackbone:
    resnet = architecture.stem is not None
    reading = Reading(
        normalisation=Fact(normalisation, ASSUMED),
        channels=Fact("rgb", ASSUMED),
        stride_in_1x1=Fact(architecture.stride_in_1x1, ASSUMED) if resnet else None,
        stem=Fact(str(architecture.stem), ASSUMED) if resnet else None,
        output_stride=Fact(architecture.output_stride, ASSUMED) if resnet else None,
    )
    return ReadBackbone(
        path="x.pth",
        state=state,
        architecture=architecture,
        format="torchvision",
        branch="model",
        branches=("model",),
        reading=reading,
        digest=digest_of(state),
        used=len(state),
        dropped={},
        meta={},
    )


def accustomed(architecture: Architecture, images: ImageSet, normalisation: Normalisation) -> ReadBackbone:
    """A network whose batch norms have seen the images under this reading, as training shows them."""
    kept = _KEPT.get((architecture, normalisation))
    if kept is not None:  # the same in every test, for they share their images
        return reader(architecture, kept, normalisation)
    torch.manual_seed(0)
    network = architecture.build().train()
    mean, std = (torch.tensor(row).view(1, 3, 1, 1) * 255 for row in normalisation)
    crops = random_crops(images, 300, 32).float()
    with torch.no_grad():
        for _ in range(8):  # 80 batches leave 0.02 % of the initial statistics, with torch's momentum
            for batch in crops.split(30):
                network((batch - mean) / std)
    state = _KEPT[architecture, normalisation] = network.state_dict()
    return reader(architecture, state, normalisation)


TRUTHS = [
    (RESNET18, NAMES["imagenet"]),
    more(RESNET18, NAMES["half"]),
    more(RESNET18, NAMES["none"]),
    more(RESNET18._replace(stem="imagenet-nopool"), NAMES["imagenet"]),
    more(RESNET18._replace(stem="small"), NAMES["imagenet"]),
    more(RESNET18._replace(stem="small-stride2"), NAMES["imagenet"]),
    more(RESNET50, NAMES["imagenet"]),
    (RESNET50._replace(stride_in_1x1=True), NAMES["imagenet"]),
]


@pytest.mark.parametrize(("architecture", "normalisation"), TRUTHS)
def test_no_false_alarm_and_wrong_normalisations_are_named(
    images: ImageSet, architecture: Architecture, normalisation: Normalisation
) -> None:
    read = accustomed(architecture, images, normalisation)
    report = explain(read, images, side=32, rounds=1)
    assert not report.unlikely
    assert report.factor < ALARM
    for name in {"imagenet", "half", "none"} - {n for n, row in NAMES.items() if row == normalisation}:
        reading = replace(read.reading, normalisation=Fact(NAMES[name], ASSUMED))
        wrong = explain(replace(read, reading=reading), images, side=32, rounds=1)
        assert wrong.unlikely
        assert wrong.factor > 5
        best = wrong.best.candidate.normalisation
        assert best == normalisation or {best, normalisation} == {NAMES["imagenet"], NAMES["cifar10"]}


@pytest.mark.parametrize(
    ("truth", "used", "named"),
    [
        (RESNET18, {"stem": "imagenet-nopool"}, "--stem imagenet"),
        more(RESNET18._replace(stem="small"), {"stem": "small-pool"}, "--stem small"),
        more(RESNET18._replace(stem="small-stride2"), {"stem": "small"}, "--stem small-stride2"),
    ],
)
def test_a_wrong_stem_is_named(
    images: ImageSet, truth: Architecture, used: dict[str, Any], named: str
) -> None:
    read = accustomed(truth, images, NAMES["imagenet"])
    report = explain(
        replace(read, architecture=truth._replace(**used)), images, side=32, crops=2 * CROPS, rounds=1
    )
    assert report.unlikely
    assert report.best.candidate.flags == named
    assert named in report.verdict()


def test_several_changes_together(images: ImageSet) -> None:
    read = accustomed(RESNET18._replace(stem="small-pool"), images, NAMES["half"])
    wrong = replace(
        read,
        architecture=RESNET18._replace(stem="small"),
        reading=replace(read.reading, normalisation=Fact(NAMES["imagenet"], ASSUMED)),
    )
    report = explain(wrong, images, side=32, crops=CROPS)
    assert report.best.candidate.changes == {"normalisation": "half", "stem": "small-pool"}
    assert "--normalisation half" in report.verdict()


def test_a_warning_is_printed_once_and_only_for_an_unlikely_reading(
    images: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "siamtransfer")
    read = accustomed(RESNET18, images, NAMES["half"])
    assert not warn_if_unlikely(read, images).unlikely
    assert caplog.messages == []
    reading = replace(read.reading, normalisation=Fact(NAMES["imagenet"], ASSUMED))
    record = warn_if_unlikely(replace(read, reading=reading), images).as_dict()
    assert record["unlikely"] and record["best"] == "normalisation half"
    assert len(caplog.messages) == 1
    assert "--normalisation half" in caplog.messages[0]


def test_kinds_that_are_facts_are_not_tried_by_a_warning(images: ImageSet) -> None:
    read = accustomed(RESNET18, images, NAMES["imagenet"])
    facts = {
        name: Fact(fact.value, "config.json beside the file") for name, fact in read.reading.facts.items()
    }
    readings = warn_if_unlikely(replace(read, reading=Reading(**facts)), images).as_dict()["readings"]
    assert all(label == "as read" or label.startswith("normalisation") for label in readings)


def test_what_cannot_be_told_is_said(images: ImageSet) -> None:
    vit = Architecture("timm:vit_tiny_patch16_224")
    report = explain(reader(vit, vit.build().state_dict(), NAMES["imagenet"]), images, side=224)
    assert "no batch norm" in report.verdict()
    assert not report.unlikely and report.factor == 1
    assert report.as_dict() == {"reason": report.reason}
    untrained = explain(reader(RESNET18, RESNET18.build().state_dict(), NAMES["imagenet"]), images)
    assert "initial statistics" in untrained.verdict()
    assert untrained.table() == [untrained.reason]


def test_foreign_images_raise_no_alarm(images: ImageSet) -> None:
    read = accustomed(RESNET18, images, NAMES["imagenet"])
    numbers = np.random.default_rng(0)
    noise = numbers.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    colours = np.repeat(np.repeat(noise[:, :1, :1], 32, axis=1), 32, axis=2)
    for foreign in (noise, noise // 2 + 128, colours, noise // 4):
        report = explain(read, from_array(np.ascontiguousarray(foreign)), side=32, crops=CROPS)
        assert not report.unlikely
    assert "too far" in report.verdict()


def test_candidates_come_back_to_the_reading_in_use(images: ImageSet) -> None:
    read = reader(RESNET50, RESNET50.build().state_dict(), NAMES["imagenet"])
    first = candidates(read)
    assert len({candidate.label for candidate in first}) == len(first)
    assert {candidate.flags for candidate in first} >= {
        "--stride-in-1x1",
        "--channels bgr",
        "--output-stride 8",
    }
    for candidate in first:
        assert in_use(read) in candidates(read, candidate)


def test_a_divergence_is_that_of_normal_distributions() -> None:
    mean, var = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([1.0, 4.0, 0.25]).double()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean + 1, (2 * var).sqrt()), torch.distributions.Normal(mean, var.sqrt())
    ).median()
    assert divergence((mean + 1, 2 * var), (mean, var)) == pytest.approx(float(expected), rel=1e-4)
    assert divergence((mean * torch.nan, var), (mean, var)) == MOST


def test_moments_over_batches_are_those_of_all() -> None:
    x = torch.randn(50, 4, 3, 3) * 3 + 100
    moments = Moments()
    for batch in x.split(16):
        moments.add(batch)
    mean, var = moments.result()
    torch.testing.assert_close(mean, x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(var, x.double().var((0, 2, 3)), rtol=1e-4, atol=0)


def test_a_network_of_timm_is_measured_at_each_of_its_batch_norms(images: ImageSet) -> None:
    architecture = Architecture("timm:resnet10t")
    state = as_trained(architecture.build()).state_dict()
    read = reader(architecture, state, NAMES["imagenet"])
    measurement = measure(in_use(read), state, random_crops(images, 4, 32))
    assert len(measurement.layers) == len(trained_norms(state)) > 5
    assert {kind for candidate in candidates(read) for kind in candidate.changes} == {
        "normalisation",
        "channels",
    }
