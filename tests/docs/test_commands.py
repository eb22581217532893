"""Every command of the documentation is one that its program takes: an option or a value that there is not
fails here, with the page and the line."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import yaml
from doc_pages import (
    Block,
    Directive,
    PageError,
    ShellCommand,
    blocks_of,
    code_spans,
    commands_of,
    split_commands,
)
from support.doc_checks import WrongCommandError, check_command, known_flags
from support.paths import ROOT

from siamtransfer.cli.main import PROGRAMS

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
OTHER_FLAGS = {
    "a placeholder": {"--section.key"},
    "scripts/shifted_scenes.py": {"--turn", "--invert", "--blur", "--contrast", "--noise"},
    "a benchmark": {"--stages", "--shutdown-timeout"},
    "DINO": {"--imsize"},
    "the official evaluation of DAVIS": {"--evaluation"},
    "Docker": {"--user", "--shm-size"},
    "Slurm": {"--requeue"},
}
"""Flags in sentences that are no option of a program of ours, by whose they are."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Placeholders are made in a folder of the test's; trackers may be named that are not installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("siamtransfer.trackers.targets.require_package", lambda *words: None)


def wrong_ones(commands: list[ShellCommand], whole: bool = True) -> list[str]:
    """What is wrong with each of the commands that are."""
    wrong = []
    for command in commands:
        try:
            check_command(command, whole)
        except WrongCommandError as error:
            wrong.append(str(error))
    return wrong


def test_commands_in_blocks() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page) if block.has_commands]
    commands = [command for block in blocks for command in commands_of(block)]
    assert len(commands) > 80
    assert {command.words[0] for command in commands} >= {"siamtransfer", "python", "make", "pip"}
    wrong = wrong_ones(commands)
    assert not wrong, "\n".join(wrong)


def test_commands_in_sentences() -> None:
    spans = [(page, line, text) for page in PAGES for line, text in code_spans(page)]
    commands = [
        ShellCommand(page, line, words)
        for page, line, text in spans
        if text.startswith(("siamtransfer ", "make ", "pip install "))
        for words in split_commands(text)[:1]
    ]
    assert len(commands) > 30
    wrong = wrong_ones(commands, whole=False)
    assert not wrong, "\n".join(wrong)


def test_flags_in_sentences() -> None:
    known = known_flags().union(*OTHER_FLAGS.values())
    spans = [(page, line, text) for page in PAGES for line, text in code_spans(page)]
    flags = [
        (page, line, text.split()[0].partition("=")[0]) for page, line, text in spans if text.startswith("--")
    ]
    flags = [(page, line, flag) for page, line, flag in flags if not flag.endswith(("…", "..."))]
    assert len(flags) > 100
    unknown = [f"{page}:{line}: {flag}" for page, line, flag in flags if flag not in known]
    assert not unknown, "\n".join(unknown)


def test_examples_in_the_help_of_programs() -> None:
    commands = []
    for name in PROGRAMS:
        doc = importlib.import_module(f"siamtransfer.programs.{name.replace('-', '_')}").__doc__ or ""
        example = "\n".join(line for line in doc.splitlines() if line.startswith("    "))
        block = Block(Path(f"programs/{name}"), 1, "", example)
        commands += commands_of(block)
    assert len({command.page for command in commands}) == len(PROGRAMS)
    wrong = wrong_ones(commands)
    assert not wrong, "\n".join(wrong)


def test_other_blocks_are_what_they_say() -> None:
    readers = {
        "python": lambda text: compile(text, "page", "exec"),
        "json": json.loads,
        "yaml": yaml.safe_load,
        "yml": yaml.safe_load,
    }
    read, wrong = 0, []
    for page in PAGES:
        for block in blocks_of(page):
            if block.language not in readers:
                continue
            read += 1
            try:
                readers[block.language](block.text)
            except (SyntaxError, ValueError, yaml.YAMLError) as error:
                wrong.append(f"{block.place}: {error}")
    assert not wrong, "\n".join(wrong)
    assert read >= 10


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("siamtransfer knn CKPT --neighbors 5", "there is no option"),
        ("siamtransfer knm CKPT", "did you mean knn"),
        ("siamtransfer knn CKPT --k many", "k is"),
        ("siamtransfer knn CKPT --k 0", "must be at least 1"),
        ("siamtransfer pretrain --config nothing-like-it", "no such shipped configuration"),
        ("siamtransfer launch --nodes 2 pretrain", "add --slurm"),
        ("siamtransfer launch pretrain --optim.epoch 3", "optim.epochs"),
        ("python eval/knn.py CKPT --nope 1", "there is no option"),
        ("python scripts/no_such_script.py", "no file"),
        ("python scripts/shifted_scenes.py OUT --twist 1", "2"),
        ("torchrun --nproc-per-node 8 pretrain/main.py --optim.epoch 1", "optim.epochs"),
        ("make tee", "no target tee"),
        ("pip install -e '.[gpus]'", "no extra gpus"),
        ("docker run --rm siamtransfer knn CKPT --nope 1", "there is no option"),
        ("siamtransfer knn … --nope 1", "no option --nope"),
        ("siamtransfer knm CKPT …", "did you mean knn"),
        ("siamtransfer configs zzz | head", "no shipped configuration"),
        ("frobnicate --now", "no check knows"),
    ],
)
def test_a_wrong_command_is_found(text: str, why: str) -> None:
    commands = commands_of(Block(Path("page.md"), 7, "sh", text + "\n"))
    with pytest.raises(WrongCommandError, match=r"page\.md:7") as error:
        for command in commands:
            check_command(command)
    assert why in str(error.value)


def test_commands_are_read_as_a_shell_reads_them() -> None:
    text = "A=1 siamtransfer knn x \\\n    --k 5   five neighbours\nsiamtransfer knn y > out.json  # kept\n"
    found = commands_of(Block(Path("p.md"), 3, "", text))
    assert [(command.line, command.words) for command in found] == [
        (3, ("siamtransfer", "knn", "x", "--k", "5")), (5, ("siamtransfer", "knn", "y")),
    ]  # fmt: skip
    assert split_commands("a 'b c' && d | e; f 2> g") == [("a", "b c"), ("d",), ("e",), ("f",)]
    with pytest.raises(PageError, match=r"p\.md:3: a shell cannot read"):
        commands_of(Block(Path("p.md"), 3, "sh", "siamtransfer knn 'x\n"))


def test_comments_for_the_runner(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n<!-- test: add --k 3 -->\n\n```\nsiamtransfer knn x\n```\n\n```\noutput\n```\n")
    first, second = blocks_of(page)
    assert (first.line, first.directive, first.has_commands) == (6, Directive("add", "--k 3"), True)
    assert (second.directive, second.has_commands) == (None, False)
    page.write_text("<!-- test: only read: a cluster -->\n```sh\nls\n```\n")
    assert blocks_of(page)[0].directive == Directive("only read", "a cluster")
    for wrong, why in (
        ("<!-- test: ad --k 3 -->\n\n```\nsiamtransfer knn x\n```\n", "page.md:1: a comment for"),
        ("<!-- test: add --k 3 -->\n\nText.\n", "right before a block"),
        ("<!-- test: add --k 3 -->\n", "no block follows"),
    ):
        page.write_text(wrong)
        with pytest.raises(PageError, match=why):
            blocks_of(page)
