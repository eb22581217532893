"""The checkpoints of a gradient view, with the images and the recipe that each records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.checkpoints.training_state import read_state
from siamtransfer.data import ImageSet, open_images
from siamtransfer.data.imageset import channels_of, require_same_images
from siamtransfer.data.pairs import PairImages
from siamtransfer.data.recorded_form import form_as_recorded
from siamtransfer.data.registry import PAIR_OPTIONS
from siamtransfer.evaluation.gradient_view.config import GradientsConfig
from siamtransfer.evaluation.gradient_view.forms import require_form
from siamtransfer.methods import METHODS, Method, saved_options, section_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_outputs
from siamtransfer.views.channels import recipe_for
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.view_spec import Recipe


@dataclass(eq=False)
class RunCheckpoint:
    """A checkpoint of a run, the images and the recipe that it records, and the size of a batch."""

    read: ReadBackbone
    images: ImageSet
    recipe: Recipe
    batch_size: int

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration."""
        return cast(dict[str, Any], self.read.meta["config"])

    @property
    def step(self) -> int:
        """The steps that it was trained for."""
        return int(self.read.meta["progress"]["step"])

    @property
    def run(self) -> str:
        """The label of the run's curve: the method and the run's folder."""
        return f"{self.config['method']['name']} ({self.config['run']['dir']})"

    @property
    def protocol(self) -> dict[str, Any]:
        """What the checkpoint's numbers depend on, for the record."""
        return {
            "checkpoint": self.read.path,
            "run": self.run,
            "step": self.step,
            "images": f"{self.images.name}/{self.images.split}",
            "recipe": self.recipe.name,
            "batch": self.batch_size,
            "method": self.config[section_of(self.config["method"]["name"])],
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """What the checkpoint's numbers are computed from."""
        return {
            "checkpoint": self.read.path,
            "weights_digest": self.read.digest,
            "data_fingerprint": self.images.fingerprint,
        }


def find_checkpoints(config: GradientsConfig) -> list[Path]:
    """The files that the options name, and of folders every .pth in them, in the order of their names.

    Raises:
        UserError: a folder holds none, or the plot would replace one.
    """
    paths: list[Path] = []
    for source in map(Path, config.checkpoints):
        files = sorted(source.glob("*.pth")) if source.is_dir() else [source]
        if not files:
            raise UserError(f"{source} holds no .pth files: name a run's folder checkpoints, or a checkpoint")
        paths += files
    if config.plot is not None:
        for path in paths:
            refuse_outputs(str(path), [Path(config.plot)], force=True)
    return paths


def open_checkpoints(paths: Sequence[Path], config: GradientsConfig, world_size: int) -> list[RunCheckpoint]:
    """Reads the record of every file and opens the images, before any is measured.

    Raises:
        UserError: a file is not ours, its method has no gradient view, or its images do not suffice.
    """
    opened: dict[str, ImageSet] = {}
    return [_open(path, config, opened, world_size) for path in paths]


def _open(path: Path, config: GradientsConfig, opened: dict[str, ImageSet], world_size: int) -> RunCheckpoint:
    read = read_backbone(path)
    if read.format != FORMAT:
        raise UserError(
            f"{path} is {read.format}, and the gradient is one of heads and loss too: only checkpoints of "
            "pretrain/main.py hold them"
        )
    recorded = read.meta["config"]
    keys = ("name", "root", "split", "list_file", "parts", "size", "count", "frames_gap", *PAIR_OPTIONS)
    data = {key: recorded["data"].get(key) for key in keys}
    data |= form_as_recorded(recorded["data"], recorded["data"]["name"])
    data |= {key: value for key in ("root", "list_file") if (value := getattr(config.data, key)) is not None}
    key = json.dumps(data)
    if key not in opened:
        opened[key] = open_images(data.pop("name"), **data)
    images, normalisation = opened[key], read.normalisation
    if isinstance(images, PairImages):
        raise UserError(
            f"{path} learned from pairs, and views here are cut from one image: the gradient view of such a "
            "run is measured while it trains, by --monitor.gradients_every"
        )
    views = ViewsConfig.from_dict(recorded["views"])
    recipe = recipe_for(
        replace(views, mean=None, std=None), channels_of(images), recorded["data"].get("rgb"), normalisation
    )
    require_form(saved_options(recorded)[1], len(recipe.views))
    optim = recorded["optim"]
    batch_size = config.batch_size or optim["batch_size"] // optim["grad_accum_steps"]
    if batch_size % world_size:
        raise UserError(f"--batch-size {batch_size} cannot be shared equally by {world_size} ranks")
    if batch_size * config.batches > len(images):
        raise UserError(
            f"{config.batches} batches of {batch_size} are more than the {len(images)} images of "
            f"{images.name}/{images.split}: lower --batches or --batch-size"
        )
    return RunCheckpoint(read, images, recipe, batch_size)


def restore_method(checkpoint: RunCheckpoint) -> Method:
    """The method as it was saved, with all its heads, targets and buffers.

    Raises:
        UserError: the images are not those of the run, or the file does not hold what its configuration says.
    """
    read = checkpoint.read
    state = read_state(Path(read.path))
    data = state["data"]
    require_same_images(checkpoint.images, fingerprint=data["fingerprint"], count=data["images"])
    try:
        name, options = saved_options(state["config"])
        method = METHODS[name](read.architecture.build(), options)
        method.load_state_dict(state["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{read.path} does not hold the method that its configuration says: {reason}"
        ) from error
    return method
