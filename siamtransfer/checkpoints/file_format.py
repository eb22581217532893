"""The description of a checkpoint format: where a file holds its backbones, and rules for all other keys.

formats.py has the table of the formats that are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from siamtransfer.checkpoints.normalisation import IMAGENET, SWAV, Normalisation

__all__ = [
    "AVERAGES",
    "IMAGENET",
    "SWAV",
    "TRAINING",
    "USUAL_PATHS",
    "Branch",
    "Format",
    "KeyPath",
    "Normalisation",
    "branches",
]

KeyPath = tuple[str, ...]
"""The keys that lead from the content of a file to a dict inside it; () is the content itself."""


TORCHVISIONS: Mapping[str, Any] = {
    "normalisation": IMAGENET,
    "channels": "rgb",
    "stride_in_1x1": False,
    "output_stride": 32,
}
"""How torchvision's ResNets are to be read, whatever their stem."""

USUAL_PATHS: tuple[KeyPath, ...] = (
    (),
    ("state_dict",),
    ("model",),
    ("model_state_dict",),
    ("model_state",),
    ("net",),
    ("module",),  # DeepSpeed
)
# Entries beside the tensors that belong to training and may hold tensors of their own.
TRAINING = frozenset(
    {
        *("optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim"),
        *("scheduler", "lr_scheduler", "lr_schedulers", "scheduler_state_dict", "param_schedulers"),
        *("scaler", "fp16_scaler", "amp", "amp_scaler", "loss_scaler", "rng", "rng_state"),
        *("callbacks", "loops", "message_hub", "meters", "hooks", "history", "loss"),
        *("args", "cfg", "config", "hyper_parameters"),
    }
)
# Entries that hold a moving average of all weights beside those weights themselves.
AVERAGES = ("model_ema", "ema", "state_dict_ema", "ema_state_dict", "ema_model", "model_ema_state_dict")


@dataclass(frozen=True)
class Branch:
    """One of the backbones in a file.

    Attributes:
        prefix: the beginning of its tensors' names, which is removed.
        key_path: the dict that holds it, where a format stores each branch in a dict of its own.
        head: the rule for tensors at the place of its classifier (see classifier_place.py), where the format
            has a projector or a classifier there; None: such tensors are the network's own.
    """

    prefix: str = ""
    key_path: KeyPath | None = None
    head: str | None = None


def branches(**prefixes: str) -> dict[str, Branch]:
    """Branches by name, given by their prefixes."""
    return {name: Branch(prefix) for name, prefix in prefixes.items()}


@dataclass(frozen=True)
class Format:
    """One way in which a public code base stores backbones.

    Attributes:
        name: what a record of the reading calls the format.
        what: the format in words, for error messages.
        branches: the backbones by name, the default one first.
        key_paths: where the dict of tensors may be; the first that exists is read.
        drops: rules for all other keys: the beginning of a key, and the name of the rule. Of several
            beginnings the longest decides. A beginning that ends in a dot matches all that follows. One that
            does not matches the word itself, and the word followed by a dot, an underscore or a digit.
        marks: beginnings of keys, alternatives separated by |. For each mark a key must exist, otherwise the
            file is of another format.
        siblings: entries that may hold tensors beside the key path's own, in addition to TRAINING.
        needs: entries that the content must have.
        method: the pretraining method, where the format implies it.
        fixes: what the code base always does (see reading.py), by the kind of network: "7x7" and "3x3",
            a ResNet by the kernel of its stem, and "vit", whose `heads` is None for timm's number of them.
        headed: heads stand beside a backbone under names that several code bases use.
        rename: from the name after the prefix to torchvision's or timm's name; raises ValueError for a name
            that has none.
        convert: from the tensors of a branch to torchvision's or timm's, where more than names differ; raises
            ValueError for a tensor that it does not know.
        networks: a regular expression for a part of the names of its networks, which decides between networks
            with the same tensors.
        pool: what the authors take as the feature where timm takes something else: `token`, the class token.
        norm_eps: the epsilon of the layer norms of timm's networks, where timm's own is another.
        notes: sentences on what differs from the authors' network, which every reading states.
    """

    name: str
    what: str
    branches: Mapping[str, Branch] = field(default_factory=lambda: {"model": Branch()})
    key_paths: tuple[KeyPath, ...] = USUAL_PATHS
    drops: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    siblings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    method: str | None = None
    fixes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    headed: bool = False
    rename: Callable[[str], str] = str
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    networks: str = ""
    pool: str | None = None
    norm_eps: float | None = None
    notes: tuple[str, ...] = ()
