"""YAML files of settings, read strictly: what YAML 1.1 would silently turn into something else is an error.

`no` and `off` are no booleans here, `010` is no octal number and `1:30` no number of base 60; a key that
stands twice in a section is a mistake. Numbers such as 5e-4 are numbers.
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
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise _Mistake(f"line {key.start_mark.line + 1}: the key {name!r} stands there twice")
            seen.add(name)
        return super().construct_mapping(node, deep)

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
        tree = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _Mistake as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this is no YAML ({' '.join(str(error).split())[:200]})") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: sections of settings are expected (optim: {{lr: 0.1}}), not {str(tree)[:40]!r}"
        )
    return tree
