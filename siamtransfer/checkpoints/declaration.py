"""The declaration in a checkpoint of this program: which of its keys are backbone, target and heads.

    state["keys"] = {
        "backbone": "backbone.",          prefix of the trained backbone's keys in state["model"]
        "target": "target_backbone.",     prefix of its moving average; None where the method has none
        "second": "second_backbone.",     only where the second column of pairs has a backbone of its own
        "heads": ["projector", "queue"],  first words of all other keys, sorted
        "evaluated": "backbone",          first word of the network that the method's authors evaluate
    }

The writer knows these parts, so the reader needs no list of the heads' names: a method may call its modules
and buffers as it likes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from siamtransfer.utils.errors import UserError

FORMAT = "siamtransfer"
VERSION = 1
VERSION_OF_CHOICES = 2
"""Of files whose network has choices beyond its name, width, stem and channels. Programs that know version 1
only would leave them out without a word, so they refuse such files."""
KEYS = "keys"
"""The entry of a checkpoint that holds the declaration; files from before it have no such entry."""


class HasParts(Protocol):
    """What `declare` reads of a method."""

    @property
    def evaluated(self) -> str: ...

    def parts(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Declaration:
    """The declaration of a file, after a check of its form.

    Attributes:
        backbone: first word of the backbone's keys.
        target: first word of the target backbone's keys, None without one.
        second: first word of the keys of the second column's backbone, None without one.
        heads: first words of all other keys.
        evaluated: `backbone` or `target`, whichever is read by default.
    """

    backbone: str
    target: str | None
    heads: frozenset[str]
    evaluated: str
    second: str | None = None

    @property
    def branches(self) -> dict[str, str]:
        """The first word of each backbone's keys by the name of its branch, the evaluated one first."""
        words = {"backbone": self.backbone} | ({"target": self.target} if self.target else {})
        words |= {"second": self.second} if self.second else {}
        return dict(sorted(words.items(), key=lambda item: item[1] != self.evaluated))

    def part_of(self, key: str) -> str | None:
        """`backbone`, `target`, `second` or `head`; None for a key that the declaration does not cover."""
        word = first_word(key)
        branches = {prefix: name for name, prefix in self.branches.items()}
        return branches.get(word, "head" if word in self.heads else None)


def declare(method: HasParts) -> dict[str, Any]:
    """The declaration of a method's `state_dict()`, for the entry "keys" of its checkpoint.

    Raises:
        UserError: `parts()` names no backbone, or more than one backbone, target or second backbone.
    """
    words: dict[str, list[str]] = {"backbone": [], "target": [], "second": [], "head": []}
    for word, part in method.parts().items():
        words[part].append(word)
    if len(words["second"]) > 1:
        raise UserError(f"{type(method).__name__}.parts() names several second backbones: {words['second']}")
    if len(words["backbone"]) != 1 or len(words["target"]) > 1:
        raise UserError(
            f"{type(method).__name__}.parts() has to name one backbone and at most one target, not "
            f"{words['backbone']} and {words['target']}"
        )
    return {
        "backbone": f"{words['backbone'][0]}.",
        "target": f"{words['target'][0]}." if words["target"] else None,
        "heads": sorted(words["head"]),
        "evaluated": method.evaluated,
        **({"second": f"{words['second'][0]}."} if words["second"] else {}),
    }


def read_declaration(keys: Any) -> Declaration:
    """The declaration that a file's entry "keys" holds.

    Raises:
        ValueError: it has another form, declares a word twice, or `evaluated` is not one of its backbones;
            the message is the rest of a sentence that begins with the file's name.
    """
    match keys:
        case {
            "backbone": str(backbone),
            "target": None | str() as target,
            "heads": [*heads],
            "evaluated": str(evaluated),
        } if all(isinstance(word, str) for word in heads) and isinstance(keys.get("second", ""), str):
            second = keys.get("second")
        case _:
            raise ValueError(f"its entry 'keys' is not understood: {keys!r}")
    prefixes = [prefix for prefix in (backbone, target, second) if prefix is not None]
    for prefix in prefixes:
        if not re.fullmatch(r"[^.]+\.", prefix):
            raise ValueError(f"its entry 'keys' gives {prefix!r} where a word and a dot are expected")
    words = [prefix.removesuffix(".") for prefix in prefixes]
    twice = [word for word, count in Counter([*words, *heads]).items() if count > 1]
    if twice:
        raise ValueError(f"its entry 'keys' declares {twice[0]!r} twice")
    if evaluated not in words[: 1 + bool(target)]:
        raise ValueError(f"says that {evaluated!r} is evaluated, and there is no such network")
    return Declaration(
        words[0], words[1] if target else None, frozenset(heads), evaluated, words[-1] if second else None
    )


def first_word(key: str) -> str:
    """The part of a key before its first dot: the name of the method's module or buffer."""
    return key.split(".", 1)[0]
