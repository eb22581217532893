"""The words of a command line from options under dotted keys, as a person would write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from siamtransfer.cli.command import Command
from siamtransfer.cli.options import Option
from siamtransfer.cli.parser import Schema


class Vocabulary:
    """The options of a program.

    Attributes:
        source: the option that takes a checkpoint, or None.
        keys: all options.
    """

    def __init__(self, program: str, command: Command[Any]):
        self.program, self._schema = program, Schema(command.config)
        self.keys = frozenset(self._schema.options)
        self.source = next((key for key in ("checkpoint", "checkpoints") if key in self.keys), None)
        self._positional: tuple[str, ...] = getattr(command.config, "positional", ())

    def canonical(self, key: str, origin: str) -> str:
        """Today's spelling of an option.

        Raises:
            UserError: the program has none of that name; names the nearest.
        """
        return self._schema.find(key, f"{origin}: {self.program}").key

    def known(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `options` that the program has, in today's spelling."""
        pairs = ((self._schema.canonical(key), value) for key, value in options.items())
        return {key: value for key, value in pairs if key in self.keys}

    def words(self, options: Mapping[str, Any]) -> list[str]:
        """The words that set `options`: those without a flag first, in their order."""
        rest, words = dict(options), []
        for key in self._positional:
            value = rest.get(key)
            single = value[0] if isinstance(value, list) and len(value) == 1 else value
            if not isinstance(single, str) or single.startswith("-"):
                break
            words.append(single)
            del rest[key]
        for key, value in rest.items():
            words += _words_of(self._schema.options[key], value)
        return words


def _words_of(option: Option, value: Any) -> list[str]:
    if value is None:
        return [f"{option.flag}=null"]
    if isinstance(value, bool) and bool in (option.type, *get_args(option.type)):
        switch = option.flag if value else f"--no-{option.flag[2:]}"
        return [switch if option.is_bool else f"{option.flag}={json.dumps(value)}"]
    if isinstance(value, list):
        return _words_of_list(option, value)
    text = value if isinstance(value, str) else json.dumps(value)
    return [f"{option.flag}={text}"] if text.startswith("-") or not text else [option.flag, text]


def _words_of_list(option: Option, values: list[Any]) -> list[str]:
    items = [value if isinstance(value, str) else json.dumps(value) for value in values]
    if option.item is None or not items or any(item.startswith(("-", "[")) or not item for item in items):
        return [f"{option.flag}={json.dumps(values)}"]
    if option.append:
        return [word for item in items for word in (option.flag, item)]
    return [option.flag, *items]
