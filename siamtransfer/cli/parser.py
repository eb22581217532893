"""Words of the command line and files of settings -> one configuration, checked against its types.

What comes later wins, files and words in the order in which they stand. Every mistake is a UserError in one
sentence that names the key, where it came from, and the nearest key that exists.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from siamtransfer.cli.home import expand_value
from siamtransfer.cli.options import AUTO, Option, options_of
from siamtransfer.cli.surprises import refuse_surprise
from siamtransfer.cli.yaml_file import read_yaml
from siamtransfer.utils.errors import UserError

C = TypeVar("C")
WORDS = "the command line"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|\[|null$")


@dataclass
class Settings:
    """What one origin (a file, or the command line) sets: key to value, a string where the value is a
    word."""

    origin: str
    values: dict[str, Any] = field(default_factory=dict)


class Schema:
    """The options of a configuration class, by key; sections that depend on what is set are added later."""

    def __init__(self, kind: type):
        self.kind = kind
        self.options = {option.key: option for option in options_of(kind)}
        self.aliases: dict[str, str] = dict(getattr(kind, "aliases", {}))
        self._sections: dict[str, str] = {}

    def add_section(self, name: str, kind: type) -> None:
        """Adds the options of a dataclass as the section `name`."""
        self.options |= {option.key: option for option in options_of(kind, f"{name}.")}

    def alias_section(self, old: str, new: str) -> None:
        """Reads the keys of the section `old` as those of `new`."""
        self.aliases = {
            key: f"{new}{name.removeprefix(old)}" if name.startswith(f"{old}.") else name
            for key, name in self.aliases.items()
        }
        self._sections[old] = new

    def find(self, key: str, origin: str) -> Option:
        """The option of a key, in any spelling.

        Raises:
            UserError: there is none; names the nearest.
        """
        key = self.canonical(key)
        if key in self.options:
            return self.options[key]
        near = difflib.get_close_matches(key, [*self.options, *self.aliases], n=1, cutoff=0.5)
        flagged = origin == WORDS
        spelt = (lambda name: "--" + name.replace("_", "-")) if flagged else str
        hint = f"; did you mean {spelt(self.canonical(near[0]))}?" if near else ""
        more = "; --help-all lists every option" if flagged else ""
        raise UserError(f"{'' if flagged else f'{origin}: '}there is no option {spelt(key)}{hint}{more}")

    def canonical(self, key: str) -> str:
        """Today's spelling of a key."""
        key = key.replace("-", "_")
        key = self.aliases.get(key, key)
        section, dot, name = key.partition(".")
        return f"{self._sections.get(section, section)}{dot}{name}"

    def refuse_unknown(
        self, words: Sequence[str], trees: Mapping[str, Mapping[str, Any]], known: set[str]
    ) -> None:
        """Raises UserError for a key that there is not, unless its section is among the `known` ones, whose
        options are added later."""
        for origin, tree in trees.items():
            for name, section in tree.items():
                keys = [f"{name}.{key}" for key in section] if isinstance(section, Mapping) else [name]
                for key in map(self.canonical, map(str, keys)):
                    if key.partition(".")[0] not in known and key not in self.sections:
                        self.find(key, origin)
        for word in words:
            name = word[2:].partition("=")[0]
            if word.startswith("--") and name and name not in ("config", "print-config", "print_config"):
                _flag(name, self, known)

    @property
    def sections(self) -> set[str]:
        """Every prefix of a key: optim, views …"""
        parts = [key.split(".")[:-1] for key in self.options]
        return {".".join(part[: depth + 1]) for part in parts for depth in range(len(part))}


