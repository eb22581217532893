"""The record of a measurement: what it holds, and that it is one line of JSON."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import siamtransfer
from siamtransfer.records import record as results
from siamtransfer.records.record import commit, record, versions
from siamtransfer.utils.strict_json import to_json


def test_a_record_has_the_four_parts_and_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/eval/knn.py", "--k", "20"])
    document = record(
        "knn", {"knn/k=20/T=0.07/top1": 12.5}, {"k": [20]}, weights_digest="abc", path=Path("x")
    )
    assert list(document) == ["task", "metrics", "protocol", "provenance"]
    provenance = document["provenance"]
    assert provenance["command"] == ["knn.py", "--k", "20"], "without folders of this machine"
    assert provenance["weights_digest"] == "abc"
    when = dt.datetime.fromisoformat(provenance["time"])
    assert abs(dt.datetime.now(dt.UTC) - when) < dt.timedelta(minutes=5)
    line = to_json(document)
    assert "\n" not in line
    assert json.loads(line)["metrics"] == {"knn/k=20/T=0.07/top1": 12.5}


def test_versions_are_those_that_run() -> None:
    document = versions()
    assert document["torch"] == torch.__version__.split("+")[0] or document["torch"] == torch.__version__
    assert document["siamtransfer"] == siamtransfer.__version__
    assert document["python"] == sys.version.split()[0]


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_is_that_of_the_checkout_and_tells_of_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "results.py").write_text("1")
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    assert commit() is None, "not in git"
    git(tmp_path, "init", "-q")
    assert commit() is None, "no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit() == head
    (tmp_path / "notes.txt").touch()
    assert commit() == head, "a stray file is no change of the code"
    (tmp_path / "results.py").write_text("2")
    assert commit() == head + "+changes"
    monkeypatch.setenv("PATH", "")
    assert commit() is None, "no git program"
