"""Words and files become a configuration: spellings, lists, bare booleans, aliases, and mistakes in one
sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from siamtransfer.cli import Command
from siamtransfer.utils.errors import UserError


@dataclass
class Images:
    """Which images."""

    name: str | None = None
    """A set."""
    download: bool = False
    """Download it."""
    test_split: str | None = None
    """Its part."""


@dataclass
class Options:
    """A program's options."""

    positional: ClassVar[tuple[str, ...]] = ("checkpoint", "second")
    common: ClassVar[tuple[str, ...]] = ("lr", "k")
    aliases: ClassVar[dict[str, str]] = {"rate": "lr", "data.part": "data.test_split"}

    data: Images = field(default_factory=Images)
    checkpoint: str | None = None
    """A file."""
    second: str | None = None
    """Another file."""
    k: list[int] = field(default_factory=lambda: [10, 20])
    """Neighbours."""
    layers: list[str] | None = None
    """Layers."""
    lr: float = 0.1
    """Learning rate."""
    augment: bool = False
    """Augment."""
    fold: bool = True
    """Fold."""
    metric: Literal["cosine", "euclidean"] = "cosine"
    """Similarity."""
    resume: bool | str = False
    """Continue."""
    strided: bool | None = None
    """Yes, no, or not said."""


def read(*words: str) -> Options:
    return Command("test", Options, lambda options: None, "A test.").parse(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--lr 0.5", {"lr": 0.5}),
        ("--lr=5e-1", {"lr": 0.5}),
        ("--rate 0.5", {"lr": 0.5}),
        ("--lr -1", {"lr": -1.0}),
        ("--k 5 7", {"k": [5, 7]}),
        ("--k [5,7]", {"k": [5, 7]}),
        ("--k=[5,7]", {"k": [5, 7]}),
        ("--k 5 file.pth", {"k": [5], "checkpoint": "file.pth"}),
        ("--layers a b-c", {"layers": ["a", "b-c"]}),
        ("--layers 010 true", {"layers": ["010", "true"]}),
        ("file.pth --augment", {"checkpoint": "file.pth", "augment": True}),
        ("--augment file.pth other.pth", {"augment": True, "checkpoint": "file.pth", "second": "other.pth"}),
        ("--augment false", {"augment": False}),
        ("--augment=true", {"augment": True}),
        ("--no-fold", {"fold": False}),
        ("--fold --no-fold", {"fold": False}),
        ("--resume", {"resume": True}),
        ("--resume --lr 1", {"resume": True, "lr": 1.0}),
        ("--resume runs/a", {"resume": "runs/a"}),
        ("--strided", {"strided": True}),
        ("--no-strided", {"strided": False}),
        ("--strided=null", {"strided": None}),
        ("-- --odd", {"checkpoint": "--odd"}),
    ],
)
def test_words_become_values(words: str, expected: dict[str, object]) -> None:
    assert vars(read(*words.split())) == vars(Options(**expected))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        "--data.test-split mine --data.download",
        "--data.test_split=mine --data.download true",
        "--data.part mine --no-data.download --data.download",
        "--data.test-split mine --data.no-download=false",
    ],
)
def test_sections_hyphens_and_both_ways_to_say_no(words: str) -> None:
    assert read(*words.split()).data == Images(test_split="mine", download=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lrs 3", "there is no option --lrs; did you mean --lr?"),
        ("--data.tes 3", "there is no option --data.tes; did you mean --data.test-split?"),
        ("--aug", "there is no option --aug"),
        ("--data x", "there is no option --data"),
        ("--lr", "--lr needs a value"),
        ("--lr --augment", "--lr needs a value"),
        ("--lr fast", "lr is 'fast', but must be NUMBER"),
        ("--k 5 --k x", "k is '[x]', but must be INT ..."),
        ("--metric l2", "metric is 'l2', but must be cosine|euclidean"),
        ("--augment=maybe", "--augment is true or false, not 'maybe'"),
        ("a b c", "unexpected argument 'c'"),
        ("--config", "--config needs a value"),
    ],
)
def test_mistakes_are_one_sentence_that_names_the_cure(words: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(*words.split())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_files_and_words_in_the_order_in_which_they_stand(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("rate: 2\ndata: {part: mine, download: true}\nk: [1]\n")
    second.write_text("lr: 3\naugment: true\n")
    options = read("--lr", "9", "--config", str(first), f"--config={second}", "--no-data.download")
    assert (options.lr, options.augment, options.k) == (3.0, True, [1])
    assert options.data == Images(test_split="mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrs: 3", "there is no option lrs; did you mean lr?"),
        ("data: {test: 3}", "there is no option data.test"),
        ("data: [1]", "data is a section of settings (data: {name: value}), not '[1]'"),
        ("lr: {a: 1}", "lr is '{\"a\": 1}', but must be NUMBER"),
        ("lr: fast", "lr is 'fast', but must be NUMBER"),
        ("augment: 3", "augment is '3', but must be true or false"),
        ("lr: 1\nlr: 2", "line 2: the key 'lr' stands there twice"),
        ("lr: 1\nrate: 2", "lr is given twice, as lr and as rate: leave one out"),
    ],
)
def test_mistakes_in_a_file_name_the_file(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read("--config", str(file))
    assert str(caught.value).startswith(f"{file}: {message}")


def test_help_shows_the_common_options_in_their_order_and_the_effective_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("k: [7, 8]")
    with pytest.raises(SystemExit) as ended:
        read("--config", str(file), "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.index("CHECKPOINT") < text.index("--lr NUMBER") < text.index("--k INT ...")
    assert "Neighbours. [7 8]" in text
    assert "--metric" not in text
    assert "--help-all lists 9 more options." in text
    with pytest.raises(SystemExit):
        read("--help-all")
    text = capsys.readouterr().out
    assert re.search(r"--no-fold .*\[on; this turns it off\]", text)
    assert "--metric cosine|euclidean" in text
    assert "data: Which images." in text


def test_settings_are_printed_as_yaml_that_can_be_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read("--lr", "7", "--data.name", "010", "--print-config")
    file = tmp_path / "again.yaml"
    file.write_text(capsys.readouterr().out)
    assert read("--config", str(file)) == read("--lr", "7", "--data.name", "010")