def settings_of_words(argv: Sequence[str], schema: Schema) -> list[Settings | str]:
    """The words in the order in which they stand: settings, and the paths of --config files as plain
    strings."""
    groups: list[Settings | str] = []
    waiting = [key for key in getattr(schema.kind, "positional", ()) if key in schema.options]
    queue, only_positional = list(argv), False
    while queue:
        word = queue.pop(0)
        if word == "--" and not only_positional:
            only_positional = True
            continue
        if only_positional or not word.startswith("--"):
            option = _next_positional(word, waiting, schema)
            _put(groups, option, _with_following([word], option, queue) if option.item else word)
            continue
        name, equals, value = word[2:].partition("=")
        if name == "config" and "config" not in schema.options:
            groups.append(value if equals else _value_of("--config", queue))
            continue
        flagged, negated = _flag(name, schema)
        assert flagged is not None
        option = flagged
        if option.is_bool:
            _put(groups, option, _boolean(option, negated, value if equals else None, queue))
        elif equals:
            single = option.item and value not in ("null", "None")
            _put(groups, option, _with_following([value], option, []) if single else value)
        elif option.item and option.may_be_empty and (not queue or queue[0].startswith("--")):
            _put(groups, option, "[]")
        elif option.item:
            words = [_value_of(option.flag, queue)]
            _put(groups, option, _with_following(words, option, [] if option.append else queue))
        elif option.takes_value_or_none and (not queue or queue[0].startswith("--")):
            _put(groups, option, "true")
        else:
            _put(groups, option, _value_of(option.flag, queue))
    return groups


def settings_of_file(path: str, schema: Schema) -> Settings:
    """The values of a file under dotted keys; a section must be a section, a key must exist."""
    return settings_of_tree(path, read_yaml(Path(path)), schema)


def settings_of_tree(path: str, content: Mapping[str, Any], schema: Schema) -> Settings:
    """The values of nested dicts, which come from `path`, under dotted keys."""
    settings = Settings(path)
    spellings: dict[str, str] = {}

    def walk(tree: Mapping[Any, Any], prefix: str) -> None:
        for name, value in tree.items():
            key = schema.canonical(f"{prefix}{name}")
            if isinstance(value, Mapping) and key not in schema.options:
                if key not in schema.sections:
                    schema.find(key, path)
                walk(value, f"{key}.")
            elif key in schema.sections and value is not None:
                raise UserError(
                    f"{path}: {key} is a section of settings ({key}: {{name: value}}), "
                    f"not {str(value)[:40]!r}"
                )
            elif key not in schema.sections:
                found = schema.find(key, path).key
                if found in spellings:
                    raise UserError(
                        f"{path}: {found} is given twice, as {spellings[found]} and as {prefix}{name}: leave "
                        "one out"
                    )
                spellings[found] = f"{prefix}{name}"
                settings.values[found] = value

    walk(content, "")
    return settings


def words_by_key(argv: Sequence[str], schema: Schema) -> dict[str, list[str]]:
    """The words after each flag by its key, as they stand, and under "" those without a flag. Nothing is
    checked; of a flag that `schema` does not know, as its section comes later, one word may follow."""
    found: dict[str, list[str]] = {}
    queue = [word for word in argv if word != "--"]
    while queue:
        name, equals, value = queue.pop(0).partition("=")
        if not name.startswith("--"):
            found.setdefault("", []).append(f"{name}{equals}{value}")
            continue
        option = schema.options.get(schema.canonical(name[2:]))
        values = found.setdefault(schema.canonical(name[2:]), [])
        if equals:
            values.append(value)
            continue
        many = option is not None and option.item is not None
        while queue and not queue[0].startswith("--"):
            if option is not None and option.is_bool and queue[0].lower() not in ("true", "false"):
                break
            values.append(queue.pop(0))
            if not many:
                break
    return found


def parse_values(groups: Iterable[Settings], schema: Schema) -> dict[str, Any]:
    """All values as their types ask for them, later groups over earlier ones; keys that nobody set are left
    out. An option that may be `auto`, and is, has that word whatever its type.

    Raises:
        UserError: a value of the wrong type; names the key, the value and its origin.
    """
    import jsonargparse

    groups = list(groups)
    given = {key for group in groups for key in group.values}
    parser = jsonargparse.ArgumentParser(exit_on_error=False, add_help=False)
    for option in (option for option in schema.options.values() if option.key in given):
        parser.add_argument(f"--{option.key}", type=option.type, default=option.default)
    values: dict[str, Any] = {}
    for group in groups:
        auto = {
            key for key, value in group.values.items() if value == AUTO and schema.options[key].may_be_auto
        }
        stated = {key: value for key, value in group.values.items() if key not in auto}
        for key, value in stated.items():
            refuse_surprise(schema.options[key], value, "" if group.origin == WORDS else f"{group.origin}: ")
        try:
            words = [f"--{key}={_word(value)}" for key, value in stated.items()]
            namespace = parser.parse_args(words)
        except (argparse.ArgumentError, jsonargparse.ArgumentError, ValueError) as error:
            raise UserError(_one_sentence(error, group, schema)) from error
        where = "" if group.origin == WORDS else f"{group.origin}: "
        values |= {key: expand_value(namespace[key], f"{where}{key}") for key in stated}
        values |= dict.fromkeys(auto, AUTO)
    for key, value in values.items():
        choices = schema.options[key].choices
        if choices and value not in choices:
            raise UserError(f"{key} {value!r} is not known: choose one of {', '.join(choices)}")
    return values


