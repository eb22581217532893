"""All that a checkpoint of a pretraining run restores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from siamtransfer.checkpoints.declaration import FORMAT, KEYS, VERSION, declare
from siamtransfer.checkpoints.normalisation import Normalisation
from siamtransfer.config import PretrainConfig, refuse_differences
from siamtransfer.data.imageset import ImageSet, require_same_images
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.distributed.sharding import whole_state
from siamtransfer.methods import Method
from siamtransfer.optim.optimizers import build_optimizer, load_optimizer
from siamtransfer.pretraining.build import build_method, describe_backbone, fill_backbone
from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.pretraining.memory_saving import sharded_units
from siamtransfer.training.compiling import compile_backbones
from siamtransfer.training.device_guard import DeviceGuard, refuse_late_guard
from siamtransfer.training.loss_scale import load_loss_scale
from siamtransfer.training.recompute import recompute_blocks
from siamtransfer.training.step import Updater, forward_backward
from siamtransfer.training.step_graph import StepGraph, refuse_graph
from siamtransfer.utils.log import say
from siamtransfer.views.view_spec import Recipe


@dataclass
class TrainState:
    """The method's parameters and buffers, the optimizer, the loss scaler, the step and the collapse watch.

    The configuration, the images and the views' recipe are not restored. They go into the checkpoint so that
    a run with other ones is refused.

    Attributes:
        step: how many steps are done.
        updater: the distributed method with its optimizer and loss scaler; set by `distribute`.
    """

    config: PretrainConfig
    images: ImageSet
    recipe: Recipe
    method: Method
    collapse: CollapseWatch
    step: int = 0
    updater: Updater | None = None
    _saved: dict[str, Any] | None = None

    @classmethod
    def build(cls, config: PretrainConfig, images: ImageSet, recipe: Recipe) -> TrainState:
        """The state before the first step, on the CPU; initial weights come from torch's generator."""
        method = build_method(config)
        method.prepare(len(images), None if images.labels is None else torch.tensor(images.labels))
        options = config.options
        collapse = CollapseWatch(options.least_std, options.least_rank_fraction)
        return cls(config, images, recipe, method, collapse)

    def load_backbone(self, runtime: Runtime) -> None:
        """Takes the backbone's weights from the checkpoint `backbone.weights`; the heads stay new.

        Raises:
            UserError: there is no such file or branch, or it is of another architecture.
        """
        images = Normalisation(tuple(self.recipe.mean), tuple(self.recipe.std))
        summary = fill_backbone(self.method, self.config.backbone, images)
        if runtime.is_main:
            say(f"the backbone starts from {summary}")

    def restore(self, saved: dict[str, Any]) -> None:
        """Continues from the checkpoint `saved`. The optimizer and the scaler, which are built on the device,
        take their part of it in `distribute`.

        Raises:
            UserError: the checkpoint is of another configuration or of other images.
        """
        refuse_differences(saved["config"], self.config.as_dict())
        data = saved["data"]
        require_same_images(self.images, fingerprint=data["fingerprint"], count=data["images"])
        self.method.load_state_dict(saved["model"])
        self.step = saved["progress"]["step"]
        self.collapse = CollapseWatch(**saved["progress"]["collapse"])
        self._saved = saved

    def distribute(self, runtime: Runtime) -> Updater:
        """Moves the method to its device, wraps it for several ranks, and builds what updates it.

        Raises:
            UserError: hardware.guard or hardware.cuda_graph does not go together with the run.
        """
        hardware = self.config.hardware
        sharded = hardware.shard == "fsdp2"
        # FSDP2 takes contiguous parameters only.
        self.method.to(memory_format=torch.contiguous_format if sharded else torch.channels_last)
        model = runtime.distribute(
            self.method,
            synchronise_batch_norm=hardware.sync_batch_norm,
            kind=hardware.sync_batch_norm_kind,
            units=sharded_units(self.method) if sharded else None,
        )
        if hardware.activation_checkpointing:
            recompute_blocks(self.method.backbone)
        if hardware.compile:
            compile_backbones(self.method)
        optimizer = build_optimizer(self.config.optim, self.method.groups())
        self.updater = self._updater(model, optimizer, runtime)
        if self._saved is not None:
            load_optimizer(optimizer, self._saved["optimizer"])
            saved = self._saved
            load_loss_scale(self.updater.scaler, saved["scaler"], runtime, saved.get("precision"))
            self._saved = None
        return self.updater

    def _updater(self, model: nn.Module, optimizer: torch.optim.Optimizer, runtime: Runtime) -> Updater:
        hardware, scaler = self.config.hardware, runtime.scaler()
        updater = Updater(model, optimizer, scaler, runtime, compiled=hardware.compile)
        if hardware.guard == "device":
            refuse_late_guard(runtime)
            updater.late = DeviceGuard(optimizer)
        if hardware.cuda_graph:
            refuse_graph(self.method, runtime, self.config.optim.grad_accum_steps)
            updater.graph = StepGraph(
                self.method, lambda views: forward_backward(model, views, 1, runtime, scaler)
            )
        return updater

    def state_dict(self) -> dict[str, Any]:
        """The checkpoint: tensors, numbers, strings, lists and dicts only. All ranks must call it; of a
        sharded run rank 0 alone gets the values."""
        assert self.updater is not None
        images, steps_per_epoch = self.images, len(self.images) // self.config.optim.batch_size
        return {
            "format": FORMAT,
            "version": VERSION,
            "method": self.config.method.name,
            "model": whole_state(self.method.state_dict()),
            "optimizer": whole_state(self.updater.optimizer.state_dict()),
            "scaler": self.updater.scaler.state_dict(),
            "precision": self.updater.runtime.precision,
            "progress": {
                "step": self.step,
                "epoch": self.step // steps_per_epoch,
                "collapse": vars(self.collapse),
            },
            "config": self.config.as_dict(),
            "backbone": describe_backbone(self.method),
            "normalisation": {"mean": list(self.recipe.mean), "std": list(self.recipe.std)},
            "data": {"name": images.name, "images": len(images), "fingerprint": images.fingerprint},
            KEYS: declare(self.method),
        }
