"""The options of a program, read from its configuration: a dataclass whose nested dataclasses are sections.

A field `weight_decay` of the section `optim` is the key `optim.weight_decay` in YAML and
`--optim.weight-decay` on the command line. Its type is the annotation, its default the field's, its help
the docstring below the field.
A configuration class may say more, in class attributes:

    positional: ClassVar[tuple[str, ...]]     keys that are given without a flag, in their order
    common: ClassVar[tuple[str, ...]]         keys that the short help shows, in order
    aliases: ClassVar[dict[str, str]]         older spellings of keys, still read
    auto: ClassVar[tuple[str, ...]]           keys that take the word auto, too, which is then their value

The metadata `may_be_empty` of a field that is a list lets its flag stand alone, for an empty list.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

AUTO = "auto"
"""The value of an option that is decided later."""


@dataclass(frozen=True)
class Option:
    """One key of a configuration."""

    key: str
    type: Any
    default: Any
    help: str
    section: type
    positional: bool = False
    common: int | None = None
    append: bool = False
    choices: tuple[str, ...] = ()
    may_be_empty: bool = False
    may_be_auto: bool = False

    @property
    def flag(self) -> str:
        """`--optim.weight-decay`."""
        return "--" + self.key.replace("_", "-")

    @property
    def is_bool(self) -> bool:
        """True for a bare flag with a `--no-` form; its value may be null where None is a third answer."""
        return self.type is bool or set(get_args(self.type)) == {bool, type(None)}

    @property
    def takes_value_or_none(self) -> bool:
        """True for `bool | str`: the flag alone means true."""
        return bool in get_args(self.type) and str in get_args(self.type)

    @property
    def item(self) -> Any:
        """The type of a list's items, None where the option is no list."""
        for kind in (self.type, *get_args(self.type)):
            if get_origin(kind) is list:
                return get_args(kind)[0]
        return None

    @property
    def metavar(self) -> str:
        """What stands for the value in help: INT, FLOAT, a|b …; empty for a bare flag."""
        if self.choices:
            return "NAME"
        shown = "" if self.is_bool else _metavar(self.type)
        return f"{AUTO}|{shown}" if self.may_be_auto and shown != "TEXT" else shown


def options_of(config: type | object, prefix: str = "", *, defaults: Any = None) -> list[Option]:
    """Every option of a configuration class (or instance, whose values are then the defaults), depth
    first."""
    kind = config if isinstance(config, type) else type(config)
    defaults = (kind() if isinstance(config, type) else config) if defaults is None else defaults
    return list(_walk(kind, defaults, prefix, kind))


def _walk(kind: type, defaults: Any, prefix: str, root: type) -> typing.Iterator[Option]:
    hints, helps = typing.get_type_hints(kind), field_docs(kind)
    positional, common = getattr(root, "positional", ()), getattr(root, "common", ())
    auto = getattr(root, "auto", ())
    for field in dataclasses.fields(kind):
        if field.metadata.get("dynamic"):
            continue
        key, value = prefix + field.name, getattr(defaults, field.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(type(value), value, f"{key}.", root)
            continue
        choices = field.metadata.get("choices", tuple)()
        yield Option(
            key, hints[field.name], value, helps.get(field.name, ""), kind,
            key in positional, common.index(key) if key in common else None,
            field.metadata.get("append", False), tuple(choices), field.metadata.get("may_be_empty", False),
            key in auto,
        )  # fmt: skip


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """Field name to the docstring below it, as one line; those of base classes too."""
    docs: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        docs |= _docs_of_file(_file_of(cls)).get(cls.__qualname__, {})
    return docs


def section_doc(kind: type) -> str:
    """The docstring of a configuration class, as one line."""
    return " ".join(inspect.cleandoc(kind.__dict__.get("__doc__") or "").split())


def _file_of(cls: type) -> str | None:
    module = sys.modules.get(cls.__module__)
    return getattr(module, "__file__", None)


@functools.cache
def _docs_of_file(file: str | None) -> dict[str, dict[str, str]]:
    if file is None or not file.endswith(".py"):
        return {}
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return {node.name: _docs_of_class(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _docs_of_class(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs


def _metavar(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return "|".join(_metavar(argument) for argument in arguments if argument not in (type(None), bool))
    if origin is list:
        return f"{_metavar(arguments[0])} ..."
    if origin is tuple:
        return f"[{','.join(_metavar(argument) for argument in arguments if argument is not Ellipsis)}]"
    if origin is dict or kind is dict:
        return "{KEY: VALUE}"
    names = {str: "TEXT", int: "INT", float: "NUMBER", Path: "PATH", bool: "true|false"}
    return names.get(kind, getattr(kind, "__name__", str(kind)).upper())
