"""YAML files of settings, read strictly: what YAML 1.1 would silently turn into something else is an error.

`no` and `off` are no booleans here, `010` is no octal number and `1:30` no number of base 60; a key that
stands twice in a section is a mistake, and so are merges (`<<`), a node within itself and the types of YAML
beyond words, numbers, lists and sections. Numbers such as 5e-4 are numbers.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import read_small_text
from siamtransfer.utils.text import printable

MOST_BYTES = 2**18
"""Of a file; the longest configuration has some 5,000."""
MOST_VALUES = 30_000
"""In a file, where what an alias names counts each time; a few lines of aliases of aliases make 10**9. As
many take two seconds, of which most is PyYAML's."""
MOST_LEVELS = 50
_SHOWN = 40  # characters of a wrong value
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_DIGITS = 400  # of a number; the largest double has 309

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

    def __init__(self, text: str):
        super().__init__(text)
        self._values = self._levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; counts before the work, for the content may be nothing but brackets."""
        self._values += 1
        line = self.peek_event().start_mark.line + 1
        if self._values > MOST_VALUES:
            raise _Mistake(f"line {line}: {_TOO_MANY}")
        if self._levels > MOST_LEVELS:
            raise _Mistake(f"line {line}: {_TOO_DEEP}")
        self._levels += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._levels -= 1
        return node

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
        text, line = str(self.construct_scalar(node)), node.start_mark.line + 1
        surprise = _SURPRISES.fullmatch(text) if node.style is None else None
        if surprise is not None:
            raise _Mistake(f"line {line}: {text} is ambiguous: {_MEANINGS[str(surprise.lastgroup)]}")
        if _NO_TEXT.search(text):
            raise _Mistake(
                f"line {line}: {text[:_SHOWN]!r} holds a character that no text has (NUL, or half)"
            )
        return text

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text, line = str(self.construct_scalar(node)), node.start_mark.line + 1
        if len(text) > _DIGITS:
            raise _Mistake(f"line {line}: a number of {len(text)} digits is none that a setting takes")
        return int(text)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        text, line = str(self.construct_scalar(node)), node.start_mark.line + 1
        value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if math.isinf(value) and "inf" not in text.lower():
            raise _Mistake(f"line {line}: {text[:_SHOWN]} is beyond the range of numbers")
        return value

    def construct_boolean(self, node: yaml.ScalarNode) -> bool:
        text = str(self.construct_scalar(node)).lower()
        if text not in ("true", "false"):
            raise _Mistake(f"line {node.start_mark.line + 1}: {text[:_SHOWN]!r} is neither true nor false")
        return text == "true"


class _Mistake(Exception):
    pass


_TOO_MANY = f"more than {MOST_VALUES:,} values, where what an alias (*) names counts each time"
_TOO_DEEP = f"sections are nested deeper than the {MOST_LEVELS} levels that are read"


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
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
for _kind in ("binary", "timestamp", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.refuse_type)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)
_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader.construct_boolean)


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a file of settings; an empty file has none.

    Raises:
        UserError: the file cannot be read, is no YAML, or says something ambiguous; names file and line.
    """
    where = printable(path)
    tree = parse_yaml(read_small_text(path, MOST_BYTES), where)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"{where}: sections of settings are expected (optim: {{lr: 0.1}}), not {str(tree)[:40]!r}"
        )
    for section in (tree, *(value for value in tree.values() if isinstance(value, dict))):
        for key in section:
            if not isinstance(key, str):
                raise UserError(
                    f"{where}: the key {key!r} is a number, and settings have names; of a number such as 0,3 "
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
        _count_values(node, (), {})
        return loader.construct_document(node)
    except _Mistake as error:
        raise UserError(f"{origin}: {error}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last of \U with too large a number
        reason = printable(" ".join(str(error).replace('in "<unicode string>", ', "at ").split())[:200])
        raise UserError(f"{origin}: this is no YAML ({reason})") from error


def _count_values(node: yaml.Node, above: tuple[int, ...], counted: dict[int, int]) -> int:
    """How many values a node is once all aliases are written out; `counted` are the nodes that are known.

    Raises:
        _Mistake: an alias puts a node into itself, or there are too many values.
    """
    line = f"line {node.start_mark.line + 1}"
    if id(node) in above:
        raise _Mistake(f"{line}: a section cannot be within itself")
    if id(node) in counted:
        return counted[id(node)]
    count, inner = 1, node.value if isinstance(node, yaml.MappingNode | yaml.SequenceNode) else []
    for each in inner:
        for part in each if isinstance(each, tuple) else (each,):
            count += _count_values(part, (*above, id(node)), counted)
            if count > MOST_VALUES:
                raise _Mistake(f"{line}: {_TOO_MANY}")
    counted[id(node)] = count
    return count
