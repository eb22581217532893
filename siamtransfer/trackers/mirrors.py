"""The viewers of a training: rows go to them as well, and a viewer that fails does not stop the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from siamtransfer.records.metric_names import with_aliases
from siamtransfer.trackers.targets import DEFAULT_PROJECT, reason_of, require_package
from siamtransfer.utils.disk_errors import FULL, LOST, cannot_write
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import flatten


class Viewer(Protocol):
    """A program that shows the rows of a run."""

    def write(self, step: int, numbers: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class Mirrors:
    """The open viewers of a run by name. The first failure of one is told, and it gets no more rows.

    Attributes:
        disk_failure: the sentence about a viewer's file whose disk is full or has failed, which is that of
            the run; None where there is none.
    """

    def __init__(self, viewers: Mapping[str, Viewer]):
        self._viewers = dict(viewers)
        self.disk_failure: UserError | None = None

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Passes a row on, with plain aliases of the names."""
        row = with_aliases(numbers)
        for name in list(self._viewers):
            self._attempt(name, f"takes no more rows from step {step} on", "write", step, row)

    def close(self) -> None:
        """Closes all; a second call changes nothing."""
        for name in list(self._viewers):
            self._attempt(name, "could not be closed", "close")
        self._viewers.clear()

    def _attempt(self, name: str, consequence: str, method: str, *arguments: Any) -> None:
        try:
            getattr(self._viewers[name], method)(*arguments)
        except Exception as error:  # no viewer's error may cost the run
            say(f"{name} {consequence} ({reason_of(error)}); metrics.jsonl has them all")
            del self._viewers[name]
            if isinstance(error, OSError) and error.errno in FULL | LOST and error.filename:
                self.disk_failure = cannot_write(error.filename, error)


def open_mirrors(
    run: Path,
    config: dict[str, Any],
    *,
    start: int = 0,
    tensorboard: bool = True,
    wandb: bool = False,
    mlflow: bool | str = False,
) -> Mirrors:
    """The viewers of the run in the folder `run`, which goes on after step `start`.

    Args:
        mlflow: its tracking URI, or True: that of MLFLOW_TRACKING_URI.

    Raises:
        UserError: a package is missing, or a viewer cannot be opened.
    """
    viewers: dict[str, Viewer] = {}
    try:
        if tensorboard:
            from siamtransfer.trackers.tensorboard_events import TensorBoardRun

            try:
                viewers["TensorBoard"] = TensorBoardRun(run / "tensorboard", start)
            except OSError as error:
                raise cannot_write(run / "tensorboard", error) from error
        if wandb:
            viewers["W&B"] = _open_wandb(run, config)
        if mlflow:
            viewers["MLflow"] = _open_mlflow(run, config, "" if mlflow is True else mlflow)
    except BaseException:
        Mirrors(viewers).close()
        raise
    return Mirrors(viewers)


def _open_wandb(run: Path, config: dict[str, Any]) -> Viewer:
    from siamtransfer.trackers.weights_and_biases import WandbRun

    require_package("wandb", "log.wandb", "--log.wandb false")
    try:
        return WandbRun(DEFAULT_PROJECT, run.resolve().name, config, folder=run)
    except UserError:
        raise
    except Exception as error:
        raise _not_opened("log.wandb", error) from error


def _open_mlflow(run: Path, config: dict[str, Any], uri: str) -> Viewer:
    from siamtransfer.trackers.document import as_text
    from siamtransfer.trackers.mlflow_runs import MlflowRun, look_at

    require_package("mlflow", "log.mlflow", "--log.mlflow false")
    parameters = {key: as_text(value) for key, value in flatten(config).items()}
    try:
        look_at(uri)
        return MlflowRun(uri, run.resolve().name, parameters, folder=run)
    except UserError:
        raise
    except Exception as error:
        raise _not_opened("log.mlflow", error) from error


def _not_opened(option: str, error: Exception) -> UserError:
    return UserError(f"{option} cannot be used: {reason_of(error)}")
