"""YAML files of settings, read strictly: what YAML 1.1 would silently turn into something else is an error.

`no` and `off` are no booleans here, `010` is no octal number and `1:30` no number of base 60; a key that
stands twice in a section is a mistake, and so are merges (`<<`), a node within itself and the types of YAML
beyond words, numbers, lists and sections. Numbers such as 5e-4 are numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from siamtransfer.utils.errors import UserError

_SURPRISES = re.compile(
    r"(?P<bool>yes|no|on|off)|(?P<octal>[-+]?0[0-9_]+)|(?P<base60>[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9]*)?)"
    r"|(?P<underscored>[-+]?[0-9]+_[0-9_]*)",
    re.IGNORECASE,
)
_MEANINGS = {
    "bool": "write true or false, or quote it",
    "octal": "write it without the leading zero, or quote it",
    "base60": "write the number out, or quote it",
    "underscored": "write it without underscores, or quote it",
}


class _Loader(yaml.SafeLoader):
    """YAML's safe types, with the booleans and numbers of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {  # noqa: RUF012 (the name and type are pyyaml's)
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
            if name == "<<":
                raise _Mistake(f"line {line}: merges (<<) are not read: write the keys out")
            if not isinstance(name, str | int) or isinstance(name, bool):
                raise _Mistake(f"line {line}: a key is a word, and {str(name)[:40]!r} is none: quote it")
            if name in seen:
                raise _Mistake(f"line {line}: the key {name!r} stands there twice")
            seen.add(name)
        return super().construct_mapping(node, deep)

    def refuse_type(self, node: yaml.Node) -> Any:
        """Raises _Mistake for a type of YAML that no setting has."""
        kind = node.tag.rpartition(":")[2]
        raise _Mistake(
            f"line {node.start_mark.line + 1}: no setting is of YAML's type !!{kind}: leave it out"
        )

    def construct_str(self, node: yaml.ScalarNode) -> str:
        surprise = _SURPRISES.fullmatch(node.value) if node.style is None else None
        if surprise is not None:
            line = node.start_mark.line + 1
            raise _Mistake(f"line {line}: {node.value} is ambiguous: {_MEANINGS[str(surprise.lastgroup)]}")
        return str(node.value)


class _Mistake(Exception):
    pass


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_str)
for _kind in ("binary", "timestamp", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.refuse_type)
_Loader.add_constructor(
    "tag:yaml.org,2002:float",
    lambda loader, node: float(node.value.replace(".inf", "inf").replace(".nan", "nan")),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a file of settings; an empty file has none.

    Raises:
        UserError: the file cannot be read, is no YAML, or says something ambiguous; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: this is no YAML ({error})") from error
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: sections of settings are expected (optim: {{lr: 0.1}}), not {str(tree)[:40]!r}"
        )
    for section in (tree, *(value for value in tree.values() if isinstance(value, dict))):
        for key in section:
            if not isinstance(key, str):
                raise UserError(
                    f"{path}: the key {key!r} is a number, and settings have names; of a number such as 0,3 "
                    "the comma is to be a point"
                )
    return tree


def parse_yaml(text: str, origin: str) -> Any:
    """The content of YAML from the file `origin`, read strictly.

    Raises:
        UserError: it is no YAML, or says something ambiguous; names file and line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_loops(node, (), set())
        return loader.construct_document(node)
    except _Mistake as error:
        raise UserError(f"{origin}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{origin}: this is no YAML ({' '.join(str(error).split())[:200]})") from error


def _refuse_loops(node: yaml.Node, above: tuple[int, ...], done: set[int]) -> None:
    """Raises _Mistake for a node that an alias puts into itself; `done` are the nodes without such a loop."""
    if id(node) in above:
        raise _Mistake(f"line {node.start_mark.line + 1}: a section cannot be within itself")
    if id(node) in done:
        return
    inner = node.value if isinstance(node, yaml.MappingNode | yaml.SequenceNode) else []
    for each in inner:
        for part in each if isinstance(each, tuple) else (each,):
            _refuse_loops(part, (*above, id(node)), done)
    done.add(id(node))
