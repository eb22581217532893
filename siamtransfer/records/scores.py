"""The numbers of records as scores of a model card, and the metadata by which the Hub lists a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from siamtransfer.records.meanings import split_statistic
from siamtransfer.records.metric_intervals import interval_of

_INTERVAL = ("ci95_low", "ci95_high")
_CLASSIFIERS = ("knn", "linear", "fewshot")
HUB_NAMES = {
    "imagenet": "ILSVRC/imagenet-1k",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}
"""Names of data sets on the Hub by ours."""
LICENSE = "# license: not stated by the checkpoint; state it here before you publish the folder"
"""Stands among the metadata, which have no license otherwise."""


class Score(NamedTuple):
    """A number of a record.

    Attributes:
        task: the evaluator.
        setting: what the number belongs to, such as k=20/T=0.07; may be empty.
        metric: its name, such as top1.
        value: in percent as a rule, as the evaluator prints it.
        interval: the ends of the 95 % interval, where the record has them.
        train, test: the sets, as the protocol names them; test may say that it is train without the query.
        protocol: the whole protocol.
    """

    task: str
    setting: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    train: str
    test: str
    protocol: dict[str, Any]


def scores_of(record: dict[str, Any]) -> list[Score]:
    """The numbers of a record: those of the metric that its protocol names, or top-1 accuracy, or all of them
    where it has neither. Of repeats it is their mean."""
    names = [name for name in record["metrics"] if name.rpartition("/")[2] not in _INTERVAL]
    wanted = record["protocol"].get("metric", "top1")
    chosen = []
    for name in names:
        whole, statistic = split_statistic(name)
        if whole.rpartition("/")[2] == wanted and statistic in (None, "mean"):
            chosen.append(name)
    return [score_of(record, name) for name in chosen or names]


def score_of(record: dict[str, Any], name: str) -> Score:
    """The number of a record with that name."""
    metrics, protocol = record["metrics"], record["protocol"]
    whole, statistic = split_statistic(name)
    setting, _, metric = (whole if statistic == "mean" else name).rpartition("/")
    return Score(
        record["task"],
        setting.removeprefix(record["task"]).strip("/"),
        metric,
        float(metrics[name]),
        interval_of(name, metrics),
        str(protocol.get("train", "not stated")),
        str(protocol.get("test", "not stated")),
        protocol,
    )


def card_metadata(
    name: str,
    scores: Sequence[Score],
    *,
    method: str | None,
    data: str | None,
    libraries: Sequence[str],
) -> str:
    """The YAML of a model card without the lines of dashes; the Hub's library writes and checks it.

    Args:
        name: the model's name.
        scores: of these weights.
        method: of the pretraining; None where nothing states it.
        data: our name of the images of the pretraining; None where nothing states it.
        libraries: by which it can be loaded, the first being the main one; may be empty.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-classification" if score.task in _CLASSIFIERS else score.task,
            dataset_type=_scored_set(score).partition("/")[0],
            dataset_name=_scored_set(score),
            metric_type="accuracy" if score.metric == "top1" else score.metric,
            metric_value=round(score.value, 4),
            metric_name=f"{score.task} {score.setting} {score.metric}".replace("  ", " "),
        )
        for score in scores
    ]
    card: Any = ModelCardData(
        library_name=libraries[0] if libraries else None,
        pipeline_tag="image-feature-extraction",
        tags=[
            *("image-feature-extraction", "self-supervised-learning" if method else "feature-extraction"),
            *([method] if method else []),
            *libraries,
        ],
        datasets=[HUB_NAMES[data]] if data in HUB_NAMES else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    text: str = card.to_yaml()
    return text.strip()


def _scored_set(score: Score) -> str:
    """The set in a card. A part of train, or train without each query, is named with train."""
    is_of_train = "/" not in score.test and score.test.endswith("train")
    return f"{score.train}, {score.test}" if is_of_train else score.test


def scores_table(scores: Sequence[Score]) -> str:
    """The scores as Markdown, and the protocol of each evaluator below."""
    rows = [
        "| evaluator | setting | metric | value | 95 % interval | fitted on | scored on |",
        "|" + "---|" * 7,
    ]
    for score in scores:
        interval = f"{score.interval[0]:.2f} to {score.interval[1]:.2f}" if score.interval else ""
        rows.append(
            f"| {score.task} | {score.setting} | {score.metric} | {score.value:.2f} | {interval} | "
            f"{score.train} | {score.test} |"
        )
    protocols = {json.dumps(score.protocol, sort_keys=True): score.task for score in scores}
    details = [f"Protocol of {task}: `{text}`" for text, task in protocols.items()]
    return "\n".join(rows) + "\n\n" + "\n\n".join(details)


def reading_lines(reading: dict[str, Any], assumptions: Sequence[str]) -> str:
    """How weights were read, as a Markdown list: facts with their sources, and what was assumed."""
    facts = [f"- {name}: {fact['value']} ({fact['source']})" for name, fact in reading.items()]
    return "\n".join([*facts, *([f"- {sentence}" for sentence in assumptions] or ["- Nothing was assumed."])])
