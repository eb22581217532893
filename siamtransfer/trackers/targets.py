"""What `--track` names: `tensorboard:FOLDER`, `wandb[:PROJECT]`, `mlflow[:URI]`. Imports none of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from siamtransfer.utils.errors import UserError

Kind = Literal["tensorboard", "wandb", "mlflow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT_PROJECT = "siamtransfer"
NEEDED: dict[Kind, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "siamtransfer[wandb]"),
    "mlflow": ("mlflow", "siamtransfer[mlflow]"),
}
"""The module of each, and what pip installs it by."""


class Target(NamedTuple):
    """A tracker and its place: the folder of TensorBoard, the project of W&B, the tracking URI of MLflow;
    empty for the default of W&B and MLflow."""

    kind: Kind
    place: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" if self.place else self.kind


def reason_of(error: Exception) -> str:
    """What went wrong at a tracker, in one line without its full stop."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def parse_targets(texts: Sequence[str], option: str = "--track") -> list[Target]:
    """The trackers that `option` names, none twice, each with its package installed.

    Raises:
        UserError: a text names no tracker, or TensorBoard without a folder, or one comes twice, or a package
            is missing.
    """
    targets: list[Target] = []
    for text in texts:
        kind, _, place = text.partition(":")
        if kind not in KINDS:
            raise UserError(
                f"{option} {text} names no tracker: give tensorboard:FOLDER, wandb, wandb:PROJECT, mlflow or "
                "mlflow:URI"
            )
        target = Target(kind, place)
        if kind == "tensorboard" and not place:
            raise UserError(f"{option} tensorboard needs a folder: give tensorboard:FOLDER")
        if kind == "mlflow":
            refuse_password(place, f"{option} mlflow:URI")
        if target in targets:
            raise UserError(f"{option} {text} is given twice: leave one out")
        require_package(kind, f"{option} {kind}")
        targets.append(target)
    return targets


def refuse_password(uri: str, option: str) -> None:
    """Raises UserError for a URI with a password, which records and configurations would keep."""
    try:
        password = urlsplit(uri).password
    except ValueError as error:
        raise UserError(f"{option} is no URI: {error}") from error
    if password is not None:
        raise UserError(
            f"{option} holds a password, which would be written down: leave it out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )


def require_package(kind: Kind, what: str, instead: str = "leave it out") -> None:
    """Raises UserError where the package of a tracker is not installed; `what` is the option that asks for
    it, and `instead` the cure besides installing it."""
    module, package = NEEDED[kind]
    try:
        missing = importlib.util.find_spec(module) is None
    except ValueError:  # a module that was made up in sys.modules has no spec
        missing = False
    except ImportError:
        missing = True
    if missing:
        raise UserError(f"{what} needs the package {module}: pip install '{package}', or {instead}")
