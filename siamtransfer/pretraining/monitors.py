"""Measurements of a pretraining run every so often: collapse, kNN accuracy, what the gradients ask for.

A monitor is a subclass of `Monitor` (monitor.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from siamtransfer.config import DataConfig, PretrainConfig
from siamtransfer.data import ImageSet
from siamtransfer.data.labelled import open_pair
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.gradient_view.decomposition import decompose, indicators
from siamtransfer.evaluation.gradient_view.forms import require_form
from siamtransfer.evaluation.knn.verdict import interval_of_difference, remark_on_pixels
from siamtransfer.features.extract import evaluation_transform
from siamtransfer.methods.parts.mixing import by_role
from siamtransfer.metrics.spread import projection_health
from siamtransfer.pretraining.gradient_norms import GradientNormMonitor, require_first_layer
from siamtransfer.pretraining.images import count_workers, image_options
from siamtransfer.pretraining.knn_scorer import KnnScorer, choose_bank_dtype
from siamtransfer.pretraining.logger import Logger
from siamtransfer.pretraining.monitor import Monitor
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.state import TrainState
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.views.view_spec import Recipe

FEWEST_CHECKS = 4  # of the projections in a run, however short


class CollapseMonitor(Monitor):
    """Measures the spread of the projections and raises the alarm when it is lost.

    A short run is measured FEWEST_CHECKS times, more often than `monitor.health_every` says. The alarm waits
    for the step that it says, for projections of a network that has hardly begun are not spread yet.
    """

    def __init__(self, state: TrainState, schedule: Schedule, log: Logger):
        super().__init__()
        self.state, self.log, self.settings = state, log, state.config.monitor
        self.every = min(self.settings.health_every, max(1, schedule.steps // FEWEST_CHECKS))

    def due(self, result: StepResult) -> bool:
        return self.every > 0 and result.step % self.every == 0

    def check(self, result: StepResult) -> dict[str, float]:
        """Raises UserError on an alarm where `monitor.on_collapse` is stop."""
        health = projection_health(*[collectives.all_gather(z) for z in result.output.projections[:2]])
        if result.step < self.settings.health_every:
            return health
        causes = self.state.config.options.collapse_causes
        text = self.state.collapse.check(result.step, health, causes)
        if text is not None and self.settings.on_collapse == "stop":
            self.log.row(result.step, health)  # the run ends before the loop could write it
        alarm(text, self.settings.on_collapse, self.log)
        return health


class GradientMonitor(Monitor):
    """Measures what pulls and what pushes the embeddings (see evaluation/gradient_view)."""

    def __init__(self, state: TrainState, log: Logger, runtime: Runtime):
        super().__init__()
        self.state, self.log, self.runtime = state, log, runtime

    def due(self, result: StepResult) -> bool:
        return result.step % self.state.config.monitor.gradients_every == 0

    def check(self, result: StepResult) -> dict[str, float]:
        steps = self.state.config.optim.grad_accum_steps
        views = by_role(result.views).plain
        micro_batch = [view.chunk(steps)[0] for view in views]  # what one loss is computed from
        try:
            return indicators(decompose(self.state.method, micro_batch, self.runtime))
        except UserError as problem:
            self.log.say(f"no gradient view after step {result.step}: {problem}")
            return {}


class KnnMonitor(Monitor):
    """kNN accuracy on the labelled split after every `monitor.knn_every` epochs, beside two baselines.

    `between_chunks` is called in the pauses of a check, on all ranks, and may end the program.
    """

    takes_long = True

    def __init__(
        self,
        knn: KnnScorer,
        state: TrainState,
        schedule: Schedule,
        log: Logger,
        between_chunks: Callable[[], None] | None = None,
    ):
        top1, top5 = knn.name, knn.name.replace("top1", "top5")
        baselines = (f"baseline/{name}/{top1}" for name in ("pixels", name_of_start(state.config)))
        super().__init__((top1, top5, *baselines), knn.protocol)
        self.knn, self.state, self.schedule, self.log = knn, state, schedule, log
        self.every = state.config.monitor.knn_every
        self.between_chunks = between_chunks

    def begin(self) -> dict[str, float]:
        """The check that is missing when a run was stopped between a step and its check."""
        step = self.state.step
        return self._score(step) if step and self.schedule.ends_epochs(step, self.every) else {}

    def due(self, result: StepResult) -> bool:
        return not result.stopping and self.schedule.ends_epochs(result.step, self.every)

    def check(self, result: StepResult) -> dict[str, float]:
        return self._score(result.step)

    def conclude(self) -> str | None:
        """A warning where the last kNN accuracy is not above that of raw pixels, by more than chance; where
        it is, that is said."""
        name = self.knn.name
        numbers = self.log.latest(name, f"baseline/pixels/{name}")
        if len(numbers) < 2:
            return None
        top1, pixels = numbers.values()
        queries = self.knn.query_count
        margin = interval_of_difference(top1, pixels, queries)
        remark = remark_on_pixels(top1, pixels, margin=margin, queries=queries, what="the trained network")
        if remark is None:
            self.log.say(
                f"the trained network beats raw pixels: kNN is right for {top1:.2f} % of {queries} images by "
                f"its features and for {pixels:.2f} % by raw pixels"
            )
        return remark

    def _score(self, step: int) -> dict[str, float]:
        if collectives.broadcast_object(self.log.journal.has(step, self.knn.name)):
            return {}
        scores = self.knn.score(self.state.method.evaluated_backbone, between_chunks=self.between_chunks)
        self.protocol = self.knn.protocol  # images that cannot be read have been left out now
        epochs = step // self.schedule.steps_per_epoch
        self.log.say(
            f"kNN after {epochs} epoch{'s' * (epochs != 1)}: {scores[self.knn.name]:.2f} % "
            f"({self.knn.name}){self._beside()}"
        )
        return scores

    def _beside(self) -> str:
        """The accuracies of the baselines for a message; empty where the journal has none."""
        start = name_of_start(self.state.config)
        words = {"pixels": "raw pixels", start: "the network at the start" if start == "start" else start}
        found = self.log.latest(*(f"baseline/{name}/{self.knn.name}" for name in words))
        names = {f"baseline/{name}/{self.knn.name}": word for name, word in words.items()}
        numbers = [f"{names[name]} {value:.2f} %" for name, value in found.items()]
        return f"; {', '.join(numbers)}" if numbers else ""


def name_of_start(config: PretrainConfig) -> str:
    """What the backbone before the first step is called among the baselines."""
    return "start" if config.backbone.weights else "untrained"


def check_monitors(config: PretrainConfig, recipe: Recipe) -> None:
    """Raises UserError if the gradient view is on and the method has none with these views of an image."""
    if config.monitor.gradients_every:
        require_form(config.options, len(recipe.views))


def build_monitors(
    config: PretrainConfig,
    state: TrainState,
    schedule: Schedule,
    log: Logger,
    runtime: Runtime,
    between_chunks: Callable[[], None] | None = None,
) -> list[Monitor]:
    """The monitors that the configuration asks for. The kNN baselines of a new run are measured here, before
    the method is distributed; `between_chunks` is called in the pauses of every kNN check.

    Raises:
        UserError: the labelled split cannot be opened, or a monitor has nothing to measure in this network.
    """
    monitors: list[Monitor] = [CollapseMonitor(state, schedule, log)]
    if config.monitor.gradients_every:
        monitors.append(GradientMonitor(state, log, runtime))
    if config.monitor.gradient_norms_every:
        require_first_layer(state.method.backbone)
        monitors.append(GradientNormMonitor(state.method, state.spikes, config.monitor.gradient_norms_every))
    knn = build_knn(config, state.recipe, runtime, state.method.backbone.dim)
    if knn is not None:
        if state.step == 0:
            start = state.method.backbone.to(runtime.device)
            log.row(0, knn.baselines(start, name_of_start(config), between_chunks=between_chunks))
        monitors.append(KnnMonitor(knn, state, schedule, log, between_chunks))
    return monitors


def build_knn(config: PretrainConfig, recipe: Recipe, runtime: Runtime, dim: int) -> KnnScorer | None:
    """The kNN scorer of `dim` features on the labelled split, or None (with a message) where labels say
    nothing."""
    data = config.data
    if not config.monitor.knn_every:
        return None
    pair = None if data.name == "flat" else _open_pair(data)
    problem = "a flat folder has no labels" if pair is None else _why_not_scored(*pair)
    if pair is None or problem:
        if runtime.is_main:
            say(f"no kNN check: {problem}")
        return None
    scorer = build_scorer(config, recipe, runtime, dim, *pair)
    if runtime.is_main and scorer.k < config.monitor.knn_k:
        say(
            f"remark: monitor.knn_k is {config.monitor.knn_k} and an image has {scorer.k} others to be "
            "compared with: so many vote"
        )
    return scorer


def _why_not_scored(bank: ImageSet, test: ImageSet | None) -> str | None:
    """Why kNN on these sets would say nothing; None where it says something."""
    if bank.labels is None:
        return f"{bank.name}/{bank.split} has no labels"
    if len(bank.classes) < 2:
        return f"all images of {bank.name}/{bank.split} are of one class"
    if getattr(bank, "doubt", None):
        return f"the folders of {bank.name}/{bank.split} may be no classes, as remarked above"
    if test is not None and test.labels is None:
        return f"{test.name}/{test.split} has no labels"
    return "one image has no neighbours" if len(bank) < 2 else None


def build_scorer(
    config: PretrainConfig,
    recipe: Recipe,
    runtime: Runtime,
    dim: int,
    bank: ImageSet,
    test: ImageSet | None,
) -> KnnScorer:
    """The scorer of `dim` features of `test` among those of `bank`, by the run's transform and `monitor.`"""
    data, settings = config.data, config.monitor
    view = recipe.views[0]
    transform = evaluation_transform(view.size, bank.image_size, recipe.mean, recipe.std, view.interpolation)
    size = min(settings.knn_bank or len(bank), len(bank))
    return KnnScorer(
        bank,
        test,
        transform,
        runtime,
        settings.knn_k,
        settings.knn_temperature,
        settings.knn_bank,
        workers=count_workers(data, bank, runtime),
        bank_dtype=choose_bank_dtype(settings.knn_bank_dtype, size, dim),
        max_unreadable=data.max_unreadable,
    )


def _open_pair(data: DataConfig) -> tuple[ImageSet, ImageSet | None]:
    with collectives.rank_by_rank("opening the labelled images", needed=data.download):
        return open_pair(data.name, test_split=data.test_split, **image_options(data))


class _Speaker(Protocol):
    def say(self, text: str) -> None: ...


def alarm(text: str | None, on_collapse: str, log: _Speaker) -> None:
    """Says or raises a collapse alarm, as `monitor.on_collapse` asks; None is no alarm.

    Raises:
        UserError: `on_collapse` is stop.
    """
    if text is None or on_collapse == "ignore":
        return
    if on_collapse == "stop":
        raise UserError(f"{text}; stopped as monitor.on_collapse asks")
    log.say(text)
