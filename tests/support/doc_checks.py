"""Commands of the documentation, checked by the parsers of the programs that they call; nothing is run."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import json
import re
import struct
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from doc_pages import ShellCommand

from siamtransfer.cli.completion import SHELLS
from siamtransfer.cli.main import PROGRAMS, list_configs, program
from siamtransfer.cli.options import options_of
from siamtransfer.cli.shipped import shipped_configs
from siamtransfer.embedding.predict.head_mark import MARK
from siamtransfer.methods.registry import METHODS, section_of
from siamtransfer.programs.launch import LaunchOptions, read_inner, split_words
from siamtransfer.utils.errors import UserError
from support.paths import ROOT

NUMBERS = {"N": "2", "S": "1"}
"""Placeholders of the pages that stand for numbers."""
UNCHECKED = {
    "source",
    "cd",
    "mkdir",
    "cp",
    "mv",
    "cat",
    "head",
    "ls",
    "export",
    "git",
    "apt-get",
    "sudo",
    "dpkg",
    "find",
}
"""What else a page may call: the shell's own words, and tools of the system."""


class WrongCommandError(AssertionError):
    """A command of a page that would not work, and why."""


class _ParsedError(Exception):
    """Raised instead of the work of a script, once its words are parsed."""


ELISIONS = ("...", "…")
_MISSING = re.compile(r"there is no file ((?:hf:)?[^\s;:]+)|(\S+) holds no run")


HEAD_FILE = struct.pack("<Q", 64) + json.dumps({"__metadata__": {MARK: "1"}}).ljust(64).encode()
"""What a kept head of `siamtransfer predict` begins with."""


def check_command(command: ShellCommand, whole: bool = True) -> None:
    """Raises WrongCommandError for a command whose words its program does not take.

    A command with an ellipsis, and one that is not `whole`, needs only be made of options of its program.
    Files that a program looks for before any work (a checkpoint, weights, the configuration of a run) are
    made in the current folder.
    """
    words = [word.removeprefix("[") if word.startswith("[--") else word for word in command.words]
    words = [word.removesuffix("]") if word.count("]") > word.count("[") else word for word in words]
    for _ in range(4):
        try:
            if whole and not set(words) & set(ELISIONS):
                _check(words)
            else:
                _check_flags(words)
            return
        except (
            UserError,
            OSError,
            StopIteration,
            ImportError,
            SystemExit,
            LookupError,
            SyntaxError,
        ) as error:
            missing = _MISSING.search(str(error))
            if missing is None or not _make_placeholder(missing[1], missing[2]):
                raise WrongCommandError(f"{command.place}: {' '.join(command.words)}\n    {error}") from error


def _make_placeholder(file: str | None, run: str | None) -> bool:
    """Makes an empty file (for hf:NAME an empty folder), or a run folder with a configuration.

    False where that is not possible, or was done before.
    """
    path = Path((file or f"{run}/config.json").removeprefix("hf:"))
    if path.is_absolute() or path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    if file is not None and file.startswith("hf:"):
        path.mkdir()
    else:
        path.write_text(
            "" if run is None else json.dumps(program("pretrain").parse([]).as_dict()), encoding="utf-8"
        )
    return True


def _check(words: Sequence[str]) -> None:
    first, rest = words[0], words[1:]
    if first == "siamtransfer":
        _check_siamtransfer(rest)
    elif first in ("python", "python3"):
        _check_python(rest)
    elif first == "torchrun":
        _check_python(rest[next(n for n, word in enumerate(rest) if word.endswith(".py")) :])
    elif first == "sbatch":
        _check_sbatch(rest)
    elif first == "make":
        _check_make(rest)
    elif first == "pip":
        _check_pip(rest)
    elif first == "docker":
        _check_docker(rest)
    elif first not in UNCHECKED:
        raise UserError(f"no check knows the command {first!r}")


def _check_flags(words: Sequence[str]) -> None:
    """Raises UserError for a flag that the program does not have, and for a program that there is not."""
    if words[0] != "siamtransfer":
        return
    names = [word for word in words[1:] if word in PROGRAMS]
    if words[1] not in PROGRAMS and words[1] not in ("PROGRAM", "configs", "completion"):
        program(words[1])
    known = _flags_of(names or list(PROGRAMS))
    for word in words[1:]:
        flag = word.partition("=")[0]
        if flag.startswith("--") and len(flag) > 2 and flag not in known:
            raise UserError(f"{' and '.join(names)} has no option {flag}")


def _check_siamtransfer(words: Sequence[str]) -> None:
    if not words:
        raise UserError("siamtransfer needs a program")
    name, rest = words[0], list(words[1:])
    if name in ("--help", "--version"):
        return
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "configs":
            list_configs(rest[0] if rest else "")
        elif name == "completion":
            if rest[0] not in SHELLS:
                raise UserError(f"there is no shell {rest[0]!r}")
        elif name == "launch":
            own, inner = split_words(rest)
            options: LaunchOptions = program("launch").parse(own)
            options.check()
            with mock.patch("siamtransfer.programs.launch.Path"):  # which says that the data root exists
                read_inner([inner[0], *_settled(inner[0], inner[1:])])
        else:
            heads = [Path(word) for word in rest if name == "predict" and word.endswith(".safetensors")]
            for head in heads if "--save-head" not in rest else ():
                head.write_bytes(HEAD_FILE)
            _parse(name, rest)
            for head in heads:
                head.unlink(missing_ok=True)


