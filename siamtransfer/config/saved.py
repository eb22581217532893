"""The configuration that a run has saved, and what may differ from it when the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siamtransfer.config.pretrain import PretrainConfig
from siamtransfer.config.sections import MethodConfig
from siamtransfer.data.pixel_form import DEPTH_OPTIONS, FILE_OPTIONS, recorded_form
from siamtransfer.methods.registry import METHODS, RENAMED, current_names, section_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.json_file import read_checked_json
from siamtransfer.utils.strict_json import flatten
from siamtransfer.views.config import ViewsConfig


def read_saved_config(folder: Path) -> dict[str, Any]:
    """The configuration in a run's folder.

    Raises:
        UserError: there is none, it is damaged, or it is none of ours.
    """
    file = folder / "config.json"
    try:
        tree = read_checked_json(file)
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run: there is no {file.name} in it") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged: give the run's --config again") from error
    if not _has_sections(tree):
        raise UserError(f"{file} is no configuration: give the run's --config again")
    return current_names(tree)


def _has_sections(tree: Any) -> bool:
    """Whether this is an object of sections, also those of older versions, that are objects or null, with a
    method that has a name."""
    if not isinstance(tree, dict) or not all(isinstance(section, dict | None) for section in tree.values()):
        return False
    if not isinstance((tree.get("method") or {}).get("name", ""), str):
        return False
    sections = [key.split(".")[:-1] for key in RENAMED]
    for names in sections:
        options: Any = tree
        for name in names:
            options = options.get(name) or {}
            if not isinstance(options, dict):
                return False
    return True


FREE_ON_RESUME = (
    "run.dir",
    "data.name",  # the fingerprint tells whether the images are the same: a folder goes on as shards
    "data.root",
    "data.parts",  # likewise
    "data.download",
    "data.workers",
    "data.max_unreadable",
    "hardware.device",
    "hardware.precision",
    "hardware.threads",
    "hardware.timeout_minutes",
    "hardware.sync_batch_norm_kind",
    "hardware.compile",
    "hardware.guard",
    "hardware.cuda_graph",
    "hardware.prefetch",
    "hardware.activation_checkpointing",
    "hardware.shard",
    "checkpoint.",
    "monitor.on_collapse",
    "adapt.max_drop",
    "adapt.on_forgetting",
    "log.",
)
"""Keys that may differ between a run and its resumption, for they change no number by more than rounding."""


NETWORK = ("backbone.name", "backbone.width", "backbone.stem", "backbone.norm")
"""Keys that may be null in a run from weights, and say then what the file says."""


def _number_of_views(saved: Mapping[str, Any]) -> int:
    """Views of an image in a saved configuration; 2 where its section of views is not known."""
    try:
        return len(ViewsConfig.from_dict(saved["views"]).build().views)
    except (UserError, TypeError, AttributeError):
        return 2


def refuse_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raises UserError when two configurations (as dicts) differ in a key that matters; lists all such keys.

    A run may get more epochs, not fewer. `saved` may be an older version's: keys that it lacks count as
    having had their defaults. A key of NETWORK that is null on one side is not compared: `require_network`
    (pretraining/start.py) compares the network.
    """
    if not _has_sections(saved) or (saved.get("method") or {}).get("name") not in METHODS:
        raise UserError(
            "the configuration in the checkpoint to resume is none of this program: start afresh in another "
            "--run.dir"
        )
    saved = current_names(saved, views=_number_of_views(saved))
    method = saved["method"]["name"]
    defaults = PretrainConfig(method=MethodConfig(method)).as_dict()
    old, new = flatten(defaults) | flatten(dict(saved)), flatten(dict(current))
    for key in NETWORK:
        if old.get(key) is None or new.get(key) is None:  # that of the weights, which the checkpoint records
            old[key] = new[key]
    form = recorded_form(saved.get("data") or {})
    for key in (*DEPTH_OPTIONS, *FILE_OPTIONS):  # what is left open is that of the checkpoint or of the set
        name = f"data.{key}"
        old[name] = new.get(name) if new.get(name) is None else form.get(key)
    free: tuple[str, ...] = FREE_ON_RESUME
    if method != current["method"]["name"]:
        free += tuple(f"{section_of(name)}." for name in METHODS)  # the name says enough
    before, now = old["optim.epochs"], new["optim.epochs"]
    comparable = isinstance(now, int) and isinstance(before, int)
    longer = comparable and now > before
    if comparable and now < before:
        raise UserError(
            f"the run to resume has optim.epochs {before}, and a run can get more epochs, not "
            "fewer: leave --optim.epochs out, or start afresh in another --run.dir"
        )
    free += ("optim.epochs",) if longer else ()
    differing = [
        f"{key} {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(free)
    ]
    if differing:
        raise UserError(
            f"the run to resume has another configuration ({'; '.join(differing)}): give it the same "
            f"(--resume {current['run']['dir']} without other words takes the run's own), "
            "or start afresh in another --run.dir"
        )
