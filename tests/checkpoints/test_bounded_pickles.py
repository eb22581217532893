"""Pickles that ask for too much memory or time are refused from their opcodes, and honest ones are not."""

from __future__ import annotations

import collections
import io
import pickle
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import pytest
import torch
from support.checkpoint_files import random_state, save
from support.odd_weights import ARRAY, HEAD, integer, refused, text, write_zip
from support.thorough import more

from siamtransfer.checkpoints import pickle_survey
from siamtransfer.checkpoints.containers import read_content
from siamtransfer.checkpoints.content_bounds import MOST_ENTRIES, MOST_LETTERS, MOST_TENSORS, refuse_tangled
from siamtransfer.checkpoints.pickle_survey import MOST_STEPS, survey
from siamtransfer.checkpoints.pickle_values import MOST_DEPTH, TooMuch
from siamtransfer.checkpoints.pickles import read_torch

pytestmark = pytest.mark.fault

_TUPLES = b")" + b"q\x01h\x01\x86" * 60  # of two of two of two ...: 2^60 values
_ENCODED = b"c_codecs\nencode\n" + text("a" * 9) + text("{}") + b"\x86R."
REPEATS, LEVELS, KEYS = "repeats what is in it", "levels deep", "keys that are neither texts"

# By what it does: the opcodes behind the head, and what the sentence says.
DEAR: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "reserves bytes": (b"c__builtin__\nbytearray\n" + integer(2**33) + b"\x85R.", "to reserve memory"),
    "reserves a tensor": (b"ctorch\nFloatTensor\n" + integer(2**33) + b"\x85R.", "to reserve memory"),
    "reserves a storage": (
        b"ctorch.storage\nUntypedStorage\n" + integer(2**33) + b"\x85\x81.",
        "reserve memory",
    ),
    "nests lists": (lambda: b"]" * 20_000 + b"a" * 19_999 + b".", LEVELS),
    "nests tuples": (lambda: b")" + b"\x85" * 20_000 + b".", LEVELS),
    "nests dicts": (lambda: b"}U\x01a" * 20_000 + b"N" + b"s" * 20_000 + b".", LEVELS),
    "hashes a tree": (b"}" + _TUPLES + b"Ns.", REPEATS),
    "hashes a tree in a set": (b"c__builtin__\nset\n]" + _TUPLES + b"a\x85R.", REPEATS),
    "hashes a tree in an OrderedDict": (b"ccollections\nOrderedDict\n(]" + _TUPLES + b"N\x86atR.", REPEATS),
    "hashes a tree in a Counter": (b"ccollections\nCounter\n]" + _TUPLES + b"a\x85R.", REPEATS),
    "copies a list": (
        lambda: b"](K\x01" + b"K\x01" * 9999 + b"eq\x01](" + b"c__builtin__\nlist\nh\x01\x85R" * 900 + b"e.",
        REPEATS,
    ),
    "fills an object again and again": (
        lambda: (
            b"ccollections\nOrderedDict\n)R}("
            + b"".join(integer(n) + b"N" for n in range(1000))
            + b"uq\x01b"
            + b"h\x01b" * 20_000
            + b"."
        ),
        REPEATS,
    ),
    "takes a text to pieces": (b"c__builtin__\nlist\n" + text("a" * 300) + b"\x85R.", "to take it to pieces"),
    "encodes in quadratic time": (
        _ENCODED.replace(b"{}", b"idna").replace(b"\x02", b"\x04", 1),
        "encodes a text",
    ),
    "collides": (
        lambda: (
            b"}(" + b"".join(integer((2**61 - 1) * n) + b"N" for n in range(2**20, 2**20 + 10_002)) + b"u."
        ),
        KEYS,
    ),
    "an integer of 2 GB": (b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1.", "truncated"),
    "an integer of 10 kB": (
        b"\x8b" + struct.pack("<i", 10_000) + b"\x7f" * 10_000 + b".",
        "integer of 10,000 bytes",
    ),
    "a long line": (b"I" + b"9" * 5000 + b"\n.", "a line of more than"),
    "a place far in the memo": (b"}r\xff\xff\xff\x7f.", "memo has a place 2,147,483,647"),
    "a place by text": (b"}p99999999999\n.", "memo has a place 99,999,999,999"),
    "a text that is not there": (b"X\xff\xff\xff\x7fabc.", "truncated"),
    "no end": (b"}", "truncated"),
    "an empty stack": (b".", "truncated"),
    "too many steps": (lambda: b"](" + b"]" * MOST_STEPS + b"e.", "more than 1,048,576 steps"),
}
_SLOW = ("too many steps",)


