"""Pretrains a backbone without labels, from images to a checkpoint.

    python pretrain/main.py                                        the demo: SimSiam on the embedded scenes
    python pretrain/main.py --config configs/pretrain/imagenet-resnet50-100ep.yaml --data.root /data/imagenet
    python pretrain/main.py --config configs/pretrain/own-folder.yaml --data.root my_images
    torchrun --nproc-per-node 8 pretrain/main.py --config …        one process a GPU
    python pretrain/main.py … --resume                             go on after a stop, a crash or a kill
    python pretrain/main.py … --preview views.png                  look at the views before training

The story of a run is `pretrain`, from top to bottom; what it leans on is below it in the order of use.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.checkpoints import training_state as checkpoint
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.cli import run
from siamtransfer.config import DataConfig, Parser, PretrainConfig, as_dict, parse, refuse_differences
from siamtransfer.data import ImageSet, open_images, open_labelled
from siamtransfer.data.imageset import UnreadableImages, require_same_images
from siamtransfer.data.readers import ReplacingReader
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, StopSignal, cpu_count, seed_step, start_runtime
from siamtransfer.evaluation.gradients import decompose, indicators, require_form
from siamtransfer.features.extract import evaluation_transform
from siamtransfer.methods import Method, StepInfo
from siamtransfer.metrics.spread import projection_health
from siamtransfer.optim.optimizers import build_optimizer, load_optimizer, set_lr
from siamtransfer.pretraining.build import build_method, describe_backbone, fill_backbone
from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.pretraining.knn_monitor import KnnMonitor
from siamtransfer.records.record import record
from siamtransfer.training.guard import StepContext
from siamtransfer.training.journal import Journal
from siamtransfer.training.progress import StepProgress, Stopwatch
from siamtransfer.training.step import update
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import RunLock, write_text
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.loading import build_loader
from siamtransfer.views.preview import write_preview
from siamtransfer.views.sampler import StepSampler
from siamtransfer.views.view_spec import Recipe

DEMO = Path(__file__).resolve().parents[2] / "configs" / "pretrain" / "demo.yaml"


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line: a preview of the views, or a whole run and its record."""
    config, asked = parse(
        PretrainConfig, description=__doc__, default_file=DEMO, arguments=_arguments, argv=argv
    )
    if asked.resume_from_backbone:
        config.backbone.weights = asked.resume_from_backbone
    config.check()
    if asked.preview:
        return preview(config, Path(asked.preview))
    hardware = config.hardware
    with (
        start_runtime(hardware.device, hardware.precision, hardware.threads) as runtime,
        StopSignal() as stop,
    ):
        return pretrain(config, runtime, stop, resume=asked.resume)


