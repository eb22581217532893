"""MLflow: a run with its parameters, numbers, and a record as an artefact."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from siamtransfer.trackers.document import Document, finite_numbers
from siamtransfer.trackers.kept_ids import read_kept_id
from siamtransfer.trackers.names import as_files, mapped_names, to_mlflow
from siamtransfer.trackers.targets import DEFAULT_PROJECT, reason_of
from siamtransfer.utils.files import write_checked_text
from siamtransfer.utils.log import say

T = TypeVar("T")

MOST_METRICS, MOST_PARAMETERS = 1000, 100  # in a request
VALUE_LENGTH = 6000  # of a parameter
CUT = " … (cut)"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"  # MLflow's own variable
_QUICKLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowRun:
    """An open run on the tracking server, or in the store, `uri`; empty: where MLFLOW_TRACKING_URI says.

    Args:
        folder: of a pretraining run: where the id is kept by which a resumed run goes on.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        parameters: Mapping[str, str],
        *,
        folder: Path | None = None,
        labels: Mapping[str, str] | None = None,
    ):
        self._client = _client(uri)
        self._in_files = _is_folder(self._client.tracking_uri)
        known = None if folder is None else read_kept_id(folder / "mlflow_id.txt", "MLflow")
        self._id = None if known is None else self._go_on(known)
        if self._id is None:
            tags = {"mlflow.runName": name, **(labels or {})}
            self._id = self._client.create_run(self._experiment(), tags=tags).info.run_id
            if folder is not None:
                write_checked_text(folder / "mlflow_id.txt", f"{self._id}\n")
            self._log_parameters(parameters)

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """The finite numbers at `step`."""
        from mlflow.entities import Metric

        finite, now = finite_numbers(numbers), round(time.time() * 1000)
        names = mapped_names(finite, to_mlflow)
        if self._in_files:
            names = as_files(names)
        metrics = [Metric(names[name], value, now, step) for name, value in finite.items()]
        for some in _portions(metrics, MOST_METRICS):
            self._client.log_batch(self._id, metrics=some)

    def log(self, document: Document) -> None:
        """The numbers of a record; the record and the files beside it as artefacts."""
        self.write(0, document.numbers)
        self._client.log_text(self._id, document.text, "record.json")
        for path in document.beside:
            self._client.log_artifact(self._id, str(path))

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._id)

    def _go_on(self, known: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(known, status="RUNNING")
        except MlflowException as error:
            say(f"MLflow does not know the run {known} ({reason_of(error)}): it goes on as a new one")
            return None
        return known

    def _experiment(self) -> str:
        name = os.environ.get(EXPERIMENT) or DEFAULT_PROJECT
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found is not None else self._client.create_experiment(name)

    def _log_parameters(self, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        names = mapped_names(parameters, to_mlflow)
        entries = [Param(names[key], _cut(value)) for key, value in parameters.items()]
        for some in _portions(entries, MOST_PARAMETERS):
            self._client.log_batch(self._id, params=some)


def look_at(uri: str) -> None:
    """Asks the server or the store for an experiment, with little patience. It raises what MLflow raises."""
    with _environment(_QUICKLY):
        _client(uri).get_experiment_by_name(DEFAULT_PROJECT)


def _client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri or None)


def _is_folder(uri: str) -> bool:
    return urlsplit(uri).scheme in ("", "file") and uri not in ("databricks", "databricks-uc")


def _cut(value: str) -> str:
    return value if len(value) <= VALUE_LENGTH else value[: VALUE_LENGTH - len(CUT)] + CUT


def _portions(entries: Sequence[T], most: int) -> Iterator[list[T]]:
    for start in range(0, len(entries), most):
        yield list(entries[start : start + most])


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """The variables, where they are not set, for the block."""
    new = [key for key in values if key not in os.environ]
    os.environ.update({key: values[key] for key in new})
    try:
        yield
    finally:
        for key in new:
            del os.environ[key]
