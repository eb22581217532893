"""A path that begins with ~ is below the user's home, wherever an option takes it from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from siamtransfer.cli.command import Command
from siamtransfer.cli.home import expand_home
from siamtransfer.utils.errors import UserError


@dataclass
class Options:
    """Options that are paths, texts and lists of them."""

    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: str = ""
    """A file."""
    out: str | None = None
    """A file."""
    place: Path = Path("x")
    """A folder."""
    more: list[str] = field(default_factory=list)
    """Files."""
    count: int = 0
    """A number."""


def nothing(options: Options) -> dict[str, Any]:
    return {}


PROGRAM = Command("program", Options, nothing, "")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_words_and_files_of_settings_are_expanded_alike(home: Path) -> None:
    expected = Options(f"{home}/a", f"{home}/b", home / "c", [f"{home}/d", "e~/f", f"x.json@{home}/g"], 3)
    words = ["~/a", "--out=~/b", "--place=~/c", "--more", "~/d", "e~/f", "x.json@~/g", "--count", "3"]
    assert PROGRAM.parse(words) == expected
    (home / "file.yaml").write_text(
        'source: ~/a\nout: "~/b"\nplace: ~/c\nmore: [~/d, e~/f, x.json@~/g]\ncount: 3\n'
    )
    assert PROGRAM.parse(["--config=~/file.yaml"]) == expected


@pytest.mark.parametrize(
    "text", ["a~b", "a/~/b", "./~/b", "~", "~x", "runs/~", "http://x/~user/y", "k=20 ~ 30", "", "~~/x"]
)
def test_other_texts_stay_as_they_are(text: str, home: Path) -> None:
    assert expand_home(text) == (str(home) if text == "~" else text)


def test_trackers_take_folders_of_the_home(home: Path) -> None:
    assert expand_home("tensorboard:~/logs") == f"tensorboard:{home}/logs"


@pytest.mark.parametrize(
    ("words", "what"), [(["--out=~nobody-here/x"], "--out"), (["--out", "~nobody-here/x"], "")]
)
def test_the_home_of_nobody_is_refused(words: list[str], what: str) -> None:
    with pytest.raises(UserError) as caught:
        PROGRAM.parse(words)
    said = "~nobody-here/x begins with a home, and there is no user nobody-here: write the whole path, or "
    said += "./~nobody-here for a folder of that name"
    assert str(caught.value) == (f"{what}: {said}" if what else said)