def pretrain(
    config: PretrainConfig, runtime: Runtime, stop: StopSignal, *, resume: bool
) -> dict[str, Any] | None:
    """One run: images -> views -> loss -> update, watched and saved; returns its record on rank 0."""
    folder = Path(config.run.dir)
    with contextlib.ExitStack() as held:
        if runtime.is_main:
            held.enter_context(RunLock(folder))
        checkpoints = Checkpoints(folder, config.checkpoint.keep)
        saved = find_start(checkpoints, runtime, resume=resume)

        with collectives.rank_by_rank(needed=config.data.download):
            images = open_pretraining_images(config.data)
        views = config.views.build()
        config.optim.check(runtime.world_size, len(images))
        if config.monitor.gradients_every:
            require_form(config.options, len(views.views))
        steps_per_epoch = len(images) // config.optim.batch
        steps = steps_per_epoch * config.optim.epochs

        torch.manual_seed(config.run.seed)
        method = build_method(config)
        method.prepare(len(images), None if images.labels is None else torch.from_numpy(images.labels))
        start, watch = 0, CollapseWatch(config.options.least_std, config.options.least_rank_fraction)
        if saved is None and config.backbone.weights:
            filled = fill_backbone(method, config.backbone)
            if runtime.is_main:
                say(f"the backbone starts from {filled}")
        if saved is not None:
            refuse_differences(saved["config"], as_dict(config))
            require_same_images(
                images, fingerprint=saved["data"]["fingerprint"], count=saved["data"]["images"]
            )
            method.load_state_dict(saved["model"])
            start = saved["progress"]["step"]
            watch = CollapseWatch(**saved["progress"]["collapse"])
        monitor = build_monitor(config, views, runtime)
        journal = held.enter_context(contextlib.closing(open_journal(config, folder, start, runtime)))
        if monitor and not start:
            journal.write(0, monitor.baselines(method.backbone.to(runtime.device)))

        method.to(memory_format=torch.channels_last)
        model = runtime.distribute(method, synchronise_batch_norm=config.hardware.sync_batch_norm)
        if config.hardware.compile:
            method.backbone.compile()
        optimizer, scaler = build_optimizer(config.optim, method.groups()), runtime.scaler()
        if saved is not None:
            load_optimizer(optimizer, saved["optimizer"])
            scaler.load_state_dict(saved["scaler"])

        def state(step: int) -> dict[str, Any]:
            return {
                "format": checkpoint.FORMAT,
                "version": checkpoint.VERSION,
                "method": config.method.name,
                "model": method.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "progress": {"step": step, "epoch": step // steps_per_epoch, "collapse": vars(watch)},
                "config": as_dict(config),
                "backbone": describe_backbone(method),
                "normalisation": {"mean": list(views.mean), "std": list(views.std)},
                "data": {"name": images.name, "images": len(images), "fingerprint": images.fingerprint},
            }

        def check_knn(step: int) -> None:
            if monitor is None or collectives.broadcast_object(journal.has(step, monitor.name)):
                return
            scores = monitor.score(method.evaluated_backbone)
            journal.write(step, scores)
            progress.say(
                f"kNN after {step // steps_per_epoch} epochs: {scores[monitor.name]:.2f} % ({monitor.name})"
            )

        def check_gradients(step: int, batch: list[Tensor]) -> None:
            part = [view.chunk(config.optim.accumulate)[0] for view in batch]  # what one loss is of
            try:
                journal.write(step, indicators(decompose(method, part, runtime)))
            except UserError as problem:
                progress.say(f"no gradient view after step {step}: {problem}")

        introduce(config, runtime, images, method, start, steps)
        tally = UnreadableImages(len(images), config.data.max_unreadable)
        progress = StepProgress(steps, start, config.log.every, shown=runtime.is_main)
        held.callback(progress.close)
        if start and knn_is_due(config, start, steps_per_epoch, steps):
            check_knn(start)  # the run was stopped between this step and its check

        sampler = StepSampler(
            len(images), config.optim.batch, steps,
            seed=config.run.seed, start=start, rank=runtime.rank, world_size=runtime.world_size,
        )  # fmt: skip
        loader = build_loader(
            ViewSet(ReplacingReader(images), views, config.run.seed, len(images)),
            sampler,
            workers=count_workers(config.data, images, runtime),
            pin_memory=runtime.device.type == "cuda",
        )
        clock, saved_at, exit_status = Stopwatch(), time.monotonic(), None
        unreadable: list[tuple[str, str]] = []
        for step, batch in enumerate(clock.watch(loader), start):
            rate = set_lr(optimizer, config.optim, step, steps_per_epoch)
            seed_step(config.run.seed, step, runtime.rank)
            painted = augment_batch(batch, views, runtime.device, channels_last=True)
            out, verdict = update(
                model, optimizer, scaler, painted, config.optim.accumulate, runtime, stop.exit_status,
                blame=StepContext(step, rate, batch.index), info=StepInfo(step, steps, steps_per_epoch),
            )  # fmt: skip

            done, exit_status = step + 1, verdict.exit_status
            clock.images += config.optim.batch
            unreadable += batch.unreadable
            if done % config.log.every == 0 or done == steps or exit_status is not None:
                for where, why in collectives.all_gather_object(unreadable):
                    if tally.add(where, why):
                        progress.say(f"replaced an unreadable image: {where} ({why})")
                unreadable.clear()
            if done % config.log.every == 0 or done == steps:
                speed, waiting = clock.lap()
                numbers = {"loss": verdict.loss, "lr": rate, "epoch": done / steps_per_epoch}
                numbers |= {name: float(number) for name, number in out.numbers.items()}
                journal.write(done, {**numbers, "images_per_second": speed, "data_wait_share": waiting})
                progress.update(
                    done,
                    f"epoch {done / steps_per_epoch:.1f}/{config.optim.epochs} · loss {verdict.loss:.4f} "
                    f"· lr {rate:.4g} · {speed:.0f} images/s · data wait {waiting:.0%}",
                )
            if config.monitor.health_every and done % config.monitor.health_every == 0:
                health = projection_health(*[collectives.all_gather(z) for z in out.projections[:2]])
                journal.write(done, health)
                text = watch.check(done, health, config.options.collapse_causes)
                alarm(text, config.monitor.on_collapse, progress)
            if config.monitor.gradients_every and done % config.monitor.gradients_every == 0:
                check_gradients(done, painted)
                clock.lap()  # its time is not training's
            if exit_status is None and knn_is_due(config, done, steps_per_epoch, steps):
                check_knn(done)
                clock.lap()  # its time is not training's
            if runtime.is_main and save_is_due(config, done, steps, saved_at, exit_status):
                checkpoints.save(state(done), done)
                saved_at = time.monotonic()
            if exit_status is not None:
                break
        progress.close()
        collectives.barrier()
        if exit_status is not None:
            if runtime.is_main:
                say(f"stopped on a signal after step {done} of {steps}; go on with --resume")
            sys.exit(exit_status)
        if not runtime.is_main:
            return None
        if tally.count:
            say(tally.summary())
        return summarise(config, journal, monitor, watch, images, checkpoints.published, steps)


def find_start(checkpoints: Checkpoints, runtime: Runtime, *, resume: bool) -> dict[str, Any] | None:
    """The state to go on from; None begins a new run, which an old run's folder refuses."""
    if runtime.is_main:
        checkpoints.clean()
    if resume:
        saved = checkpoints.load_newest(say if runtime.is_main else lambda _: None)
        step = saved["progress"]["step"] if saved is not None else 0
        if collectives.broadcast_object(step) != step:
            raise UserError(
                "not every rank finds the same checkpoint: put --run.dir on a disk that all machines share"
            )
        if runtime.is_main:
            checkpoints.publish_newest()
            if saved is None:
                say(f"nothing to resume in {checkpoints.folder.parent}: starting from the beginning")
        return saved
    if checkpoints.any():
        raise UserError(
            f"{checkpoints.folder.parent} holds a run already: go on with it by --resume, choose another "
            "folder with --run.dir, or remove it"
        )
    collectives.barrier()
    return None


def open_pretraining_images(data: DataConfig) -> ImageSet:
    """The images that the run learns from; their labels, if any, are for options that ask for some."""
    return open_images(
        data.name,
        root=data.root,
        split=data.split,
        download=data.download,
        list_file=data.list_file,
        size=data.size,
        count=data.count,
    )


def build_monitor(config: PretrainConfig, views: Recipe, runtime: Runtime) -> KnnMonitor | None:
    """The kNN check on the labelled split, or None (with a word why) where there are no labels."""
    data, settings = config.data, config.monitor
    if not settings.knn_every:
        return None
    if data.name == "flat":
        if runtime.is_main:
            say("no kNN check: a flat folder has no labels")
        return None
    options = {"download": data.download, "list_file": data.list_file, "size": data.size, "count": data.count}
    with collectives.rank_by_rank(needed=data.download):
        bank, test = open_labelled(data.name, root=data.root, test_split=data.test_split, **options)
    transform = evaluation_transform(
        views.views[0].size, bank.image_size, views.mean, views.std, views.views[0].interpolation
    )
    return KnnMonitor(
        bank, test, transform, runtime, settings.knn_k, settings.knn_temperature, settings.knn_bank,
        workers=count_workers(data, bank, runtime),
    )  # fmt: skip


def open_journal(config: PretrainConfig, folder: Path, start: int, runtime: Runtime) -> Journal:
    """The run's journal on rank 0, and the configuration beside it; other ranks keep theirs in memory."""
    if not runtime.is_main:
        return Journal(None)
    write_text(folder / "config.json", to_json(as_dict(config)) + "\n")
    return Journal(
        folder,
        start=start,
        tensorboard=config.log.tensorboard,
        wandb=config.log.wandb,
        config=as_dict(config),
    )


def introduce(
    config: PretrainConfig, runtime: Runtime, images: ImageSet, method: Method, start: int, steps: int
) -> None:
    """Tells people what is about to happen."""
    if not runtime.is_main:
        return
    weights = sum(p.numel() for p in method.parameters()) / 1e6
    say(
        f"{config.method.name} · {config.backbone.name} ({weights:.1f} M weights with heads) · {len(images)} "
        f"images of {images.name}/{images.split} · batch {config.optim.batch} on {runtime.world_size} x "
        f"{runtime.device.type} in {runtime.precision} · steps {start} to {steps} · {config.run.dir}"
    )
    if config.optim.accumulate > 1:
        say(
            f"optim.accumulate {config.optim.accumulate}: batch-norm statistics are those of "
            f"{config.optim.batch // runtime.world_size // config.optim.accumulate} images a rank, not of "
            "the whole batch"
        )


def count_workers(data: DataConfig, images: ImageSet, runtime: Runtime) -> int:
    """Worker processes for a rank: as asked, or enough for a GPU; none on the CPU for images in memory."""
    if data.workers is not None:
        return data.workers
    share = max(1, cpu_count() // runtime.local_world_size)
    if runtime.device.type == "cpu":
        return 0 if images.image_size is not None else max(1, share // 2)
    return min(8, share)


def alarm(text: str | None, on_collapse: str, progress: StepProgress) -> None:
    """Says or raises a collapse alarm, as the configuration wants."""
    if text is None or on_collapse == "ignore":
        return
    if on_collapse == "stop":
        raise UserError(text + "; stopped as monitor.on_collapse asks")
    progress.say(text)


def knn_is_due(config: PretrainConfig, done: int, steps_per_epoch: int, steps: int) -> bool:
    """After every `knn_every` epochs and at the end."""
    every = config.monitor.knn_every
    return bool(every) and (done == steps or done % (every * steps_per_epoch) == 0)


def save_is_due(
    config: PretrainConfig, done: int, steps: int, saved_at: float, exit_status: int | None
) -> bool:
    """Every so many steps or minutes, at the end, and before leaving on a signal."""
    often, minutes = config.checkpoint.every_steps, config.checkpoint.every_minutes
    return (
        done == steps
        or exit_status is not None
        or (often > 0 and done % often == 0)
        or (minutes > 0 and time.monotonic() - saved_at >= 60 * minutes)
    )


def summarise(
    config: PretrainConfig,
    journal: Journal,
    monitor: KnnMonitor | None,
    watch: CollapseWatch,
    images: ImageSet,
    published: Path,
    steps: int,
) -> dict[str, Any]:
    """The record of a finished run: last loss and health, kNN with its baselines, and where the file is."""
    wanted = ["loss", "health/std", "health/effective_rank", "health/centre_norm", "health/view_cosine"]
    if monitor:
        top1 = monitor.name
        wanted += [
            top1,
            top1.replace("top1", "top5"),
            f"baseline/pixels/{top1}",
            f"baseline/untrained/{top1}",
        ]
    metrics = {name: journal.series(name)[-1][1] for name in wanted if journal.series(name)}
    metrics["collapse_alarms"] = len(watch.alarms)
    say(f"done: {published}")
    return record(
        "pretrain",
        metrics,
        {"config": as_dict(config), "steps": steps, **(monitor.protocol if monitor else {})},
        checkpoint=str(published),
        data_fingerprint=images.fingerprint,
    )


def preview(config: PretrainConfig, path: Path) -> dict[str, Any]:
    """Writes a grid of views as the run would see them."""
    images = open_pretraining_images(config.data)
    views = config.views.build()
    reader = ReplacingReader(images)
    failures = write_preview(path, ViewSet(reader, views, config.run.seed, len(images)))
    for where, why in failures:
        say(f"replaced an unreadable image: {where} ({why})")
    say(f"wrote {path}: each row is an image and its views by the recipe {views.name}")
    for line in views.describe():
        say(line)
    protocol = {"recipe": views.name, "views": views.describe()}
    return record("preview", {"unreadable": len(failures)}, protocol, picture=str(path))


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest valid checkpoint of run.dir"
    )
    parser.add_argument(
        "--resume_from_backbone",
        metavar="CKPT",
        default=None,
        help="start from this backbone, with new heads",
    )
    parser.add_argument("--preview", metavar="PNG", default=None, help="write a grid of views and end")


if __name__ == "__main__":
    run(main)
