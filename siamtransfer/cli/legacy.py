"""The former parser; goes when every program is a cli.Command."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jsonargparse

from siamtransfer.utils.errors import UserError

C = TypeVar("C")
jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _Help(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """jsonargparse's help with the description's line breaks kept."""


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser whose errors are UserErrors in one sentence, with the nearest known key."""

    def __init__(self, **options: Any):
        super().__init__(exit_on_error=True, formatter_class=_Help, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(message).split())).replace("typing.", "")
        raise UserError(text.rstrip(".") + self._nearest(text) + "; --help lists every key")

    def _nearest(self, text: str) -> str:
        unknown = re.search(r"unrecognized arguments: (\S+)", text)
        in_group = re.search(r"Group '(\S+)' does not accept option '(\S+)'", text)
        in_file = re.search(r"(?:Key|Option) '([\w.]+)' is not (?:expected|accepted)", text)
        if in_group:
            key = f"{in_group[1]}.{in_group[2]}"
        elif unknown or in_file:
            key = (unknown or in_file)[1].split("=")[0].lstrip("-")  # type: ignore[index]
        else:
            return ""
        known = [o.lstrip("-") for action in self._actions for o in action.option_strings]
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        return f"; did you mean --{near[0]}" if near else ""


def parse(
    kind: type[C],
    *,
    description: str,
    default_file: Path | None = None,
    arguments: Callable[[Parser], None] = lambda parser: None,
    argv: Sequence[str] | None = None,
) -> tuple[C, jsonargparse.Namespace]:
    """Reads the command line into a `kind` dataclass, and whatever else `arguments` adds to the parser.

    `default_file` is read when no --config is given.

    Raises:
        UserError: an unknown key, a value of the wrong type, or a configuration file that cannot be read.
    """
    given = [_with_underscores(word) for word in (sys.argv[1:] if argv is None else argv)]
    parser = Parser(description=description)
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file of settings, may be given several times"
        + (f" (default: configs/pretrain/{default_file.name})" if default_file else ""),
    )
    arguments(parser)
    parser.add_class_arguments(kind, None, as_group=False)
    if default_file is not None and not any(a == "--config" or a.startswith("--config=") for a in given):
        given = ["--config", str(default_file), *given]
    namespace = _parse(parser, given)
    instances = (
        parser.instantiate(namespace)
        if hasattr(parser, "instantiate")
        else parser.instantiate_classes(namespace)
    )
    fields = {f.name: getattr(instances, f.name) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**fields), namespace


def _parse(parser: Parser, given: list[str]) -> jsonargparse.Namespace:
    """The parsed words; a mistake in a configuration file is told with the file's name."""
    try:
        return parser.parse_args(given)
    except UserError as error:
        pairs = zip(given, [*given[1:], ""], strict=True)
        files = [
            after if word == "--config" else word[9:] for word, after in pairs if word.startswith("--config")
        ]
        for file in filter(lambda name: Path(name).is_file(), files):
            try:
                parser.parse_args([f"--config={file}"])
            except UserError as own:
                raise UserError(f"{file}: {own}") from error
        raise


def _with_underscores(word: str) -> str:
    """`--train-features` means `--train_features`: keys may be spelled either way."""
    if not word.startswith("--"):
        return word
    key, equals, value = word.partition("=")
    return "--" + key[2:].replace("-", "_") + equals + value
