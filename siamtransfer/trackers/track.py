"""Records to trackers: looked at before the work, sent after it, and never at the record's expense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from siamtransfer.trackers.document import Document
from siamtransfer.trackers.mlflow_runs import MlflowRun, look_at
from siamtransfer.trackers.targets import DEFAULT_PROJECT, Target, parse_targets, reason_of
from siamtransfer.trackers.tensorboard_events import TensorBoardRun, folder_for
from siamtransfer.trackers.weights_and_biases import WandbRun
from siamtransfer.utils.errors import ErrorAfterRecord, UserError
from siamtransfer.utils.log import say


class _Run(Protocol):
    def log(self, document: Document) -> None: ...

    def close(self) -> None: ...


def look_at_trackers(texts: Sequence[str], option: str = "--track") -> None:
    """Before any work: whether the trackers that `option` names can be reached, as far as that can be asked
    without leaving a trace there. W&B is asked for its package only.

    Raises:
        UserError: one cannot, or a text names none.
    """
    for target in parse_targets(texts, option):
        try:
            if target.kind == "mlflow":
                look_at(target.place)
            elif target.kind == "tensorboard":
                _require_folder(Path(target.place))
        except Exception as error:  # MLflow's, requests', the system's
            raise UserError(f"{option} {target} cannot be used: {reason_of(error)}") from error


def send(documents: Sequence[Document], texts: Sequence[str], option: str = "--track") -> list[str]:
    """Sends records to all the trackers that `option` names. Returns what failed, a part of a sentence for
    each tracker that did not take all records."""
    failed: dict[Target, str] = {}
    what = "the record" if len(documents) == 1 else f"all {len(documents)} records"
    for target in parse_targets(texts, option):
        for document in documents:
            try:
                _send(document, target)
            except Exception as error:  # no tracker's error may cost the record
                failed.setdefault(target, reason_of(error))
        if target not in failed:
            say(f"sent {what} to {target}")
    return [f"{target} did not take {what} ({reason})" for target, reason in failed.items()]


def track(
    documents: Sequence[Document], texts: Sequence[str], out: str | None = None, failed: Sequence[str] = ()
) -> None:
    """Sends what an evaluator measured to the trackers of `--track`; `out` is the file of the first record,
    where it has one, and `failed` is what has failed since it was written.

    Raises:
        ErrorAfterRecord: after all have been tried, where a tracker did not take all, or something `failed`.
    """
    unsent = send(documents, texts)
    if unsent or failed:
        kept = f"send {out} by `siamtransfer track`" if unsent else f"the record is in {out}"
        cure = kept if out else "it is printed, and --record would keep it"
        message = f"{'; '.join([*failed, *unsent])}; no number is lost: {cure}"
        raise ErrorAfterRecord(message, dict(documents[0].record))


def _send(document: Document, target: Target) -> None:
    open_run: Mapping[str, Callable[[], _Run]] = {
        "tensorboard": lambda: TensorBoardRun(folder_for(document, Path(target.place))),
        "wandb": lambda: WandbRun(
            target.place or DEFAULT_PROJECT,
            document.title,
            document.parameters,
            labels=list(document.labels.values()),
        ),
        "mlflow": lambda: MlflowRun(
            target.place, document.title, document.parameters, labels=document.labels
        ),
    }
    run = open_run[target.kind]()
    try:
        run.log(document)
    finally:
        run.close()


def _require_folder(folder: Path) -> None:
    """Raises OSError where no folder can be made below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".siamtransfer"
    probe.touch()
    probe.unlink()
