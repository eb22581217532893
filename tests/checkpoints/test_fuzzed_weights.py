"""Weights with random damage to bytes or structure: equal weights are read, or a sentence is said."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoint_files import random_state, same_tensors
from support.damage import damages
from support.fuzz import TIMES, examples
from support.odd_weights import HEAD, write_zip

from siamtransfer.checkpoints.containers import read_content
from siamtransfer.checkpoints.pickle_survey import survey
from siamtransfer.checkpoints.pickle_values import TooMuch
from siamtransfer.checkpoints.pickles import Inert
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.training_state import load_state
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.unexpected import TRACEBACK

pytestmark = pytest.mark.fault

STATE = {
    key: tensor
    for key, tensor in random_state("resnet18", 2).items()
    if key.startswith(("conv1", "layer1.0"))
}


def saved(zipped: bool, *, checksums: bool = True) -> bytes:
    file = io.BytesIO()
    torch.serialization.set_crc32_options(checksums)
    try:
        torch.save(STATE, file, _use_new_zipfile_serialization=zipped)
    finally:
        torch.serialization.set_crc32_options(True)
    return file.getvalue()


@cache
def content_of(name: str) -> bytes:
    """The bytes of an undamaged file."""
    return FILES[name][0]()


def arrays() -> bytes:
    return pickle.dumps({key: tensor.numpy() for key, tensor in STATE.items()}, 4)


# By the kind of a file: its bytes, and whether it has checksums, so that no changed number is read.
FILES: dict[str, tuple[Callable[[], bytes], bool]] = {
    "x.pth": (lambda: saved(True), True),
    "old.pth": (lambda: saved(False), False),
    "x.safetensors": (lambda: safetensors.torch.save(STATE), False),
    "x.pkl": (arrays, False),
}


@pytest.fixture(scope="module", autouse=True)
def with_tracebacks() -> Iterator[None]:
    """An error that no line expected fails the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRACEBACK, "1")
        yield


@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes(tmp_path: Path, name: str) -> None:
    make, has_checksums = FILES[name]
    content, refusals, count = make(), 0, 25 * TIMES
    path = tmp_path / name
    for damaged in damages(content, None, count=count):
        path.write_bytes(damaged)
        try:
            read = read_content(path)
        except UserError as error:
            refusals += 1
            assert str(error).isprintable() and name in str(error)
        else:
            assert not has_checksums or same_tensors(read, STATE), "other numbers were read"
    assert refusals >= count / 5
    path.write_bytes(content)
    assert same_tensors(read_content(path), STATE)


@examples(5)
@given(cut=st.floats(0, 1), other=st.sampled_from(sorted(FILES)), name=st.sampled_from(sorted(FILES)))
def test_a_file_that_goes_on_as_another(
    tmp_path_factory: pytest.TempPathFactory, cut: float, other: str, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    first, second = content_of(name), content_of(other)
    path.write_bytes(first[: int(cut * len(first))] + second[int(cut * len(second)) :])
    try:
        read = read_content(path)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert same_tensors(read, STATE) or not FILES[name][1]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from([torch.ones(2), torch.ones(()), torch.eye(2).to_sparse(), torch.ones(1, device="meta")]),
    st.sampled_from([torch.ones(2, dtype=torch.uint64), torch.ones(2).to(torch.float8_e5m2), np.float64(1)]),
    st.sampled_from(list(STATE.values())),
)
WORDS = st.one_of(
    st.sampled_from(
        ["model", "state_dict", "teacher", "ema", "format", "version", "keys", "backbone", "args", "epoch"]
    ),
    st.sampled_from(
        ["siamtransfer", "arch", "optimizer", "conv1.weight", "layer1.0.conv1.weight", "module.a"]
    ),
    st.text(max_size=6),
    st.integers(-3, 3),
    st.none(),
)
CONTENT = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(WORDS, inner, max_size=5), st.lists(inner, max_size=4), st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@examples(12)
@given(content=CONTENT)
def test_content_of_any_structure(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "structure.pth"
    torch.save(content, path)
    for read in (read_backbone, load_state):
        try:
            read(path)
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 3000, error
            assert "structure.pth" in str(error)


OPCODES = st.sampled_from(
    [
        *(
            b"}",
            b"]",
            b")",
            b"(",
            b"N",
            b"\x88",
            b"K\x01",
            b"J\xff\xff\xff\x7f",
            b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff",
        ),
        *(
            b"X\x01\x00\x00\x00a",
            b"U\x01b",
            b"q\x01",
            b"q\x02",
            b"h\x01",
            b"h\x02",
            b"0",
            b"1",
            b"2",
            b"t",
            b"\x85",
        ),
        *(
            b"\x86",
            b"\x87",
            b"l",
            b"d",
            b"a",
            b"e",
            b"s",
            b"u",
            b"R",
            b"b",
            b"\x81",
            b"\x8f",
            b"\x90",
            b"\x91",
            b"Q",
        ),
        *(b"\x94", b"\x93", b"ccollections\nOrderedDict\n", b"c__builtin__\nset\n", b"c__builtin__\nlist\n"),
        *(
            b"cnumpy\ndtype\n",
            b"cnumpy\nndarray\n",
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"c_codecs\nencode\n",
        ),
        *(
            b"ctorch\nFloatStorage\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"cargparse\nNamespace\n",
            b"cos\nsystem\n",
        ),
    ]
)


@examples(25)
@given(opcodes=st.lists(OPCODES, max_size=30), form=st.sampled_from(["x.pth", "plain.pth", "x.pkl"]))
def test_pickles_of_any_opcodes(
    tmp_path_factory: pytest.TempPathFactory, opcodes: list[bytes], form: str
) -> None:
    path = tmp_path_factory.getbasetemp() / form
    data = HEAD + (b"cnumpy\ndtype\n0" if form == "x.pkl" else b"") + b"".join(opcodes) + b"."
    if form == "x.pth":
        write_zip(path, data)
    else:
        path.write_bytes(data)
    try:
        read_content(path)
    except UserError as error:
        assert str(error).isprintable()


@examples(60)
@given(opcodes=st.lists(OPCODES, max_size=25))
def test_a_survey_goes_as_far_as_unpickling(opcodes: list[bytes]) -> None:
    data = HEAD + b"".join(opcodes) + b"."

    class Named(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return {"OrderedDict": dict, "set": set, "list": list}.get(name, Inert)

        def persistent_load(self, _: Any) -> None:
            return None

    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Named(file, encoding="bytes").load()
    except Exception:
        return  # the survey may go further: it knows no types
    with_survey = io.BytesIO(data)
    try:
        found = survey(with_survey, len(data))
    except TooMuch:
        return
    assert found.whole and with_survey.tell() == file.tell()
