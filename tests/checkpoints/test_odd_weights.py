"""Odd files of weights: each is read with the weights that were written, or refused in one sentence."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from support.checkpoint_files import own_checkpoint, random_state, same_tensors, save
from support.odd_weights import HEAD, Claimed, Storage, refused, write_claimed, write_zip
from support.thorough import more
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from siamtransfer.checkpoints.distributed_checkpoint import read_distributed
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.training_state import read_state
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault

STATE = random_state("resnet18", 2)
FIRST = "conv1.weight"
SHAPE, STRIDE, NUMEL = (2, 3, 7, 7), (147, 49, 7, 1), 294
F32 = torch.FloatStorage
Odd = dict[str, Any]


def rest(name: str = FIRST) -> dict[str, Tensor]:
    """All tensors but one."""
    return {key: tensor for key, tensor in STATE.items() if key != name}


# Tensors that lie about their storage.

LIES: Odd = {
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


# Values in a checkpoint of this program.

VALUES: Odd = {
    "a tensor": torch.ones(3),
    "a number in a tensor": torch.tensor(1),
    "a list": [1],
    "None": None,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "400 digits": 10**400,
    "a text": "1",
    "a line": "a\nb\x1b[31m",
    "minus one": -1,
    "a dict": {},
    "True": True,
    "a tuple": (1, 2),
    "bytes": b"1",
}
PLACES = (
    *("version", "model", "backbone", "normalisation", "keys"),
    *("backbone.name", "backbone.width", "backbone.stem", "backbone.in_channels", "backbone.heads"),
    *("normalisation.mean", "normalisation.std", "keys.backbone", "keys.heads", "keys.evaluated"),
)
_FEW = ("a tensor", "NaN", "400 digits")


@pytest.mark.parametrize("value", [value if value in _FEW else more(value) for value in VALUES])
@pytest.mark.parametrize("place", PLACES)
def test_an_odd_value_of_ours_is_refused(tmp_path: Path, place: str, value: str) -> None:
    own = own_checkpoint(STATE, "resnet18", 2, "imagenet", declared=True)
    holder, _, entry = place.rpartition(".")
    (own[holder] if holder else own)[entry] = VALUES[value]
    path = save(own, tmp_path)
    if (place, value) == ("backbone.heads", "None"):
        assert same_tensors(read_backbone(path).state, STATE)
        return
    refused(path)


@pytest.mark.parametrize("entry", ["mean", "std"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1", None, True])
def test_a_normalisation_is_of_finite_numbers(tmp_path: Path, entry: str, value: Any) -> None:
    own = own_checkpoint(STATE, "resnet18", 2, "imagenet", declared=True)
    own["normalisation"][entry] = [value] * 3
    assert "normalisation" in refused(save(own, tmp_path))


@pytest.mark.parametrize("value", [torch.ones(3), [1], None, "1", 1.5, float("nan")])
def test_a_run_does_not_resume_from_an_odd_version(tmp_path: Path, value: Any) -> None:
    path = save({"format": "siamtransfer", "version": value}, tmp_path)
    assert "its version is" in refused(path, read_state)


def test_a_run_does_not_resume_from_a_bomb(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pth", HEAD + b"]" * 20_000 + b"a" * 19_999 + b".")
    assert "levels deep" in refused(path, read_state)
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is a pipe" in refused(tmp_path / "pipe.pth", read_state)


# Names.

NAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "thousands of words": (
        lambda: {"model." * 3000 + key: t for key, t in STATE.items()},
        "18,012 characters",
    ),
    "lines": (lambda: {"a\nerror: fine\x1b[31m.weight": torch.ones(2)}, r"a\nerror: fine\x1b[31m"),
    "numbers": (lambda: dict(enumerate(STATE.values())), "0, 1, 2"),
    "bytes": (lambda: {key.encode(): t for key, t in STATE.items()}, "no known format"),
    "a huge number": (lambda: {10**400: 1, "model": {"a": 1}}, "no tensors"),
    "NaN": (lambda: {**STATE, float("nan"): torch.ones(1)}, "nan"),
}


@pytest.mark.parametrize("kind", [more(kind) if kind in ("numbers", "bytes") else kind for kind in NAMES])
def test_odd_names_are_shown_as_they_are(tmp_path: Path, kind: str) -> None:
    make, words = NAMES[kind]
    assert words in refused(save(make(), tmp_path))


def test_many_wrappers_are_taken_away(tmp_path: Path) -> None:
    path = save({"module.model.net.model.module." + key: tensor for key, tensor in STATE.items()}, tmp_path)
    assert same_tensors(read_backbone(path).state, STATE)


# Zip files.


def rewritten(
    path: Path, method: int, more_records: Callable[[zipfile.ZipFile], None] = lambda _: None
) -> Path:
    """The same file of PyTorch, packed anew."""
    with zipfile.ZipFile(path) as source:
        records = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in records.items():
            target.writestr(name, content)
        more_records(target)
    return path


def patched(path: Path, mark: bytes, offset: int, value: bytes) -> Path:
    """The file with a field of each of its headers that begin with `mark` replaced."""
    content, place = bytearray(path.read_bytes()), -1
    while (place := content.find(mark, place + 1)) >= 0:
        content[place + offset : place + offset + len(value)] = value
    path.write_bytes(content)
    return path


def write_names(path: Path, name: str) -> None:
    """A zip file with one file of this name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"")


