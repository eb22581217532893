"""The diagnostics of one or several checkpoints, the comparison of each pair, and the label-free choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.evaluation.diagnostics.config import DiagnoseConfig
from siamtransfer.evaluation.diagnostics.model_features import ModelFeatures, extract_checkpoints, read_files
from siamtransfer.evaluation.diagnostics.report import say_limits, say_table
from siamtransfer.evaluation.diagnostics.representation import (
    compare_representations,
    measure,
    measure_protocol,
    write_spectra,
)
from siamtransfer.evaluation.diagnostics.selection import choose, score_rules, validity
from siamtransfer.evaluation.evaluator import join_metrics
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.invariance.config import InvarianceConfig
from siamtransfer.evaluation.invariance.evaluate import Invariance, measure_invariance
from siamtransfer.evaluation.invariance.table import say_table as say_invariance
from siamtransfer.evaluation.remarks import add_remarks, remarks_on_features
from siamtransfer.records.result import Picture, Result
from siamtransfer.utils.log import say

MeasuredModel = tuple[dict[str, float], dict[str, Tensor]]
"""The numbers of a model by NAME/REPRESENTATION, and the spectra of its covariances by representation."""


def evaluate(config: DiagnoseConfig, runtime: Runtime) -> Result | None:
    """All numbers under one name each, see programs/diagnose.py; None on all ranks but the first.

    Raises:
        UserError: the checkpoints name different images, or whatever reading checkpoints, images or files
        finds.
    """
    models = extract_checkpoints(config, runtime) or [read_files(config, runtime)]
    followed = [_follow(model.frozen, config) for model in models if model.frozen and config.invariance]
    if not runtime.is_main:
        return None
    result = measure_models(models, config, runtime.device)
    found = [one for one in followed if one is not None]
    if not found:
        return result
    for model, one in zip(models, found, strict=True):
        say(f"{model.name}:")
        say_invariance(one.measured, one.strengths)
        add_remarks(model.protocol, one.remarks)
    metrics = join_metrics([one.metrics for one in found])
    protocol = {**result.protocol, "invariance": found[0].protocol}
    return replace(result, metrics=result.metrics | metrics, protocol=protocol)


def _follow(model: FrozenModel, config: DiagnoseConfig) -> Invariance | None:
    """What the invariance evaluator measures by default; None on all ranks but the first.

    Raises:
        UserError: see `measure_invariance`.
    """
    return measure_invariance(model, InvarianceConfig(seed=config.seed))


def measure_models(models: Sequence[ModelFeatures], config: DiagnoseConfig, device: torch.device) -> Result:
    """All numbers of features that are there already, their table as messages, and their spectra as a picture
    to be drawn."""
    say_limits(models)
    for model in models:
        rows = [representation.rows for representation in model.representations.values()]
        remarks = [remark for each in rows for remark in remarks_on_features(each, config.part, "measures")]
        add_remarks(model.protocol, remarks)
    measured = [measure_model(model, config, device) for model in models]
    pairs = compare_pairs(models, device)
    numbers = [metrics for metrics, _ in measured]
    say_table(models, numbers, pairs)
    metrics = join_metrics(numbers) | pairs | select(numbers, config.accuracy)
    pictures = []
    if config.spectrum:
        write = partial(write_spectra, Path(config.spectrum), _label_spectra(models, measured))
        pictures.append(Picture(config.spectrum, "the spectra of the covariances", write))
    protocol = {
        "part": config.part,
        "sample": config.sample,
        "seed": config.seed,
        **measure_protocol(config.restarts, config.seed),
        "accuracies": config.accuracy,
        "checkpoints": [model.protocol for model in models],
    }
    provenance = {"checkpoints": [model.provenance for model in models]}
    return Result("diagnose", metrics, protocol, provenance, pictures=tuple(pictures))


def measure_model(model: ModelFeatures, config: DiagnoseConfig, device: torch.device) -> MeasuredModel:
    """The diagnostics of each representation, called NAME/REPRESENTATION, and the eigenvalues of its
    covariance."""
    numbers: dict[str, float] = {}
    spectra: dict[str, Tensor] = {}
    for name, representation in model.representations.items():
        spectra[name] = measures.covariance_eigenvalues(representation.rows, device)
        measured = measure(representation, spectra[name], device, restarts=config.restarts, seed=config.seed)
        numbers |= {f"{measure_name}/{name}": value for measure_name, value in measured.items()}
    return numbers, spectra


def compare_pairs(models: Sequence[ModelFeatures], device: torch.device) -> dict[str, float]:
    """How alike the backbones (or layers) of each two checkpoints are: `cka/backbone/1-2` and so on."""
    if len(models) == 1:
        return {}
    name = next(iter(models[0].representations))
    similarities = compare_representations([model.representations[name] for model in models], device)
    return {
        f"{measure_name}/{name}/{a + 1}-{b + 1}": value
        for (a, b), numbers in similarities.items()
        for measure_name, value in numbers.items()
    }


def select(numbers: Sequence[dict[str, float]], accuracies: list[float] | None) -> dict[str, float]:
    """`selection/RULE/REPRESENTATION`: the number of the checkpoint that each label-free rule chooses, from
    1, and with accuracies how reliable the rule is; nothing for a single checkpoint."""
    if len(numbers) == 1:
        return {}
    selected: dict[str, float] = {}
    for representation in dict.fromkeys(name.rpartition("/")[2] for name in numbers[0]):
        for rule, scores in score_rules(numbers, representation).items():
            name, chosen = f"selection/{rule}/{representation}", choose(scores)
            reliability = validity(scores, accuracies) if accuracies else {}
            selected |= {f"{name}/{statistic}": value for statistic, value in reliability.items()}
            details = "".join(f", {statistic} {value:.3g}" for statistic, value in reliability.items())
            if chosen is None:
                say(f"{name:42}none, for all have collapsed{details}")
            else:
                selected[name] = float(chosen + 1)
                say(f"{name:42}[{chosen + 1}]{details}")
    return selected


def _label_spectra(models: Sequence[ModelFeatures], measured: Sequence[MeasuredModel]) -> dict[str, Tensor]:
    return {
        f"[{n}] {model.name} ({name})": eigenvalues
        for n, (model, (_, spectra)) in enumerate(zip(models, measured, strict=True), 1)
        for name, eigenvalues in spectra.items()
    }
