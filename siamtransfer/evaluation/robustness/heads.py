"""The head that is fitted to train once and scores every test set.

Legend: N training images, Q images of a test set, D features, K classes of train, k neighbours.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn.evaluate import possible_ks
from siamtransfer.evaluation.knn.search import search_over_ranks
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.vote import sum_votes, vote_weights
from siamtransfer.evaluation.linear.logistic import LinearClassifier, probe
from siamtransfer.evaluation.linear.rows import place
from siamtransfer.evaluation.robustness.config import RobustnessConfig

CHUNK = 4096  # images whose scores are computed at once


class Head(Protocol):
    """A classifier of K classes.

    Attributes:
        remarks: on what is not as it was asked for.
    """

    remarks: list[str]

    @property
    def protocol(self) -> dict[str, Any]:
        """What a record says of it; on rank 0."""

    def scores(self, features: Tensor, allowed: Tensor | None = None) -> Tensor | None:
        """float64[Q, K], the larger the likelier, for features float32[Q, D], which every rank has; None on
        all ranks but the first. Classes that are not `allowed`, bool[K], have -inf."""


class LinearHead:
    """Multinomial logistic regression at the strength that a held-out tenth of train chooses; rank 0 alone
    fits it and scores by it."""

    def __init__(self, train: Tensor, y: Tensor, config: RobustnessConfig, runtime: Runtime):
        self.config, self.device, self.remarks = config, runtime.device, list[str]()
        self.classifier: LinearClassifier | None = None
        self.held_out: dict[float, float] = {}
        with collectives.own_pace("fitting the head"):
            if runtime.is_main:
                chosen = probe(
                    place(train, self.device),
                    y.to(self.device),
                    strengths=config.strengths,
                    standardise=config.standardise,
                    seed=config.seed,
                )
                self.classifier, self.held_out = chosen.classifier, chosen.held_out

    @property
    def protocol(self) -> dict[str, Any]:
        assert self.classifier is not None
        return {
            "classifier": "multinomial logistic regression, L-BFGS",
            "standardised": self.config.standardise,
            "strengths": list(self.config.strengths),
            "chosen_strength": self.classifier.strength,
            "chosen_on": "a held-out tenth of train",
            "held_out_top1": {f"{c:.4g}": value for c, value in self.held_out.items()},
        }

    def scores(self, features: Tensor, allowed: Tensor | None = None) -> Tensor | None:
        if self.classifier is None:
            return None
        scores = self.classifier.scores(place(features, self.device)).cpu()
        return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


class KnnHead:
    """The weighted vote of nearest neighbours by the cosine; a score is the logarithm of a class's votes.

    Where classes are not allowed, the neighbours are those among the training images of the others.
    """

    def __init__(self, train: Tensor, y: Tensor, config: RobustnessConfig, runtime: Runtime):
        self.train, self.y, self.temperature, self.runtime = train, y, config.temperature, runtime
        self.classes = int(y.max()) + 1
        (self.k,), self.remarks = possible_ks([config.k], len(train))

    @property
    def protocol(self) -> dict[str, Any]:
        return {
            "classifier": "nearest neighbours",
            "k": self.k,
            "temperature": self.temperature,
            "similarity": "cosine",
        }

    def scores(self, features: Tensor, allowed: Tensor | None = None) -> Tensor | None:
        bank, voters = self.train, self.y
        if allowed is not None:
            rows = allowed[self.y].nonzero()[:, 0]
            bank, voters = bank[rows], voters[rows]
        similarities, indices = search_over_ranks(
            bank,
            features,
            min(self.k, len(bank)),
            leave_one_out=False,
            options=SearchOptions("cosine"),
            runtime=self.runtime,
        )
        if not self.runtime.is_main:
            return None
        weights = vote_weights(similarities, self.temperature)
        pairs = zip(weights.split(CHUNK), indices.split(CHUNK), strict=True)
        return torch.cat([sum_votes(part, voters[rows], self.classes).log() for part, rows in pairs])


def fit_head(train: Tensor, y: Tensor, config: RobustnessConfig, runtime: Runtime) -> Head:
    """The head that `config.head` names, for features float32[N, D] of classes y int64[N] from 0."""
    return (LinearHead if config.head == "linear" else KnnHead)(train, y, config, runtime)
