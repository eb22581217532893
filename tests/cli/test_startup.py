"""Help and mistakes are answered without torch: what is in sys.modules after them, and how long help is."""

from __future__ import annotations

import json
import subprocess
import sys
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
DOORS = {
    **{
        path.stem.replace("_", "-"): f"{path.parent.name}/{path.name}"
        for folder in ("eval", "convert")
        for path in sorted((ROOT / folder).glob("[!_]*.py"))
    },
    "pretrain": "pretrain/main.py",
}
PROBE = """
import json, sys
from siamtransfer.cli.main import main
sys.argv = ["siamtransfer", *json.loads(sys.argv[1])]
try:
    main()
finally:
    heavy = sorted({name.partition(".")[0] for name in sys.modules} & set(json.loads(sys.argv_heavy)))
    print("HEAVY", json.dumps(heavy), file=sys.stderr)
"""


def answer(*words: str) -> tuple[str, str, list[str]]:
    """stdout, stderr, and which heavy packages were imported on the way."""
    program = f"import sys; sys.argv_heavy = {json.dumps(json.dumps(HEAVY))}\n{PROBE}"
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(words)], capture_output=True, text=True, cwd=ROOT
    )
    said, _, heavy = done.stderr.rpartition("HEAVY ")
    return done.stdout, said, json.loads(heavy)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_short_and_imports_nothing_heavy(name: str) -> None:
    out, said, heavy = answer(name, "--help")
    assert heavy == []
    assert said == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"usage: siamtransfer {name}")
    assert len(lines) <= {"pretrain": 120}.get(name, 80)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_unknown_option_imports_nothing_heavy(name: str) -> None:
    out, said, heavy = answer(name, "--no-such-option", "3")
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