def pickle_of(kind: str) -> bytes:
    opcodes, _ = DEAR[kind]
    return opcodes if isinstance(opcodes, bytes) else opcodes()


@pytest.mark.parametrize("kind", [more(kind) if kind in _SLOW else kind for kind in DEAR])
def test_what_a_pickle_asks_for_is_bounded(tmp_path: Path, kind: str) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentence = refused(write_zip(tmp_path / "x.pth", HEAD + pickle_of(kind)))
    assert DEAR[kind][1] in sentence, sentence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 2**20, "in KiB: no GiB more"


@pytest.mark.parametrize(
    ("opcodes", "words"),
    [(b"]" * 200 + b"a" * 199 + b".", LEVELS), (b"](" + b"N" * 600 + b"e.", "more than 500 steps")],
)
def test_the_survey_alone_sees_depth_and_length(
    opcodes: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read afterwards is looked at again, but reading it may have taken all memory."""
    monkeypatch.setattr(pickle_survey, "MOST_STEPS", 500)
    with pytest.raises(TooMuch, match=words):
        survey(io.BytesIO(HEAD + opcodes), len(HEAD + opcodes))


@pytest.mark.parametrize("kind", ["reserves bytes", "hashes a tree", *map(more, list(DEAR)[1:])])
@pytest.mark.parametrize("name", ["x.pth", "x.pkl"])
def test_it_is_bounded_without_a_zip_file_around_it(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HEAD + (ARRAY if name == "x.pkl" else b"") + pickle_of(kind))
    assert DEAR[kind][1] in refused(path)


def shared(leaf: Any, levels: int, holder: Callable[[Any], Any]) -> Any:
    for _ in range(levels):
        leaf = holder(leaf)
    return leaf


def in_itself(holder: Any) -> Any:
    if isinstance(holder, list):
        holder.append([holder])
    else:
        holder["inner"] = {"outer": holder}
    return holder


TANGLED: dict[str, tuple[Callable[[], Any], str]] = {
    "lists of lists": (lambda: shared([], 60, lambda x: [x, x]), "that stand in it many times"),
    "dicts of dicts": (lambda: shared({}, 60, lambda x: {"a": x, "b": x}), "that stand in it many times"),
    "tuples of a tensor": (
        lambda: shared(torch.ones(1), 60, lambda x: (x, x)),
        "that stand in it many times",
    ),
    "a list in itself": (lambda: in_itself([]), "a list that contains itself"),
    "a dict in itself": (lambda: in_itself({}), "a dict that contains itself"),
    "deep": (lambda: shared([], MOST_DEPTH + 1, lambda x: [x]), LEVELS),
    "a long name": (lambda: {"a" * (MOST_LETTERS + 1): torch.ones(1)}, "name has 1,001 characters"),
    "half a character": (lambda: {"\udcff.weight": torch.ones(1)}, "no Unicode text"),
    "many entries": (lambda: dict.fromkeys(map(str, range(MOST_ENTRIES + 1))), "20,001 entries"),
    "many tensors": (
        lambda: {"model": dict.fromkeys(map(str, range(MOST_TENSORS + 1)), torch.ones(1))},
        "20,001 tensors",
    ),
    "a key of tuples": (lambda: {((1,),): 1}, "a key that is a tuple of tuples"),
}


@pytest.mark.parametrize("kind", TANGLED)
def test_content_that_is_no_tree_is_refused(tmp_path: Path, kind: str) -> None:
    make, words = TANGLED[kind]
    content = make()
    with pytest.raises(TooMuch, match=words):
        refuse_tangled(content)
    if kind not in ("deep", "many tensors"):  # the first is refused by its opcodes, the second is slow
        torch.save({"model": {"a": torch.ones(1)}, "beside": content}, tmp_path / "x.pth")
        assert words in refused(save(content, tmp_path)), "alone"
        if kind != "many entries":
            torch.save({"model": {"a": torch.ones(1)}, "beside": content}, tmp_path / "x.pth")
            assert words in refused(tmp_path / "x.pth")


def test_shared_values_of_a_reasonable_number_are_read(tmp_path: Path) -> None:
    common = {"lr": 0.1, "betas": (0.9, 0.99)}
    content = {"model": random_state("resnet18", 2), "groups": [common] * 500, "log": list(range(20_000))}
    read = read_content(save(content, tmp_path))
    assert read["groups"] == content["groups"] and read["log"] == content["log"]


def test_settings_that_refer_to_their_parents_are_read(tmp_path: Path) -> None:
    deep = omegaconf.OmegaConf.create(
        {f"a{i}": {f"b{j}": {"c": [1, 2, {"d": j}]} for j in range(4)} for i in range(9)}
    )
    save({"model": random_state("resnet18", 2), "cfg": deep}, tmp_path)
    assert len(read_torch(tmp_path / "x.pth", mmap=False, trust=False)["cfg"].state["_content"]) == 9


ORDINARY: Any = {
    "list": [1, 2.5, "x", "é" * 300, None, True, b"bytes", 10**30, -1],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "sets": {1, 2},
    "frozen": frozenset("ab"),
    "array": np.arange(6.0).reshape(2, 3),
    "number": np.float32(2),
    "counter": collections.Counter("aab"),
    "ordered": collections.OrderedDict(a=1),
}


@pytest.mark.parametrize("protocol", range(6))
def test_a_survey_names_what_unpickling_asks_for(protocol: int) -> None:
    asked: set[str] = set()

    class Asking(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            asked.add(f"{module}.{name}".replace("builtins.", "__builtin__."))
            return super().find_class(module, name)

    data = pickle.dumps(ORDINARY, protocol) + b"further bytes"
    Asking(io.BytesIO(data)).load()
    file = io.BytesIO(data)
    found = survey(file, len(data))
    names = {name.replace("builtins.", "__builtin__.") for name in found.names}
    assert found.whole and {name for name in names if "numpy" in name} <= asked
    renamed = {"copy_reg._reconstructor"}
    assert len(names - renamed) >= len({name for name in asked if not name.startswith("copyreg")}) - 1
    assert file.read() == b"further bytes", "it ends where the pickle ends"


def test_a_cut_pickle_is_not_whole() -> None:
    data = pickle.dumps(ORDINARY, 4)
    for length in range(0, len(data), 7):
        assert not survey(io.BytesIO(data[:length]), length).whole


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_all_numbers_are_read(tmp_path: Path, protocol: int) -> None:
    kinds = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8")
    arrays: dict[str, Any] = {kind: np.arange(12).reshape(3, 4).astype(kind) for kind in kinds}
    arrays |= {
        "turned": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        "T": np.asfortranarray(np.eye(3, 4)),
    }
    arrays |= {"none": np.zeros((0, 3)), "scalar": np.array(7.5)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays, "n": np.int64(3)}, protocol))
    read = read_content(tmp_path / "x.pkl")
    assert read["n"] == 3
    for name, array in arrays.items():
        assert np.array_equal(read["model"][name].numpy(), array), name
        assert read["model"][name].is_contiguous()


@pytest.mark.parametrize(
    "array",
    [np.array([1, None], object), np.array(["a"]), np.zeros(2, "M8[s]"), np.zeros(2, "c8"), np.zeros(2, "g")],
)
def test_arrays_of_other_things_are_no_tensors(tmp_path: Path, array: Any) -> None:
    content = {"model": {"a": np.ones(2), "b": array}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, 2))
    read = read_content(tmp_path / "x.pkl")["model"]
    assert torch.equal(read["a"], torch.ones(2, dtype=torch.float64)) and not isinstance(
        read["b"], torch.Tensor
    )


_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
_STATE = b"(K\x01{}\x85cnumpy\ndtype\nU\x02f4\x85R\x89U\x04abcdtb."


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cnumpy\nndarray\n" + integer(2**34) + b"\x85\x85R.",
        _RECONSTRUCT + b"K\x00\x85U\x01b\x87R" + _STATE.replace(b"{}", integer(2**40)),
        _RECONSTRUCT + b"K\x00\x85U\x01b\x87R" + _STATE.replace(b"{}", b"J\xff\xff\xff\xff"),
        _RECONSTRUCT + b"K\x00\x85U\x01b\x87R" + _STATE.replace(b"{}", b"U\x01a"),
    ],
)
def test_an_array_has_the_bytes_of_its_shape(tmp_path: Path, opcodes: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(HEAD + opcodes)
    refused(tmp_path / "x.pkl")
