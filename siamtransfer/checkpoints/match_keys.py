"""Explains every key of a checkpoint by the rules of one format: used, dropped by a named rule, or an error.

The input is the content of a file, the result one backbone's tensors under torchvision's or timm's names.
`Architecture.complete` checks afterwards that they are a complete backbone.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from siamtransfer.backbones.catalogue import load_catalogue
from siamtransfer.checkpoints.classifier_place import split_at_classifier
from siamtransfer.checkpoints.file_format import TRAINING, Format, KeyPath
from siamtransfer.checkpoints.foreign_content import holds_tensors
from siamtransfer.checkpoints.moving_average import AVERAGE, MovingAverage
from siamtransfer.checkpoints.tensor_dicts import Mismatch, Unknown, entry_at, is_state_dict, unwrap_keys
from siamtransfer.checkpoints.wrappers import is_counter
from siamtransfer.utils.errors import UserError

_TRUNK = re.compile(r"(conv1|bn1|layer[1-4]|blocks|patch_embed)\.|(cls_token|pos_embed)$")


@dataclass(frozen=True)
class SortedKeys:
    """Every key of a file's dicts of tensors, in one of three groups.

    Attributes:
        branches: the tensors of each branch by their names without the branch's prefix.
        dropped: the number of keys that each rule drops.
        unexpected: keys that no rule explains.
    """

    branches: dict[str, dict[str, Tensor]]
    dropped: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MatchedKeys:
    """One backbone of a file, all keys of which are explained.

    Attributes:
        tensors: by torchvision's or timm's names, not yet checked to be complete.
        branch: its name; the first of `branches`, the names of all backbones in the file.
        dropped: number of keys by the rule that dropped them.
        matched: the largest number of the trunk's keys in a branch, see `Mismatch`.
    """

    tensors: dict[str, Tensor]
    branch: str
    branches: tuple[str, ...]
    dropped: dict[str, int]
    matched: int

    def without(self, names: Set[str], rule: str) -> MatchedKeys:
        """The same without these tensors, which `rule` drops."""
        left_out = names & self.tensors.keys()
        if not left_out:
            return self
        tensors = {name: tensor for name, tensor in self.tensors.items() if name not in left_out}
        dropped = {**self.dropped, rule: self.dropped.get(rule, 0) + len(left_out)}
        return replace(self, tensors=tensors, dropped=dropped)


def match_keys(
    form: Format,
    content: Any,
    branch: str | None,
    average: MovingAverage,
    trunk: Set[str] | None = None,
) -> MatchedKeys:
    """Explains every key of `content` by the rules of `form`; returns `branch`, or else its first branch.

    `trunk` are the names of the tensors of a trunk that is known beforehand.

    Raises:
        Mismatch: the rules do not explain everything.
        UserError: they do, but there is no such branch.
    """
    dicts = _find_tensors(form, content)
    keys = sort_keys(form, dicts)
    branches = _without_heads(form, keys, trunk)
    matched = max((_matched(tensors, trunk) for tensors in branches.values()), default=0)
    if matched == 0:
        found = next(iter(branches.values()), {})
        if not (form.marks and found):  # a format without marks says nothing of a file
            raise Mismatch(only_heads(form, keys.dropped), len(keys.dropped))
        raise Mismatch(
            unknown_trunk(form, found),
            len(keys.dropped) + (1 if keys.unexpected else 2),
            Unknown(form.what, found),
        )
    unexpected = keys.unexpected + _unexpected_entries(form, content, dicts)
    if unexpected:
        raise Mismatch(f"looks like {form.what}, but no rule explains its key {unexpected[0]!r}", matched)
    return replace(select_branch(SortedKeys(branches, keys.dropped), branch, average), matched=matched)


def _without_heads(form: Format, keys: SortedKeys, trunk: Set[str] | None) -> dict[str, dict[str, Tensor]]:
    """The tensors of each branch that has some, under torchvision's or timm's names. Those at the place of a
    classifier, where the format has a head, are counted as dropped."""
    branches: dict[str, dict[str, Tensor]] = {}
    for name, tensors in keys.branches.items():
        if not tensors:
            continue
        renamed, rule = _rename(form, tensors, keys.dropped.total()), form.branches[name].head
        if rule is not None:
            renamed, head = split_at_classifier(renamed, trunk)
            keys.dropped.update({rule: len(head)} if head else {})
        if renamed:
            branches[name] = renamed
    return branches


def _matched(tensors: Mapping[str, Tensor], trunk: Set[str] | None) -> int:
    """How many tensors belong to a trunk: to `trunk`, to a ResNet or a ViT, or to a network of a library."""
    if trunk is not None:
        return len(trunk & tensors.keys())
    count = count_trunk_keys(tensors)
    if count == 0:
        entry = load_catalogue().find({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return 0 if entry is None else len(tensors) - len(entry.head)
    return count


def select_branch(keys: SortedKeys, branch: str | None, average: MovingAverage) -> MatchedKeys:
    """One of the branches, all of which have tensors; the others count as dropped.

    Raises:
        UserError: there is no such branch; names those that exist.
    """
    branches, dropped = dict(keys.branches), Counter(keys.dropped)
    matched = max(count_trunk_keys(tensors) for tensors in branches.values())
    averages = [AVERAGE] if average.used or average.dropped else []
    names = averages if average.used and not average.dropped else [*branches, *averages]
    selected = AVERAGE if average.used else branch or names[0]
    if selected not in names:
        raise UserError(f"has no branch {selected!r}: it has {', '.join(names)} (--branch)")
    # A moving average that is used stands in the first branch.
    tensors = branches.pop(selected if selected in branches else next(iter(branches)))
    dropped.update({f"branch {name}": len(left_out) for name, left_out in branches.items()})
    if average.dropped:
        dropped["the weights that were averaged" if average.used else "moving average"] += average.dropped
    others = (name for name in names if name != selected)
    return MatchedKeys(tensors, selected, (selected, *others), dict(dropped), matched)


def sort_keys(form: Format, dicts: Mapping[KeyPath, dict[str, Tensor]]) -> SortedKeys:
    """Sorts the keys of all dicts by the prefixes of branches and the rules of `form`.

    Where several beginnings fit a key the longest decides, and a rule comes before a branch.
    """
    keys = SortedKeys({name: {} for name in form.branches})
    for path, tensors in dicts.items():
        prefixes = {name: b.prefix for name, b in form.branches.items() if b.key_path in (None, path)}
        for key, tensor in tensors.items():
            if is_counter(key, tensor):
                keys.dropped["counter of the moving average"] += 1
                continue
            rule = max((start for start in form.drops if _starts_with_words(key, start)), key=len, default="")
            names = [name for name, prefix in prefixes.items() if key.startswith(prefix)]
            name = max(names, key=lambda name: len(prefixes[name]), default=None)
            if rule and (name is None or len(rule) >= len(prefixes[name])):
                keys.dropped[form.drops[rule]] += 1
            elif name is not None:
                keys.branches[name][key.removeprefix(prefixes[name])] = tensor
            else:
                keys.unexpected.append(key)
    return keys


def _starts_with_words(key: str, start: str) -> bool:
    """Whether `start` is the first words of `key` (see Format.drops)."""
    rest = key.removeprefix(start)
    return key.startswith(start) and (start[-1] == "." or not rest or not rest[0].isalpha())


def _rename(form: Format, tensors: dict[str, Tensor], dropped: int) -> dict[str, Tensor]:
    """The tensors under torchvision's or timm's names; the rules of the format drop `dropped` others."""
    try:
        converted = form.convert(tensors)
        renamed = {form.rename(name): tensor for name, tensor in converted.items()}
    except ValueError as error:
        known = sum(_is_known(form, name, tensor) for name, tensor in tensors.items()) if form.marks else 0
        raise Mismatch(f"looks like {form.what}, but {error}", known and known + dropped) from error
    if len(renamed) < len(converted):
        raise Mismatch(f"looks like {form.what}, but holds some tensors twice under different names", 1)
    return renamed


def _is_known(form: Format, name: str, tensor: Tensor) -> bool:
    """Whether the layout of the format has a name for a tensor."""
    with contextlib.suppress(ValueError):
        for converted in form.convert({name: tensor}):
            form.rename(converted)
        return True
    return False


def count_trunk_keys(names: Iterable[str]) -> int:
    """How many names belong to the trunk of a ResNet or a ViT."""
    return sum(bool(_TRUNK.match(name)) for name in names)


def only_heads(form: Format, dropped: Mapping[str, int]) -> str:
    """The reason why a file of which every backbone is missing is refused."""
    heads = ", ".join(f"{rule}: {count}" for rule, count in dropped.items())
    return f"looks like {form.what}, but holds only heads ({heads} tensors), no backbone"


def unknown_trunk(form: Format, tensors: Iterable[str]) -> str:
    """The reason why a file is refused whose backbone is of no known kind."""
    names = list(tensors)
    return (
        f"looks like {form.what}, and its backbone has {len(names)} tensors ({', '.join(names[:3])} ...), "
        "which together are those of no network known here: if you know which network it is, say "
        "--architecture timm:NAME, and the first tensor that differs from it is named"
    )


def _find_tensors(form: Format, content: Any) -> dict[KeyPath, dict[str, Tensor]]:
    """The dicts of tensors at the format's key paths, without the wrappers' words in their keys."""
    missing = [entry for entry in form.needs if not isinstance(content, dict) or entry not in content]
    if missing:
        raise Mismatch(f"looks like {form.what}, but lacks its entry {missing[0]!r}")
    branch_paths = [branch.key_path for branch in form.branches.values() if branch.key_path is not None]
    existing = [path for path in branch_paths or form.key_paths if is_state_dict(entry_at(content, path))]
    if not existing:
        raise Mismatch(f"has no dict of tensors where {form.what} has it")
    dicts = {
        path: unwrap_keys(entry_at(content, path)) for path in (existing if branch_paths else existing[:1])
    }
    keys = [key for tensors in dicts.values() for key in tensors]
    for mark in form.marks:
        if not any(key.startswith(tuple(mark.split("|"))) for key in keys):
            raise Mismatch(f"has no tensor called {mark.replace('|', ' or ')}... as {form.what} has")
    return dicts


def _unexpected_entries(form: Format, content: Any, paths: Iterable[KeyPath]) -> list[str]:
    """Entries along the key paths that hold tensors although the format has none there."""
    on_the_path = {path[: depth + 1] for path in paths for depth in range(len(path))}
    unexpected = []
    for parent in {path[:-1] for path in on_the_path}:
        for entry, value in entry_at(content, parent).items():
            explained = (*parent, entry) in on_the_path or entry in form.siblings or entry in TRAINING
            if not explained and holds_tensors(value):
                unexpected.append(str(entry))
    return unexpected