def build(kind: type[C], values: dict[str, Any], defaults: Any = None, prefix: str = "") -> C:
    """A configuration from values under dotted keys; what is not among them has its default."""
    defaults = kind() if defaults is None else defaults
    arguments: dict[str, Any] = {}
    for field_ in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field_.metadata.get("dynamic"):
            continue
        default = getattr(defaults, field_.name)
        key = f"{prefix}{field_.name}"
        if dataclasses.is_dataclass(default):
            arguments[field_.name] = build(type(default), values, default, f"{key}.")
        else:
            arguments[field_.name] = values.get(key, default)
    return kind(**arguments)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _put(groups: list[Settings | str], option: Option, value: str) -> None:
    if not groups or isinstance(groups[-1], str):
        groups.append(Settings(WORDS))
    values = groups[-1].values  # type: ignore[union-attr]
    if option.append and option.key in values:
        value = f"{values[option.key][:-1]}, {value[1:]}"
    values[option.key] = value


def _next_positional(word: str, waiting: list[str], schema: Schema) -> Option:
    if not waiting:
        raise UserError(f"unexpected argument {word!r}: options begin with two hyphens; --help lists them")
    option = schema.options[waiting[0]]
    return option if option.append else schema.options[waiting.pop(0)]


def _flag(name: str, schema: Schema, known: Set[str] = frozenset()) -> tuple[Option | None, bool]:
    """The option of a flag's name, and whether it is said in its `no-` form (--no-x.y or --x.no-y).

    None for an option of a section among the `known` ones, which may come later.
    """
    key = schema.canonical(name)
    if key.removeprefix("no_").partition(".")[0] in known:
        return None, False
    if key not in schema.options:
        section, _, last = key.rpartition(".")
        plain = key.removeprefix("no_") if key.startswith("no_") else f"{section}.{last.removeprefix('no_')}"
        option = schema.options.get(schema.canonical(plain))
        if option is not None and option.is_bool:
            return option, True
    return schema.find(key, WORDS), False


def _boolean(option: Option, negated: bool, value: str | None, queue: list[str]) -> str:
    if value is None and queue and queue[0].lower() in ("true", "false"):
        value = queue.pop(0)
    if value is None:
        return "false" if negated else "true"
    if value == "null" and option.type is not bool:
        return value
    if value.lower() not in ("true", "false"):
        raise UserError(f"{option.flag} is true or false, not {value!r}: give {option.flag} alone or --no-…")
    return "false" if (value.lower() == "true") == negated else "true"


def _value_of(flag: str, queue: list[str]) -> str:
    if not queue or (queue[0].startswith("--") and len(queue[0]) > 2):
        raise UserError(f"{flag} needs a value")
    return queue.pop(0)


def _with_following(words: list[str], option: Option, queue: list[str]) -> str:
    """`5 20` as the list [5, 20]; a list of numbers ends at the first word that is none."""
    belongs: Callable[[str], object] = _NUMBER.match if option.item in (int, float) else bool
    while queue and not queue[0].startswith("--") and belongs(queue[0]):
        words.append(queue.pop(0))
    if len(words) == 1 and words[0].startswith("["):
        return words[0]
    return f"[{', '.join(word if option.item in (int, float) else json.dumps(word) for word in words)}]"


def _one_sentence(error: Exception, group: Settings, schema: Schema) -> str:
    text = " ".join(str(error).split())
    named = re.search(r'[Kk]ey "([\w.]+)"', text)
    where = "" if group.origin == WORDS else f"{group.origin}: "
    if not named or named[1] not in group.values:
        return f"{where}{text}"
    option = schema.options[named[1]]
    expected = option.metavar or "true or false"
    return f"{where}{option.key} is {_word(group.values[option.key])!r}, but must be {expected}"
