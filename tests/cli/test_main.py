"""The command `siamtransfer`: its help, its configurations, its completion."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.paths import ROOT

from siamtransfer.cli import main as module
from siamtransfer.cli.completion import SHELLS
from siamtransfer.cli.main import PROGRAMS, main
from siamtransfer.cli.shipped import find_config, shipped_configs
from siamtransfer.utils.errors import UserError


def say(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["siamtransfer", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    return (ended.value.code, *capsys.readouterr())


def test_help_lists_every_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = say("--help", monkeypatch, capsys)
    assert status == 0
    assert all(f"  {name} " in out for name in PROGRAMS)
    assert say("", monkeypatch, capsys)[:2] == (2, out)
    modules = {path.stem.replace("_", "-") for path in (ROOT / "siamtransfer" / "programs").glob("*.py")}
    assert modules - {"--init--"} == set(PROGRAMS)


def test_mistakes_name_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say("knm", monkeypatch, capsys) == (
        2, "", "error: there is no program 'knm'; did you mean knn?; siamtransfer --help lists them\n"
    )  # fmt: skip
    assert "no shipped configuration" in say("configs nope", monkeypatch, capsys)[2]
    assert "needs a shell" in say("completion tcsh", monkeypatch, capsys)[2]


def test_configurations_are_listed_with_what_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = say("configs", monkeypatch, capsys)
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert rows.keys() == shipped_configs().keys()
    assert all(len(row) > 10 for row in rows.values())
    _, out, _ = say("configs byol", monkeypatch, capsys)
    assert out
    assert all("byol" in line for line in out.splitlines())


def test_a_configuration_is_found_by_name_and_by_path() -> None:
    demo = ROOT / "configs" / "pretrain" / "demo.yaml"
    for name in ("demo", "demo.yaml", "pretrain/demo", "configs/pretrain/demo.yaml", str(demo)):
        assert find_config(name, ("pretrain",)).resolve() == demo
    with pytest.raises(UserError, match="did you mean scenes-byol"):
        find_config("scenes-byo", ("pretrain",))
    with pytest.raises(UserError, match="no such shipped configuration"):
        find_config("demo", ("detection",))


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_programs_options_and_configurations(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, script, _ = say(f"completion {shell}", monkeypatch, capsys)
    for word in ("to-torchvision", "optim.weight-decay", "memory-budget", "imagenet-resnet50-100ep"):
        assert word in script


def test_bash_completes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, script, _ = say("completion bash", monkeypatch, capsys)
    asks = 'COMP_WORDS=(siamtransfer {0}); COMP_CWORD={1}; _siamtransfer; echo "${{COMPREPLY[@]}}"'

    def complete(words: str, position: int) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{asks.format(words, position)}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert complete("kn", 1) == ["knn"]
    assert complete("knn --mem", 2) == ["--memory-budget"]
    assert "demo" in complete("pretrain --config dem", 3)


def test_a_program_is_imported_when_it_is_named() -> None:
    assert module.program("identify").name == "identify"
