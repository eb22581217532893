"""The linear evaluator: opens features or images as its options say, and probes them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.data.subset import Subset
from siamtransfer.data.voc import ignored_of
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.frozen_model import (
    FrozenModel,
    LabelledFeatures,
    labelled_features,
    open_frozen_model,
)
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages, crops_and_flips
from siamtransfer.evaluation.linear.config import LinearConfig
from siamtransfer.evaluation.linear.logistic import split_by_class
from siamtransfer.evaluation.linear.probe import ProbeResult, logistic_probe, multilabel_probe
from siamtransfer.evaluation.linear.protocols import PUBLISHED, PublishedProtocol, published_layers
from siamtransfer.evaluation.linear.splits import (
    TEST_FRACTION,
    TestSplit,
    number_classes,
    set_aside,
    single_labels,
)
from siamtransfer.evaluation.linear.sweep import (
    HELD_OUT,
    SweepData,
    SweepSettings,
    published_probe,
    sweep_epochs,
    sweep_probe,
)
from siamtransfer.evaluation.linear.train import AugmentedFeatures, KeptFeatures, Select
from siamtransfer.evaluation.remarks import (
    Use,
    add_remarks,
    remarks_on,
    remarks_on_features,
    remarks_on_labels,
)
from siamtransfer.records.result import Result
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.errors import UserError


def evaluate(config: LinearConfig, runtime: Runtime) -> Result | None:
    """The probe's numbers on rank 0, None on the others.

    Raises:
        UserError: the images do not suit the protocol, or whatever reading checkpoint, images or files finds.
    """
    if config.protocol == "logistic" or config.checkpoint in (None, "pixels"):
        data = labelled_features(config.checkpoint, config, runtime)
        if config.protocol == "logistic" and not runtime.is_main:
            return None  # rank 0 fits alone, so the memory and the processors of the others are free
        result = probe_features(data, config, runtime)
    else:
        result = _probe_images(config, runtime)
    if not runtime.is_main:
        return None
    say_metrics(result.metrics)
    return result


def probe_features(data: LabelledFeatures, config: LinearConfig, runtime: Runtime) -> Result:
    """Logistic regression, or a sweep on features that are there already.

    Raises:
        UserError: the labels do not suit the protocol.
    """
    train, test = data.train, data.test
    assert train.labels is not None
    if test is None:
        if train.labels.ndim == 2:
            raise UserError("images with several labels need a test part: name one with --data.test_split")
        train, test = set_aside(train, config.seed)
        data.protocol |= {"test": f"{TEST_FRACTION:.0%} of train", "test_images": len(test.features)}
    assert train.labels is not None
    # Of the logistic regression rank 0 is alone here, and waits for nobody.
    with contextlib.nullcontext() if config.protocol == "logistic" else collectives.own_pace("remarks"):
        if runtime.is_main:
            add_remarks(data.protocol, remarks_on(train, test, _use(config)))
    if train.labels.ndim == 2:
        if config.protocol != "logistic":
            raise UserError(
                f"--protocol {config.protocol} needs one label an image: take --protocol logistic"
            )
        ignored = [ignored_of(images) if images else None for images in data.images or (None, None)]
        result = multilabel_probe(
            train,
            test,
            (ignored[0], ignored[1]),
            config.strengths,
            runtime,
            standardise=config.standardise,
            seed=config.seed,
        )
    elif config.protocol == "logistic":
        result = logistic_probe(
            train, test, config.strengths, runtime, standardise=config.standardise, seed=config.seed
        )
    else:
        y, split = number_classes(train.labels, test)
        kept = _kept_features(train.tensor, y, split, lambda h, _: h, config, runtime)
        result = _sweep(kept, [OUTPUT], config, runtime, None)
    return _result(config, result, data.protocol, data.provenance)


def _probe_images(config: LinearConfig, runtime: Runtime) -> Result:
    """A sweep or a published protocol, on the images of a backbone."""
    model = open_frozen_model(config.checkpoint, config, runtime)
    assert model.backbone is not None
    if model.test is None:
        rest, test = split_by_class(single_labels(model.train), TEST_FRACTION, config.seed)
        model.train, model.test = (Subset(model.train, rows.numpy()) for rows in (rest, test))
    if config.published:
        protocol = replace(PUBLISHED[config.protocol].of(model.backbone), **_protocol_changes(config))
        result = _published(model, protocol, config, runtime)
    else:
        result = _sweep_of_images(model, config, runtime)
    model.require_untouched()
    return _result(config, result, model.protocol, model.provenance)


def _published(
    model: FrozenModel, protocol: PublishedProtocol, config: LinearConfig, runtime: Runtime
) -> ProbeResult:
    """One classifier by a published recipe, on the layers and pixels of that recipe."""
    assert model.backbone is not None and model.test is not None
    layers = published_layers(config.protocol, model.backbone)
    model.config = replace(model.config, layers=layers)
    std = protocol.std or model.transform.std
    if len(std) != len(model.transform.std):
        raise UserError(
            f"the protocol {config.protocol} has a std of its own for red, green and blue, and the images "
            f"have {len(model.transform.std)} channels: choose another protocol"
        )
    model.transform = replace(model.transform, interpolation=protocol.test_interpolation, std=std)
    network = _measured_layers(model, [layers])
    remarks: dict[str, Any] = {}
    y, split = _number_classes(model, [layers], config, remarks)
    batches = _augmented_features(model, network, y, np.arange(len(y)), protocol.batch_size, config.seed)
    result = published_probe(
        SweepData(batches, split, network.select),
        layers,
        protocol,
        runtime,
        seed=config.seed,
        saved=_saved_training(config, model),
    )
    result.protocol |= {**protocol.as_record(), "changed": config.changes, **remarks}
    return result


def _sweep_of_images(model: FrozenModel, config: LinearConfig, runtime: Runtime) -> ProbeResult:
    """A sweep on crops and flips, or on features that are extracted once."""
    assert model.test is not None
    selections = config.selections or [config.layers]
    network = _measured_layers(model, selections)
    remarks: dict[str, Any] = {}
    y, split = _number_classes(model, selections, config, remarks)
    saved = _saved_training(config, model)
    if config.augment:
        fitted, held_out = split_by_class(y, HELD_OUT, config.seed)
        h = model.features(Subset(model.train, held_out.numpy()), selections).tensor
        batch_size = _batch_size(config, len(fitted))
        batches = _augmented_features(model, network, y, fitted.numpy(), batch_size, config.seed)
        data = SweepData(batches, split, network.select, (h, y[held_out]))
    else:
        h = model.features(model.train, selections).tensor
        data = _kept_features(h, y, split, network.select, config, runtime)
    result = _sweep(data, selections, config, runtime, saved)
    result.protocol |= {"augmented": config.augment, **remarks}
    return result


def _sweep(
    data: SweepData,
    selections: list[str],
    config: LinearConfig,
    runtime: Runtime,
    saved: SavedTraining | None,
) -> ProbeResult:
    epochs = config.epochs or sweep_epochs(data.batches.samples, data.batches.batch)
    settings = SweepSettings(
        selections, config.optimizers, config.lrs, epochs, config.weight_decay or 0.0, config.seed
    )
    return sweep_probe(data, settings, runtime, saved=saved)


def _number_classes(
    model: FrozenModel, selections: list[str], config: LinearConfig, remarks: dict[str, Any]
) -> tuple[Tensor, TestSplit]:
    """See `number_classes`; enters remarks on the features of the test split in `remarks`."""
    assert model.test is not None
    labels, test = single_labels(model.train), model.features(model.test, selections)
    with collectives.own_pace("remarks"):
        if model.runtime.is_main:
            found = remarks_on_features(test.features, "test", _use(config))
            if config.published and model.runtime.precision != "float32":
                found.append(
                    f"the features are computed in {model.runtime.precision}, and the published figures of "
                    f"--protocol {config.protocol} are of float32: "
                    "take --precision float32 to compare with them"
                )
            add_remarks(remarks, [*found, *remarks_on_labels(labels, test.labels)])
    return number_classes(labels, test)


def _use(config: LinearConfig) -> Use:
    if config.protocol != "logistic":
        return "gradient descent"
    return "standardised" if config.standardise else "logistic"


def _measured_layers(model: FrozenModel, selections: list[str]) -> FeatureLayers:
    """The backbone with its selections of layers, whose widths are known."""
    assert model.backbone is not None
    network = FeatureLayers(model.backbone, selections)
    network.measure(model.transform.crop)
    return network


def _augmented_features(
    model: FrozenModel, network: FeatureLayers, y: Tensor, indices: np.ndarray, batch_size: int, seed: int
) -> AugmentedFeatures:
    """Crops and flips of the train split through the frozen backbone."""
    if len(indices) < batch_size:
        raise UserError(
            f"the train part has {len(indices)} images and the batch is {batch_size}: lower it with "
            "--batch-size (the learning rate goes along)"
        )
    images = AugmentedImages(
        model.train,
        y,
        indices,
        crops_and_flips(model.transform),
        batch_size,
        model.runtime,
        seed,
        model.workers,
    )
    return AugmentedFeatures(network, images, model.config.forward_batch_size)


def _kept_features(
    h: Tensor, y: Tensor, test: TestSplit, select: Select, config: LinearConfig, runtime: Runtime
) -> SweepData:
    """A held-out tenth of the features h[N, D], and the rest to train on."""
    fitted, held_out = split_by_class(y, HELD_OUT, config.seed)
    batch_size = _batch_size(config, len(fitted))
    batches = KeptFeatures(h, y, batch_size, runtime, config.seed, fitted)
    return SweepData(batches, test, select, (h[held_out], y[held_out]))


def _batch_size(config: LinearConfig, samples: int) -> int:
    """The option; else 1024 (DINOv2's), or for small sets the power of two that makes an epoch of 8
    updates."""
    return int(config.batch_size or min(1024, max(32, 2 ** int(np.log2(max(samples / 8, 1))))))


def _protocol_changes(config: LinearConfig) -> dict[str, Any]:
    """The changes by the names of a PublishedProtocol's fields."""
    names = {"batch": "batch_size", "rate": "lr"}
    return {names.get(name, name): value for name, value in config.changes.items()}


def _saved_training(config: LinearConfig, model: FrozenModel) -> SavedTraining | None:
    """The state that a stopped probe goes on from, where `--run` asks for one. Its identity has the names of
    options of the first version, so that a probe that an older version began can go on."""
    if config.run is None:
        return None
    assert model.read is not None
    identity = {
        "protocol": config.protocol,
        "augment": str(config.augment),
        "selections": str(config.selections),
        "optimizers": str(config.optimizers),
        "rates": str(config.lrs),
        "seed": str(config.seed),
    }
    identity |= {name: str(value) for name, value in config.changes.items()}
    identity |= {"weights": model.read.digest, "images": model.train.fingerprint}
    identity |= {"network": repr(model.read.architecture), "transform": repr(model.transform)}
    return SavedTraining(Path(config.run) / "probe.pth", identity, resume=config.resume)


def _result(
    config: LinearConfig, probe: ProbeResult, protocol: dict[str, Any], provenance: dict[str, Any]
) -> Result:
    protocol = {**protocol, "protocol": config.protocol, **probe.protocol}
    return Result("linear", probe.metrics, protocol, provenance, probe.predictions)