CENTRAL = b"PK\x01\x02"
ZIPS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "encrypted": (lambda p: patched(p, CENTRAL, 8, b"\x01\x08"), "is an encrypted zip file"),
    "a method of its own": (lambda p: patched(p, CENTRAL, 10, b"\x63"), "packed by a method"),
    "two sizes": (lambda p: patched(p, CENTRAL, 24, b"\xfe\xff\xff\x7f"), "gives two sizes"),
    "all too large": (lambda p: patched(p, CENTRAL, 20, b"\xfe\xff\xff\x7f" * 2), "more bytes than the file"),
    "a wrong checksum": (lambda p: patched(p, CENTRAL, 16, b"\x01"), "damaged"),
    "elsewhere": (lambda p: patched(p, CENTRAL, 42, b"\xfe\xff\xff\x7f"), "damaged"),
    "a bomb": (
        lambda p: rewritten(p, zipfile.ZIP_DEFLATED, lambda z: z.writestr("archive/data/9", bytes(2**26))),
        "that would unpack to 67,",
    ),
    "packed by LZMA": (lambda p: patched(p, CENTRAL, 10, bytes([zipfile.ZIP_LZMA])), "packed by a method"),
    "one name twice": (
        lambda p: rewritten(p, zipfile.ZIP_STORED, lambda z: z.writestr("x/data.pkl", HEAD + b"N.")),
        "two records have one name",
    ),
    "a cut": (lambda p: p.write_bytes(p.read_bytes()[:-30]), "truncated or damaged"),
    "many pickles": (
        lambda p: rewritten(
            p, zipfile.ZIP_STORED, lambda z: [z.writestr(f"x/{i}.pkl", b"") for i in range(100)] and None
        ),
        "holds 101 pickles",
    ),
    "names with lines": (
        lambda p: write_names(p, "a\nerror: fine\x1b[31m.txt"),
        r"(a\nerror: fine\x1b[31m.txt)",
    ),
    "a large directory": (lambda p: patched(p, b"PK\x05\x06", 12, b"\xfe\xff\xff\x7f"), "directory of"),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_file_that_is_not_pytorchs(tmp_path: Path, kind: str) -> None:
    change, words = ZIPS[kind]
    path = save(STATE, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of the name that stands twice
        change(path)
    assert words in refused(path)


@pytest.mark.parametrize("beside", [{}, {"optimizer": {"a": torch.ones(40_000)}}])
def test_a_compressed_file_has_the_same_weights(tmp_path: Path, beside: dict[str, Any]) -> None:
    path = rewritten(save({"model": STATE, **beside}, tmp_path), zipfile.ZIP_DEFLATED)
    assert same_tensors(read_backbone(path).state, STATE), "never mapped as if it were not compressed"


# Files of safetensors.


def entry(dtype: Any = "F32", shape: Any = (2,), begin: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS: dict[str, tuple[Any, int | None]] = {
    "a length of 2^63": ({"a": entry()}, 2**63),
    "a length of 2^31": ({"a": entry()}, 2**31),
    "a length beyond the file": ({"a": entry()}, 2000),
    "no length": (b"{}", 0),
    "no JSON": (b"{abc}", None),
    "a list": (b"[1]", None),
    "overlapping": ({"a": entry(), "b": entry(begin=4, end=12)}, None),
    "a gap": ({"a": entry(), "b": entry(begin=16, end=24)}, None),
    "beyond the end": ({"a": entry(shape=(200,), end=800)}, None),
    "backwards": ({"a": entry(begin=8, end=0)}, None),
    "a negative place": ({"a": entry(begin=-8, end=0)}, None),
    "an unknown type": ({"a": entry("Q99")}, None),
    "a number as type": ({"a": entry(3)}, None),
    "one name twice": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":3}', None),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "a": entry()}, None),
    "metadata as a list": ({"__metadata__": [1], "a": entry()}, None),
    "deep": (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", None),
    "a long integer": (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', None),
    "an overflow": ({"a": entry(shape=(2**62, 4))}, None),
    "half a size": ({"a": entry(shape=(2.5,))}, None),
    "a record of nothing": ({"__metadata__": {"siamtransfer": "[1]"}, "a": entry()}, None),
    "a deep record": ({"__metadata__": {"siamtransfer": "[" * 20_000}, "a": entry()}, None),
    "quantised": ({"a": entry("F8_E4M3", (4, 2))}, None),
    "of four bits": ({"a": entry("F4", (16,))}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_an_odd_header_of_safetensors(tmp_path: Path, kind: str) -> None:
    header, length = HEADERS[kind]
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(encoded) if length is None else length) + encoded + bytes(8)
    (tmp_path / "x.safetensors").write_bytes(content)
    refused(tmp_path / "x.safetensors")


# What is no file, or an index of files.


def special(folder: Path, kind: str) -> Path:
    path = folder / "x.pth"
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a loop":
            path.symlink_to("x.pth")
        case "a long name":
            path = folder / ("x" * 300)
        case "a NUL":
            path = Path(f"{folder}/x\0.pth")
        case "a file as folder":
            (folder / "file").touch()
            path = folder / "file" / "x.pth"
        case "holes":
            with path.open("wb") as file:
                file.write(b"\x80\x02]")
                file.truncate(2**40)
        case "a folder":
            path.mkdir()
    return path


@pytest.mark.parametrize(
    "kind", ["a pipe", "a device", "a loop", "a long name", "a NUL", "a file as folder", "holes", "a folder"]
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = special(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        read_backbone(path)
    assert str(caught.value).isprintable()
    assert {"a pipe": "pipe", "a device": "device", "a NUL": "NUL", "holes": "holes"}.get(kind, "x") in str(
        caught.value
    )


@pytest.mark.parametrize(
    "content",
    [
        *(
            {"weight_map": value}
            for value in (["a"], None, {"a": 3}, {"a": ["w"]}, "abc", {"a": "../w.safetensors"})
        ),
        *({"weight_map": {"a": name}} for name in ("", "..", ".metadata", "a\0b", "\udcff", "list.pth")),
        {"weight_map": {"a": "model.safetensors.index.json"}},
        {"weight_map": {"a\nb": "w.safetensors"}},
        [],
        "[" * 20_000,
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_an_odd_index_of_files(tmp_path: Path, content: Any) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    save([1], tmp_path, "list.pth")
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_backbone(tmp_path)
    assert str(caught.value).isprintable() and str(tmp_path) in str(caught.value)


# Folders of torch.distributed.checkpoint.


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": {FIRST: torch.arange(4.0).view(2, 2)}}, checkpoint_id=str(folder), no_dist=True)
    return folder


def boxes(metadata: Any, *ranges: tuple[int, int], size: int = 4) -> None:
    """The tensor in parts of these rows, all of which lie in the one that is stored."""
    (name, stored), place = (
        next(iter(metadata.state_dict_metadata.items())),
        next(iter(metadata.storage_data.values())),
    )
    stored.size = torch.Size([size, 2])
    stored.chunks = [ChunkStorageMetadata(torch.Size([at, 0]), torch.Size([rows, 2])) for at, rows in ranges]
    for at, _ in ranges:
        metadata.storage_data[MetadataIndex(name, torch.Size([at, 0]))] = place


def each_place(metadata: Any, field: str, value: Any) -> None:
    for place in metadata.storage_data.values():
        setattr(place, field, value)


def stored(metadata: Any) -> Any:
    return next(iter(metadata.state_dict_metadata.values()))


METADATA: dict[str, Callable[[Any], Any]] = {
    "two parts in one place": lambda m: boxes(m, (0, 2), (0, 2)),
    "a part beyond the others": lambda m: boxes(m, (0, 2), (1, 2)),
    "parts of terabytes": lambda m: boxes(m, (0, 2**39), (2**39, 2**39), size=2**40),
    "a tensor of terabytes": lambda m: setattr(stored(m), "size", torch.Size([2**40, 2])),
    "a size of texts": lambda m: setattr(stored(m), "size", ["a"]),
    "no parts": lambda m: setattr(stored(m), "chunks", []),
    "no places": lambda m: setattr(m, "storage_data", None),
    "a list": lambda m: setattr(m, "state_dict_metadata", [1]),
    "keys as a number": lambda m: setattr(m, "planner_data", {f"model.{FIRST}": 3}),
    "no keys": lambda m: setattr(m, "planner_data", {f"model.{FIRST}": ()}),
    "keys that are lists": lambda m: setattr(m, "planner_data", {f"model.{FIRST}": ([],)}),
    **{
        f"{field} {value!r:.20}": lambda m, field=field, value=value: each_place(m, field, value)  # type: ignore[misc]
        for field, values in {
            "relative_path": ("../x", "", ".", "a\0b", 3, None, "absent", ".metadata"),
            "offset": (-5, 2**62, "x", None, float("nan"), 10**400),
            "length": (-1, 2**62, "x", None, 0, 2**33),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("kind", METADATA)
def test_odd_metadata_of_a_distributed_checkpoint(distributed: Path, tmp_path: Path, kind: str) -> None:
    metadata = pickle.loads((distributed / ".metadata").read_bytes())
    METADATA[kind](metadata)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    for part in distributed.glob("*.distcp"):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    with pytest.raises(UserError) as caught:
        read_distributed(tmp_path)
    assert str(caught.value).isprintable() and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", ["a pipe", "cut", "deep", "of calls"])
def test_metadata_that_is_none(distributed: Path, tmp_path: Path, kind: str) -> None:
    path, content = tmp_path / ".metadata", (distributed / ".metadata").read_bytes()
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "cut":
            path.write_bytes(content[:-20])
        case "deep":
            path.write_bytes(HEAD + b"]" * 20_000 + b"a" * 19_999 + b".")
        case "of calls":
            path.write_bytes(HEAD + b"cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(UserError) as caught:
        read_distributed(tmp_path)
    assert {"a pipe": "pipe", "deep": "levels deep", "of calls": "os.system"}.get(kind, "damaged") in str(
        caught.value
    )
