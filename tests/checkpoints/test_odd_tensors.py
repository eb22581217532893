"""Odd tensors in files of weights: each is read with its numbers, or refused in one sentence."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save
from support.odd_weights import Claimed, Storage, refused, write_claimed
from support.thorough import more
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import read_backbone

pytestmark = pytest.mark.fault

STATE = random_state("resnet18", 2)
FIRST = "conv1.weight"
SHAPE, STRIDE, NUMEL = (2, 3, 7, 7), (147, 49, 7, 1), 294
F32 = torch.FloatStorage

# Tensors that lie about their storage.

LIES: dict[str, Any] = {
    "beyond the end": Claimed(Storage(F32, "x", NUMEL), 100, SHAPE, STRIDE),
    "a far offset": Claimed(Storage(F32, "x", NUMEL), 2**62, SHAPE, STRIDE),
    "before the beginning": Claimed(Storage(F32, "x", NUMEL), -5, SHAPE, STRIDE),
    "a wide stride": Claimed(Storage(F32, "x", NUMEL), 0, SHAPE, (2**60, 49, 7, 1)),
    "a stride backwards": Claimed(Storage(F32, "x", NUMEL), 0, SHAPE, (-147, 49, 7, 1)),
    "no strides": Claimed(Storage(F32, "x", NUMEL), 0, (2**40, 3, 7, 7), (0, 0, 0, 0)),
    "an overflow": Claimed(Storage(F32, "x", NUMEL), 0, (2**62, 2**62), (0, 0)),
    "a negative size": Claimed(Storage(F32, "x", NUMEL), 0, (-2, 3, 7, 7), STRIDE),
    "half a size": Claimed(Storage(F32, "x", NUMEL), 0, (2.5, 3, 7, 7), STRIDE),
    "a text for a size": Claimed(Storage(F32, "x", NUMEL), 0, "abc", STRIDE),
    "too few strides": Claimed(Storage(F32, "x", NUMEL), 0, SHAPE, (1,)),
    "fewer than none": Claimed(Storage(F32, "x", -1), 0, SHAPE, STRIDE),
    "too few": Claimed(Storage(F32, "x", 3), 0, SHAPE, STRIDE),
    "a text for a number": Claimed(Storage(F32, "x", "z"), 0, SHAPE, STRIDE),
    "an absent record": Claimed(Storage(F32, "absent", NUMEL), 0, SHAPE, STRIDE),
    "a record outside": Claimed(Storage(F32, "../x", NUMEL), 0, SHAPE, STRIDE),
    "a number for a record": Claimed(Storage(F32, 5, NUMEL), 0, SHAPE, STRIDE),
    "a text for a type": Claimed(Storage("float", "x", NUMEL), 0, SHAPE, STRIDE),
    "numbers of another size": Claimed(Storage(torch.DoubleStorage, "x", NUMEL), 0, SHAPE, STRIDE),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    refused(write_claimed(tmp_path / "x.pth", STATE, FIRST, LIES[lie]))


@pytest.mark.parametrize("numel", [NUMEL, 2**50])
def test_the_record_decides_how_many_numbers_there_are(tmp_path: Path, numel: int) -> None:
    honest = Claimed(Storage(F32, "x", numel), 0, SHAPE, STRIDE)
    assert same_tensors(read_backbone(write_claimed(tmp_path / "x.pth", STATE, FIRST, honest)).state, STATE)


def test_few_numbers_do_not_become_gigabytes(tmp_path: Path) -> None:
    wide = {"head.weight": torch.ones(1).expand(2**20, 2**10)}
    assert "repeats the few it stores" in refused(save({"model": STATE | wide}, tmp_path))
    own = own_checkpoint(STATE, "resnet18", 2, "imagenet", declared=True)
    own["model"]["backbone.conv1.weight"] = torch.ones(1).expand(2**20, 2**10)
    assert "repeats the few it stores" in refused(save(own, tmp_path))


# Tensors of other kinds than plain weights.


def nested(_: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def compressed(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tensor.flatten(1).to_sparse_csr()


KINDS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "sparse": (lambda t: t.to_sparse(), "is sparse .torch.sparse_coo.*to_dense"),
    "compressed": (compressed, "is sparse .torch.sparse_csr.*to_dense"),
    "meta": (lambda t: t.to("meta"), "of no values .on the device meta."),
    "nested": (nested, "that is nested"),
    "eight bits": (lambda t: t.to(torch.float8_e4m3fn), "float8_e4m3fn.*quantised"),
    "exponents": (lambda t: t.to(torch.float8_e8m0fnu), "float8_e8m0fnu.*quantised"),
    "complex": (lambda t: t.to(torch.complex64), "wrong type torch.complex64"),
    "conjugated": (lambda t: torch.complex(t, t).conj(), "wrong type torch.complex64"),
    "bool": (lambda t: t.bool(), "wrong type torch.bool"),
    "unsigned": (lambda t: t.to(torch.uint16), "wrong type torch.uint16"),
    "wide": (lambda t: t.double() * 1e300, "beyond the range of float32|NaN or infinity"),
    "nan": (lambda t: t * torch.nan, "NaN or infinity"),
    "infinite": (lambda t: t + torch.inf, "NaN or infinity"),
    "scalar": (lambda t: torch.ones(()), FIRST.partition(".")[0]),
    "nothing": (lambda t: torch.ones(0, 3, 7, 7), "resnet"),
}
_BRIEF = ("sparse", "nested", "eight bits", "complex", "wide")


@pytest.mark.parametrize("kind", [kind if kind in _BRIEF else more(kind) for kind in KINDS])
@pytest.mark.parametrize("own", [False, True])
def test_a_tensor_of_another_kind_is_named(tmp_path: Path, kind: str, own: bool) -> None:
    make, words = KINDS[kind]
    names = (FIRST, "bn1.running_mean") if kind in ("sparse", "eight bits", "meta", "nan") else (FIRST,)
    for name in names:
        tensors = STATE | {name: make(STATE[name])}
        content: Any = own_checkpoint(tensors, "resnet18", 2, "imagenet", declared=True) if own else tensors
        sentence = refused(save(content, tmp_path))
        assert re.search(words if not own or kind not in ("scalar", "nothing") else "conv1", sentence), (
            sentence
        )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_negated_view_has_its_numbers(tmp_path: Path, zipped: bool) -> None:
    negated = torch._neg_view(STATE[FIRST].clone())
    path = tmp_path / "x.pth"
    torch.save(STATE | {FIRST: negated}, path, _use_new_zipfile_serialization=zipped)
    read = read_backbone(path).state[FIRST]
    assert torch.equal(read, -STATE[FIRST]) and not read.is_neg()
