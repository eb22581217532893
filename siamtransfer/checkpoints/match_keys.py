"""Accounting for every key of a checkpoint by the rules of one format: used, dropped by a named rule, or an
error.

Dicts of tensors in, one backbone's tensors out, under torchvision's or timm's names; whether they are a whole
backbone is for `Architecture.complete` to say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from siamtransfer.checkpoints.containers import holds_tensors, without_wrappers
from siamtransfer.checkpoints.formats import AVERAGES, OWN, TRAINING, USUAL, Format, Place
from siamtransfer.checkpoints.training_state import VERSION
from siamtransfer.utils.errors import UserError

AVERAGE = "ema"  # the branch of a moving average of all weights
_TRUNK = re.compile(r"(conv1|bn1|layer[1-4]|blocks|patch_embed)\.|(cls_token|pos_embed)$")


class Mismatch(Exception):
    """Why a file is not of a certain format; of several reasons the one with most trunk keys is told."""

    def __init__(self, reason: str, closeness: int = 0):
        super().__init__(reason)
        self.closeness = closeness


@dataclass(frozen=True)
class Account:
    """One backbone of a file.

    Attributes:
        tensors: under torchvision's or timm's names, not yet checked for being complete.
        branch: which of the file's `branches` it is; the chosen one comes first.
        dropped: number of keys by the rule that dropped them.
        closeness: how many of the file's tensors belong to the trunk, for the choice of what to tell a user.
    """

    tensors: dict[str, Tensor]
    branch: str
    branches: tuple[str, ...]
    dropped: dict[str, int]
    closeness: int


class Average(NamedTuple):
    """What became of a moving average of all weights: whether it took their place, and how many tensors (its
    own, or theirs) were left out for that."""

    taken: bool = False
    left_out: int = 0


def account(form: Format, content: Any, asked: str | None, average: Average) -> Account:
    """Takes `content` for a file of `form` and explains every key of it; of its branches the one `asked` for,
    or the first.

    Raises:
        Mismatch: the rules of the format do not explain everything.
        UserError: they do, and there is no such branch.
    """
    dicts = _tensors_of(form, content)
    found, dropped, strangers = _sort_keys(form, dicts)
    found = {name: _renamed(form, tensors) for name, tensors in found.items() if tensors}
    trunk = max((_closeness(form, tensors) for tensors in found.values()), default=0)
    if trunk == 0:
        heads = ", ".join(f"{rule}: {count}" for rule, count in dropped.items())
        raise Mismatch(
            f"looks like {form.what}, but holds only heads ({heads} tensors), no backbone", len(dropped)
        )
    strangers += _unexplained_neighbours(form, content, dicts)
    if strangers:
        raise Mismatch(f"looks like {form.what}, but no rule explains its key {strangers[0]!r}", trunk)

    averages = [AVERAGE] * bool(average.taken or average.left_out)
    branches = averages if average.taken and not average.left_out else [*found, *averages]
    branch = AVERAGE if average.taken else asked or branches[0]
    if branch not in branches:
        raise UserError(f"has no branch {branch!r}: it has {', '.join(branches)} (--branch)")
    tensors = found.pop(branch if branch in found else next(iter(found)))
    dropped.update({f"branch {name}": len(others) for name, others in found.items()})
    if average.left_out:
        dropped["the weights that were averaged" if average.taken else "moving average"] += average.left_out
    others = tuple(name for name in branches if name != branch)
    return Account(tensors, branch, (branch, *others), dict(dropped), trunk)


def settle_average(content: Any, wanted: bool) -> tuple[Any, Average]:
    """Takes a moving average of all weights out of the file, or puts it in the weights' place if it is
    `wanted` or there are no others. An entry that is no copy of the weights stays, to be refused as a
    stranger."""
    if not isinstance(content, dict):
        return content, Average()
    home = next((place[0] for place in USUAL if place and _is_state(content.get(place[0]))), None)
    for entry in AVERAGES:
        average = content.get(entry)
        if isinstance(average, dict) and len(average) == 1:
            average = next(iter(average.values()))  # {"ema": {"module": ...}}
        if not _is_state(average):
            continue
        assert isinstance(average, dict)
        average = {key: tensor for key, tensor in average.items() if key != "n_averaged"}
        rest = {key: value for key, value in content.items() if key != entry}
        if home is None:
            return {**rest, "state_dict": average}, Average(taken=True)
        if _bare(average).keys() == _bare(content[home]).keys():
            return ({**rest, home: average} if wanted else rest), Average(wanted, len(average))
    return content, Average()


def _sort_keys(
    form: Format, dicts: Mapping[Place, dict[str, Tensor]]
) -> tuple[dict[str, dict[str, Tensor]], Counter[str], list[str]]:
    """Every key in one of three heaps: the tensors of each branch, how many each rule drops, and strangers.

    Where several beginnings fit a key the longest one decides, a rule before a branch.
    """
    found: dict[str, dict[str, Tensor]] = {name: {} for name in form.branches}
    dropped: Counter[str] = Counter()
    strangers: list[str] = []
    for place, tensors in dicts.items():
        prefixes = {name: b.prefix for name, b in form.branches.items() if b.place in (None, place)}
        for key, tensor in tensors.items():
            rule = max((begin for begin in form.drops if _begins(key, begin)), key=len, default="")
            names = [name for name, prefix in prefixes.items() if key.startswith(prefix)]
            name = max(names, key=lambda name: len(prefixes[name]), default=None)
            if rule and (name is None or len(rule) >= len(prefixes[name])):
                dropped[form.drops[rule]] += 1
            elif name is not None:
                found[name][key.removeprefix(prefixes[name])] = tensor
            else:
                strangers.append(key)
    return found, dropped, strangers


def _begins(key: str, beginning: str) -> bool:
    """Whether `beginning` is the first words of `key` (see Format.drops)."""
    rest = key.removeprefix(beginning)
    return key.startswith(beginning) and (beginning[-1] == "." or not rest or not rest[0].isalpha())


def _renamed(form: Format, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        renamed = {form.rename(name): tensor for name, tensor in tensors.items()}
    except ValueError as error:
        raise Mismatch(f"looks like {form.what}, but {error}") from error
    if len(renamed) < len(tensors):
        raise Mismatch(f"looks like {form.what}, but holds some tensors twice under different names", 1)
    return renamed


def _closeness(form: Format, tensors: Iterable[str]) -> int:
    names = list(tensors)
    return len(names) if form is OWN else sum(bool(_TRUNK.match(name)) for name in names)


def _tensors_of(form: Format, content: Any) -> dict[Place, dict[str, Tensor]]:
    """The dicts of tensors at the format's places, without the wrappers' words in their keys."""
    missing = [entry for entry in form.needs if not isinstance(content, dict) or entry not in content]
    if missing:
        raise Mismatch(f"looks like {form.what}, but lacks its entry {missing[0]!r}", int(form is OWN))
    if form is OWN and content["version"] != VERSION:
        raise Mismatch(
            f"was written by another version of siamtransfer ({content['version']}): update to read it", 1
        )
    own_places = [branch.place for branch in form.branches.values() if branch.place is not None]
    found = [place for place in own_places or form.places if _is_state(_at(content, place))]
    if not found:
        raise Mismatch(f"has no dict of tensors where {form.what} has it", int(form is OWN))
    dicts = {place: _bare(_at(content, place)) for place in (found if own_places else found[:1])}
    keys = [key for tensors in dicts.values() for key in tensors]
    for mark in form.marks:
        if not any(key.startswith(tuple(mark.split("|"))) for key in keys):
            raise Mismatch(f"has no tensor called {mark.replace('|', ' or ')}... as {form.what} has")
    return dicts


def _at(content: Any, place: Place) -> Any:
    for entry in place:
        content = content.get(entry) if isinstance(content, dict) else None
    return content


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict) and bool(value) and all(isinstance(item, Tensor) for item in value.values())
    )


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under names without wrappers, and without a first word that is the model's own."""
    bare = {without_wrappers(str(key)): tensor for key, tensor in tensors.items()}
    if len(bare) < len(tensors):
        raise Mismatch(
            "holds some tensors twice, with and without the prefix of a wrapper such as module.", 1
        )
    for word in ("model.", "net.", "network."):
        if all(key.startswith(word) for key in bare):
            return _bare({key.removeprefix(word): tensor for key, tensor in bare.items()})
    return bare


def _unexplained_neighbours(form: Format, content: Any, places: Iterable[Place]) -> list[str]:
    """Entries beside the way to the dicts that hold tensors although the format knows of none there."""
    if form is OWN:
        return []
    on_the_way = {place[: depth + 1] for place in places for depth in range(len(place))}
    strangers = []
    for parent in {way[:-1] for way in on_the_way}:
        for entry, value in _at(content, parent).items():
            explained = (*parent, entry) in on_the_way or entry in form.beside or entry in TRAINING
            if not explained and holds_tensors(value):
                strangers.append(str(entry))
    return strangers
