"""Help and mistakes are answered without torch: what is in sys.modules after them, and how long help is."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.paths import ROOT

from siamtransfer.cli.main import PROGRAMS

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "sklearn",
    "PIL",
    "matplotlib",
    "detectron2",
    "rich",
)
Answer = tuple[str, str, list[str]]
"""stdout, stderr, and which heavy packages were imported on the way."""
DOORS = {
    **{
        path.stem.replace("_", "-"): f"{path.parent.name}/{path.name}"
        for folder in ("eval", "convert")
        for path in sorted((ROOT / folder).glob("[!_]*.py"))
    },
    "pretrain": "pretrain/main.py",
}
PROBE = """
import json, os, sys
from siamtransfer.cli.main import main
heavy, commands, folder = json.loads(sys.stdin.read())
imported = {name.partition(".")[0] for name in sys.modules} & set(heavy)
for number, words in enumerate(commands):  # each in a fork, as if it were the first
    child = os.fork()
    if not child:
        out, err = (open(f"{folder}/{number}.{name}", "w") for name in ("out", "err"))
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        sys.argv = ["siamtransfer", *words]
        try:
            main()
        except SystemExit:
            pass
        finally:
            sys.stdout.flush()
            found = {name.partition(".")[0] for name in sys.modules} & set(heavy) | imported
            print("HEAVY", json.dumps(sorted(found)), file=sys.stderr, flush=True)
            os._exit(0)
    os.waitpid(child, 0)
"""


def answers(*commands: Sequence[str]) -> list[Answer]:
    """What every command says when nothing but the command line has been imported."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", PROBE],
            input=json.dumps([HEAVY, commands, folder]), text=True, cwd=ROOT, check=True,
        )  # fmt: skip
        found = []
        for number in range(len(commands)):
            said, _, heavy = Path(folder, f"{number}.err").read_text().rpartition("HEAVY ")
            found.append((Path(folder, f"{number}.out").read_text(), said, json.loads(heavy)))
    return found


def answer(*words: str) -> Answer:
    """What one command says."""
    (found,) = answers(words)
    return found


@pytest.fixture(scope="module")
def helped() -> dict[str, Answer]:
    """What every program says to --help."""
    return dict(zip(PROGRAMS, answers(*((name, "--help") for name in PROGRAMS)), strict=True))


@pytest.fixture(scope="module")
def mistaken() -> dict[str, Answer]:
    """What every program says to an option that it has not."""
    return dict(zip(PROGRAMS, answers(*((name, "--no-such-option", "3") for name in PROGRAMS)), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_short_and_imports_nothing_heavy(name: str, helped: dict[str, Answer]) -> None:
    out, said, heavy = helped[name]
    assert heavy == []
    assert said == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"usage: siamtransfer {name}")
    assert len(lines) <= {"pretrain": 120}.get(name, 80)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_unknown_option_imports_nothing_heavy(name: str, mistaken: dict[str, Answer]) -> None:
    out, said, heavy = mistaken[name]
    assert heavy == []
    assert (out, said) == ("", said)
    assert said.startswith("error: there is no option --no-such-option")


@pytest.mark.parametrize(
    "name", ["knn", "linear", "features", "identify", "to-d2", "to-torchvision", "pretrain"]
)
def test_a_missing_file_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    out = [str(tmp_path / "out.pkl")] if name == "to-d2" else [str(tmp_path / "out.pth")]
    words = {
        "pretrain": ["--backbone.weights", "no/such.pth"],
        "to-d2": ["no/such.pth", *out],
        "to-torchvision": ["no/such.pth", *out],
        "features": ["no/such.pth", *out],
    }.get(name, ["no/such.pth"])
    _, said, heavy = answer(name, *words)
    assert "no/such.pth" in said
    assert heavy == []
    assert said.count("\n") == 1


def test_a_missing_configuration_imports_nothing_heavy() -> None:
    _, said, heavy = answer("pretrain", "--config", "no/such.yaml")
    assert said.startswith("error: --config no/such.yaml: there is no such file")
    assert heavy == []


def test_a_methods_own_options_import_neither_torchvision_nor_timm() -> None:
    out, _, heavy = answer("pretrain", "--help", "simsiam")
    assert "--simsiam.predictor-lr" in out
    assert set(heavy) <= {"torch", "numpy"}


@pytest.mark.thorough
def test_a_mistake_in_them_imports_no_more() -> None:
    _, said, heavy = answer("pretrain", "--simsiam.dimm", "3")
    assert said.startswith("error: there is no option --simsiam.dimm; did you mean --simsiam.dim?")
    assert set(heavy) <= {"torch", "numpy"}


@pytest.mark.parametrize(("name", "door"), DOORS.items())
def test_every_door_opens(name: str, door: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / door, "--help"], capture_output=True, text=True, cwd=ROOT.parent, check=True
    )
    assert done.stdout.startswith(f"usage: python {door} ")
    assert done.stderr == ""
