"""The Dockerfile, read where there is no Docker: what it copies is there and not ignored, what it installs is
an extra, FAISS is of one kind, nobody is root, and the entry point is the console script."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import PurePosixPath

import pytest
from support.paths import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(instruction, argument) of the Dockerfile, with continued lines joined and comments left out."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines())
        if word
    ]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Every stage by its name, with the instructions that it inherits from other stages."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            found[name] = [*found.get(base, []), ("FROM", base)]
        elif name:
            found[name].append((word, rest))
    return found


def project() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def is_ignored(path: str) -> bool:
    """What .dockerignore says of a path: the last pattern that matches decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        # "**/" means at any depth, every other pattern is one of the top.
        pattern = pattern.removeprefix("**/") if pattern.startswith("**/") else f"/{pattern}"
        if any(parent.match(pattern) for parent in _with_parents(path)):
            ignored = not keep
    return ignored


def _with_parents(path: str) -> list[PurePosixPath]:
    whole = PurePosixPath("/", path)
    return [whole, *list(whole.parents)[:-1]]


def test_targets() -> None:
    assert set(stages()) == {"build", "build-cpu", "build-cuda", "runtime", "cpu", "cuda"}
    assert TEXT.index("ARG PYTHON=") < TEXT.index("FROM")
    python = re.search(r"^ARG PYTHON=3\.(\d+)$", TEXT, re.MULTILINE)
    assert python
    assert project()["requires-python"] == ">=3.11"
    assert int(python[1]) >= 11


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    copied = []
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from="):
            copied += rest.split()[:-1]
    assert {
        "constraints.txt",
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "siamtransfer",
        "configs",
    } == set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert not is_ignored(name), name
    for name in (
        "siamtransfer/cli/main.py",
        "siamtransfer/data/scenes/fashion_objects.npz",
        "configs/pretrain/demo.yaml",
    ):
        assert (ROOT / name).is_file()
        assert not is_ignored(name)
    for name in (
        ".git",
        ".venv",
        "runs",
        "tests",
        "docs",
        "siamtransfer/cli/__pycache__",
        "siamtransfer/a.pyc",
    ):
        assert is_ignored(name), name


@pytest.mark.parametrize(("target", "faiss", "other"), [("cpu", "cpu", "gpu"), ("cuda", "gpu", "cpu")])
def test_extras(target: str, faiss: str, other: str) -> None:
    source = next(rest for word, rest in stages()[target] if word == "COPY" and rest.startswith("--from="))
    build = re.match(r"--from=(\S+) /opt/venv /opt/venv$", source)
    assert build
    commands = " ".join(rest for word, rest in stages()[build[1]] if word == "RUN")
    extras = set(re.findall(r"[\w-]+", re.search(r"\"\.\[(.*?)\]\"", commands)[1]))  # type: ignore[index]
    assert extras <= set(project()["optional-dependencies"])  # type: ignore[call-overload]
    assert faiss in extras
    assert other not in extras  # both are the module `faiss`
    pinned = {re.split(r"[=<>]", line)[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {"torch", "torchvision", f"faiss-{faiss}"} <= pinned
    assert commands.count("-c constraints.txt") == commands.count("pip install")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_how_it_runs(target: str) -> None:
    last = dict(stages()[target])  # of equal instructions the last one holds
    (entry,) = json.loads(last["ENTRYPOINT"])
    assert entry in project()["scripts"]  # type: ignore[operator]
    assert json.loads(last["CMD"]) == ["--help"]
    user = last["USER"].partition(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    assert last["WORKDIR"] == "/work"
    env = " ".join(rest for word, rest in stages()[target] if word == "ENV")
    assert "PATH=/opt/venv/bin:$PATH" in env
    assert "HOME=/home/siam" in env
