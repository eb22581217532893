"""All that a checkpoint of a pretraining run restores."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.adaptation.forgetting import ForgettingWatch
from siamtransfer.adaptation.trunk import AdaptedTrunk
from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.checkpoints.declaration import FORMAT, KEYS, declare
from siamtransfer.config import PretrainConfig, refuse_differences
from siamtransfer.data.imageset import ImageSet, require_same_images
from siamtransfer.data.recorded_form import hint_on_parts
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.distributed.sharding import whole_state
from siamtransfer.methods import Method
from siamtransfer.optim.optimizers import build_optimizer, load_optimizer
from siamtransfer.optim.plateau import Plateau
from siamtransfer.pretraining.build import (
    build_method,
    describe_backbone,
    describe_second,
    fill_backbone,
)
from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.pretraining.gradient_norms import SpikeWatch
from siamtransfer.pretraining.memory_saving import sharded_units
from siamtransfer.pretraining.start import Start, require_network
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
    """The method's parameters and buffers, the optimizer, the loss scaler, the step and the watches.

    The configuration, the images and the views' recipe are not restored. They go into the checkpoint so that
    a run with other ones is refused.

    Attributes:
        plateau: what the schedule of that name remembers.
        trunk: what `adapt.` asks of the backbone; set by `adapt`.
        forgetting, start_features: the watch over the retention set, and the features float32[n, D] of its
            fixed images by the network of the start; None without such a set.
        spikes: the watch over the norms of gradients, where they are measured.
        step: how many steps are done.
        extensions: for each time the run got more epochs, the step, and the epochs before and after.
        chosen: why each value has been chosen that the configuration left `auto`, by key.
        updater: the distributed method with its optimizer and loss scaler; set by `distribute`.
    """

    config: PretrainConfig
    images: ImageSet
    recipe: Recipe
    method: Method
    collapse: CollapseWatch
    forgetting: ForgettingWatch = field(default_factory=ForgettingWatch)
    spikes: SpikeWatch = field(default_factory=SpikeWatch)
    start_features: Tensor | None = None
    plateau: Plateau = field(default_factory=Plateau)
    trunk: AdaptedTrunk | None = None
    step: int = 0
    extensions: list[dict[str, int]] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    updater: Updater | None = None
    _saved: dict[str, Any] | None = None

    @classmethod
    def build(
        cls, config: PretrainConfig, images: ImageSet, recipe: Recipe, network: Architecture
    ) -> TrainState:
        """The state before the first step, on the CPU; initial weights come from torch's generator."""
        channels = getattr(images, "column_channels", (None,))
        method = build_method(config, network, channels[-1])
        method.prepare(len(images), None if images.labels is None else torch.tensor(images.labels))
        options = config.options
        collapse = CollapseWatch(options.least_std, options.least_rank_fraction)
        return cls(config, images, recipe, method, collapse)

    def load_backbone(self, start: Start, runtime: Runtime) -> None:
        """Takes the backbone's weights from the start of the run, where it has some; the heads stay new."""
        if start.weights is None:
            return
        fill_backbone(self.method, start.weights)
        if runtime.is_main:
            say(f"the backbone starts from {start.account}")

    def restore(self, saved: dict[str, Any]) -> None:
        """Continues from the checkpoint `saved`. The optimizer and the scaler, which are built on the device,
        take their part of it in `distribute`.

        Raises:
            UserError: the checkpoint is of another configuration or network, or of other images.
        """
        refuse_differences(saved["config"], self.config.as_dict())
        require_network(
            self.config.backbone, Architecture.of(self.method.backbone), "the checkpoint to resume from"
        )
        data = saved["data"]
        hint = hint_on_parts(saved["config"]["data"], self.config.data.name, self.config.data.parts)
        require_same_images(self.images, fingerprint=data["fingerprint"], count=data["images"], hint=hint)
        self.method.load_state_dict(saved["model"])
        self.step = saved["progress"]["step"]
        self.extensions = [*saved["progress"].get("extensions", [])]
        before, now = saved["config"]["optim"]["epochs"], self.config.optim.epochs
        if now > before:
            self.extensions.append({"step": self.step, "epochs_before": before, "epochs": now})
        self.collapse = CollapseWatch(**saved["progress"]["collapse"])
        self.forgetting = ForgettingWatch(**saved["progress"].get("forgetting", {}))
        self.spikes = SpikeWatch(**saved["progress"].get("spikes", {}))
        self.plateau = Plateau(**saved["progress"].get("plateau", {}))
        self.start_features = saved.get("start_features")
        self.chosen = saved.get("chosen", {})
        self._saved = saved

    def adapt(self) -> None:
        """Prepares the backbone, whose weights are loaded, for what `adapt.` asks.

        Raises:
            UserError: it does not go together with this network, or the checkpoint lacks a correction.
        """
        self.trunk = AdaptedTrunk(self.method, self.config.adapt)
        self.trunk.groups()  # refuses networks whose layers are not known
        if self._saved is not None:
            self.trunk.load_state_dict(self._saved.get("lora", {}))

    def distribute(self, runtime: Runtime) -> Updater:
        """Moves the method to its device, wraps it for several ranks, and builds what updates it. During the
        warm-up the backbone is frozen.

        Raises:
            UserError: hardware.guard or hardware.cuda_graph does not go together with the run.
        """
        assert self.trunk is not None
        hardware = self.config.hardware
        # FSDP2 takes contiguous parameters only.
        sharded = hardware.shard == "fsdp2"
        self.method.to(memory_format=torch.contiguous_format if sharded else torch.channels_last)
        model = self._wrap(runtime)
        if hardware.activation_checkpointing:
            recompute_blocks(self.method.backbone)
            if isinstance(second := getattr(self.method, "second_backbone", None), Backbone):
                recompute_blocks(second)
        if hardware.compile:
            compile_backbones(self.method)
        optimizer = build_optimizer(self.config.optim, self.trunk.groups())
        self.updater = self._updater(model, optimizer, runtime)
        if self._saved is not None:
            load_optimizer(optimizer, self._saved["optimizer"])
            saved = self._saved
            load_loss_scale(self.updater.scaler, saved["scaler"], runtime, saved.get("precision"))
            self._saved = None
        if self.step < self.warm_up_steps:
            self.trunk.freeze()
            self._wrap_again(runtime)
        return self.updater

    @property
    def warm_up_steps(self) -> int:
        """How many steps at the start leave the backbone as it is: `adapt.warmup_epochs`, rounded, and at
        least one where that is not 0."""
        epochs = self.config.adapt.warmup_epochs
        return max(round(epochs * self._steps_per_epoch), 1 if epochs else 0)

    def end_warm_up(self, runtime: Runtime) -> None:
        """Lets the backbone learn from the next step on."""
        assert self.trunk is not None and self.updater is not None
        self.updater.settle()
        self.trunk.release()
        self._wrap_again(runtime)

    @property
    def _steps_per_epoch(self) -> int:
        return len(self.images) // self.config.optim.batch_size

    def _wrap(self, runtime: Runtime) -> nn.Module:
        """The method on its device, with gradients averaged over the ranks."""
        hardware = self.config.hardware
        return runtime.distribute(
            self.method,
            synchronise_batch_norm=hardware.sync_batch_norm,
            kind=hardware.sync_batch_norm_kind,
            units=sharded_units(self.method) if hardware.shard == "fsdp2" else None,
        )

    def _wrap_again(self, runtime: Runtime) -> None:
        """Wraps the method anew after parameters were frozen or released, for torch's wrapper asks once which
        ones take gradients; the hooks of the wrapper before go with it."""
        assert self.updater is not None
        if runtime.world_size > 1:
            self.updater.model = self.method
            gc.collect()
            self.updater.model = self._wrap(runtime)

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
        assert self.trunk is not None
        images, corrections = self.images, self.trunk.state_dict()
        return {
            "format": FORMAT,
            "method": self.config.method.name,
            "model": self.trunk.plain_state(whole_state(self.method.state_dict())),
            "optimizer": whole_state(self.updater.optimizer.state_dict()),
            "scaler": self.updater.scaler.state_dict(),
            "precision": self.updater.runtime.precision,
            "progress": {
                "step": self.step,
                "epoch": self.step // self._steps_per_epoch,
                "collapse": vars(self.collapse),
                **({"extensions": self.extensions} if self.extensions else {}),
                **({"plateau": vars(self.plateau)} if self.config.optim.schedule == "plateau" else {}),
                **({"spikes": vars(self.spikes)} if self.spikes.recent else {}),
                **({"forgetting": vars(self.forgetting)} if self.forgetting.start is not None else {}),
            },
            "config": self.config.as_dict(),
            **describe_backbone(self.method),
            **describe_second(self.method, self.recipe),
            "normalisation": {"mean": list(self.recipe.mean), "std": list(self.recipe.std)},
            "data": {"name": images.name, "images": len(images), "fingerprint": images.fingerprint},
            KEYS: declare(self.method),
            **({"lora": corrections} if corrections else {}),
            **({"chosen": self.chosen} if self.chosen else {}),
            **({} if self.start_features is None else {"start_features": self.start_features}),
        }