def _parse(name: str, words: Sequence[str]) -> None:
    """Parses the words of a program and checks its options; help and --print-config end as for users."""
    command = program(name)
    try:
        config: Any = command.parse(_settled(name, words))
    except SystemExit as ended:
        if ended.code not in (0, None):
            raise
        return
    check = getattr(config, "check", None)
    if check is not None:
        check()


def _settled(name: str, words: Sequence[str]) -> list[str]:
    """The words with values in the place of NAME and of numbers."""
    config = next(key.partition("/")[2] for key in shipped_configs() if key.startswith("pretrain/"))
    settled = []
    for before, word in zip(["", *words], words, strict=False):
        if word == "NAME" and before == "--config":
            word = config if name == "pretrain" else word
        settled.append(NUMBERS.get(word, word))
    return settled


def _check_python(words: Sequence[str]) -> None:
    if words[:1] == ["-m"]:
        if words[1] == "siamtransfer":
            _check_siamtransfer(words[2:])
        elif importlib.util.find_spec(words[1]) is None:
            raise UserError(f"there is no module {words[1]}")
        return
    if words[:1] == ["-c"]:
        compile(words[1], "python -c", "exec")
        return
    file = ROOT / words[0]
    if not file.is_file():
        if (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8").count(f"`{words[0]}`"):
            return  # a file that the tutorial has its reader write, run by tests/methods/
        raise UserError(f"there is no file {words[0]}")
    folder = file.parent.name
    if folder in ("pretrain", "eval", "convert"):
        _parse("pretrain" if folder == "pretrain" else file.stem.replace("_", "-"), words[1:])
    elif folder == "scripts":
        _check_script(file.stem, words[1:])


def _check_script(name: str, words: Sequence[str]) -> None:
    """Lets a script parse its words, and stops it there; one that takes none is merely there."""
    if not words:
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *args: Any, **options: Any) -> NoReturn:
        parse(self, *args, **options)
        raise _ParsedError

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop),
        mock.patch.object(sys, "argv", [name, *words]),
    ):
        try:
            importlib.import_module(name).main()
        except _ParsedError:
            return
    raise UserError(f"scripts/{name}.py did not parse its words by argparse")


def _check_sbatch(words: Sequence[str]) -> None:
    place = next(n for n, word in enumerate(words) if not word.startswith("-"))
    if not (ROOT / words[place]).is_file():
        raise UserError(f"there is no file {words[place]}")
    _parse("pretrain", words[place + 1 :])


def _check_make(words: Sequence[str]) -> None:
    rules = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    targets = [word for word in words if "=" not in word]
    if not set(targets) <= rules:
        raise UserError(f"the Makefile has no target {' '.join(sorted(set(targets) - rules))}")


def _check_pip(words: Sequence[str]) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for word in words:
        named = re.fullmatch(r"(?:siamtransfer|\.)\[([\w,-]+)\]", word)
        if named and not set(named[1].split(",")) <= set(extras):
            raise UserError(f"pyproject.toml has no extra {named[1]}")
    if words[0] not in ("install", "wheel", "uninstall"):
        raise UserError(f"pip has no command {words[0]!r}")


def _check_docker(words: Sequence[str]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    if words[0] == "build":
        targets = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE)
        for option, value in itertools.pairwise(words):
            if option == "--target" and value not in targets:
                raise UserError(f"the Dockerfile has no target {value}")
            if option == "--build-arg" and f"ARG {value.partition('=')[0]}" not in dockerfile:
                raise UserError(f"the Dockerfile has no argument {value}")
    elif words[0] == "run":
        image = next(n for n, word in enumerate(words) if word.startswith("siamtransfer"))
        _check_siamtransfer(words[image + 1 :])
    else:
        raise UserError(f"no check knows docker {words[0]}")


def known_flags() -> set[str]:
    """Every flag of every program."""
    return _flags_of(list(PROGRAMS))


def _flags_of(names: Sequence[str]) -> set[str]:
    """The flags of some programs, also in their `no-` form, those of the methods' sections, and those that
    all programs have."""
    flags = {flag for name in names for flag in program(name).flags()}
    for name in METHODS if "pretrain" in names else ():
        flags |= {option.flag for option in options_of(METHODS[name].Config, f"{section_of(name)}.")}
    sections = [flag[2:].rpartition(".") for flag in flags]
    negated = {f"--{section}.no-{name}" for section, _, name in sections if section}
    everywhere = {"--help", "--help-all", "--print-config", "--config", "--version", "--json", "--no-json"}
    return flags | {f"--no-{flag[2:]}" for flag in flags} | negated | everywhere
