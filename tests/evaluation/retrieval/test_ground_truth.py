"""Ground truth from files: the benchmark's pickles without code, JSON and CSV of one's own, broken ones."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.retrieval_layouts import write_revisited

from siamtransfer.evaluation.retrieval.config import RetrievalData
from siamtransfer.evaluation.retrieval.ground_truth import read_own, read_revisited
from siamtransfer.evaluation.retrieval.sets import open_retrieval_set
from siamtransfer.utils.errors import UserError

IMAGES = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "q/1.jpg", "q/2.jpg"]


def content() -> dict[str, Any]:
    """Of two queries and four images, as the benchmark's files hold it."""
    entries = [
        {"bbx": [1.5, 2, 30, 40], "easy": [1, 0], "hard": np.array([3]), "junk": []},
        {
            "bbx": np.array([0.0, 0, 9, 9]),
            "easy": np.array([], np.int64),
            "hard": [],
            "junk": np.array([2.0]),
        },
    ]
    return {"gnd": entries, "imlist": ["one", "two", "three", "four"], "qimlist": ["q1", "q2"]}


def written(folder: Path, value: Any, protocol: int = 4) -> Path:
    file = folder / "gnd_roxford5k.pkl"
    file.write_bytes(pickle.dumps(value, protocol))
    return file


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_of_lists_and_arrays_is_read(tmp_path: Path, protocol: int) -> None:
    truth = read_revisited(written(tmp_path, content(), protocol))
    assert truth.database == ["jpg/one.jpg", "jpg/two.jpg", "jpg/three.jpg", "jpg/four.jpg"]
    first, second = truth.queries
    assert (first.image, first.box) == ("jpg/q1.jpg", (1.5, 2, 30, 40))
    assert first.kinds["easy"].tolist() == [0, 1] and first.of_kinds(("easy", "hard")).tolist() == [0, 1, 3]
    assert second.kinds["junk"].tolist() == [2] and not len(second.of_kinds(("easy", "hard")))
    assert truth.settings["medium"] == (("easy", "hard"), ("junk",))


def test_json_of_the_same_content_has_the_same_fingerprint(tmp_path: Path) -> None:
    plain = json.dumps(content(), default=lambda array: array.tolist())
    (tmp_path / "gnd_roxford5k.json").write_text(plain)
    truth = read_revisited(tmp_path / "gnd_roxford5k.json")
    assert truth.fingerprint == read_revisited(written(tmp_path, content())).fingerprint
    other = content()
    other["gnd"][0]["junk"] = [2]
    assert truth.fingerprint != read_revisited(written(tmp_path, other)).fingerprint


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    file = written(tmp_path, content() | {"cfg": Evil(tmp_path / "ran")})
    with pytest.raises(
        UserError, match=r"gnd_roxford5k\.pkl cannot be read: \w+\.system is no part of an array"
    ):
        read_revisited(file)
    assert not (tmp_path / "ran").exists()


def changed(**changes: Any) -> dict[str, Any]:
    value = content()
    value["gnd"][0] |= changes
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1], "needs the entries gnd, imlist and qimlist"),
        (content() | {"qimlist": ["q1"]}, "1 queries in qimlist and 2 entries in gnd"),
        (content() | {"gnd": [], "qimlist": []}, "one at least"),
        (changed(easy=[4]), r"query 0 \(q1\), easy: image 4 is not among the 4 of imlist"),
        (changed(easy=[0.5]), "the numbers of images are needed"),
        (changed(easy=[[0], [1, 2]]), "the numbers of images are needed"),
        (changed(bbx=[1, 2, 3]), "its box is"),
        (changed(bbx=[5, 5, 5, 9]), "is empty; right is above left"),
        (content() | {"gnd": [{"easy": []}] * 2}, "needs the entries bbx, easy, hard and junk"),
    ],
)
def test_other_content_is_named(tmp_path: Path, value: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        read_revisited(written(tmp_path, value))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = written(tmp_path, content())
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"gnd_roxford5k\.pkl is damaged: it cannot be read as a pickle"):
        read_revisited(file)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json is no JSON document"):
        read_revisited(tmp_path / "a.json")


def test_own_json_searches_all_that_is_no_query(tmp_path: Path) -> None:
    queries = [
        {"image": "q/1.jpg", "positives": ["a/1.jpg", "a/2.jpg"], "junk": ["b/1.jpg"], "box": [0, 0, 5, 5]},
        {"image": "q/2.jpg"},
    ]
    (tmp_path / "own.json").write_text(json.dumps({"queries": queries}))
    truth = read_own(tmp_path / "own.json", IMAGES)
    assert truth.database == IMAGES[:4]
    assert list(truth.settings) == ["all"]
    assert truth.queries[0].of_kinds(truth.settings["all"][0]).tolist() == [0, 1]
    assert (truth.queries[0].kinds["junk"].tolist(), truth.queries[0].box) == ([2], (0, 0, 5, 5))


def test_own_csv_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "query,image,kind\nq/1.jpg,a/1.jpg,easy\nq/1.jpg,b/2.jpg,hard\nq/1.jpg,b/1.jpg,junk\nq/2.jpg,,\n"
    )
    queries = [{"image": "q/1.jpg", "easy": ["a/1.jpg"], "hard": ["b/2.jpg"], "junk": ["b/1.jpg"]}]
    (tmp_path / "own.json").write_text(json.dumps({"queries": [*queries, {"image": "q/2.jpg"}]}))
    truths = [read_own(tmp_path / name, IMAGES) for name in ("own.csv", "own.json")]
    assert truths[0].fingerprint == truths[1].fingerprint
    assert list(truths[0].settings) == ["easy", "medium", "hard"]


def test_a_query_in_the_database_is_junk_for_itself(tmp_path: Path) -> None:
    queries = [{"image": "a/1.jpg", "positives": ["a/2.jpg"]}, {"image": "a/2.jpg", "positives": ["a/1.jpg"]}]
    (tmp_path / "own.json").write_text(json.dumps({"queries": queries, "database": IMAGES[:4]}))
    truth = read_own(tmp_path / "own.json", IMAGES)
    assert [query.kinds["junk"].tolist() for query in truth.queries] == [[0], [1]]


@pytest.mark.parametrize(
    ("queries", "why"),
    [
        ([], "needs an entry queries"),
        ([{"positives": []}], "query 0 names no image"),
        ([{"image": "q/3.jpg"}], r"names 1 images that are not below --data\.root: q/3\.jpg"),
        ([{"image": "q/1.jpg", "positive": []}], "there is no key 'positive'"),
        ([{"image": "q/1.jpg", "positives": "a/1.jpg"}], "a list of paths"),
        ([{"image": "q/1.jpg", "positives": ["c/1.jpg"]}], r"c/1\.jpg is not below --data\.root"),
        (
            [{"image": "q/1.jpg", "positives": ["q/2.jpg"]}, {"image": "q/2.jpg"}],
            r"q/2\.jpg is a query and not in the database: list the database",
        ),
        ([{"image": "q/1.jpg", "easy": ["a/1.jpg"], "junk": ["a/1.jpg"]}], "is of two kinds"),
        (
            [{"image": "q/1.jpg", "easy": ["a/1.jpg"]}, {"image": "q/2.jpg", "positives": ["a/1.jpg"]}],
            "both positives and easy or hard",
        ),
        ([{"image": name} for name in IMAGES], "the database is empty"),
    ],
)
def test_mistakes_in_own_json_are_named(tmp_path: Path, queries: Any, why: str) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"queries": queries}))
    with pytest.raises(UserError, match=why):
        read_own(tmp_path / "own.json", IMAGES)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("query;image;kind\n", "needs the columns query, image and kind"),
        ("query,image,kind\n", "no queries below its first line"),
        ("query,image,kind\nq/1.jpg,a/1.jpg,good\n", "line 2: kind is positive, easy, hard or junk"),
    ],
)
def test_mistakes_in_own_csv_are_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(UserError, match=why):
        read_own(tmp_path / "own.csv", IMAGES)


def test_broken_layouts_are_named(tmp_path: Path) -> None:
    write_revisited(tmp_path / "roxford5k")
    opened = open_retrieval_set(RetrievalData("roxford5k", str(tmp_path / "roxford5k")))
    assert (len(opened.queries), len(opened.database)) == (5, 24)
    assert opened.remarks == ["it has 5 queries and 24 images instead of 70 and 4993"]
    with pytest.raises(
        UserError, match=r"there is no gnd_roxford5k\.pkl .*did you mean --data\.root .*roxford5k"
    ):
        open_retrieval_set(RetrievalData("roxford5k", str(tmp_path)))
    with pytest.raises(UserError, match="there is no set 'oxford'"):
        open_retrieval_set(RetrievalData("oxford", str(tmp_path)))
    (tmp_path / "roxford5k/jpg/place_1_a.jpg").unlink()
    with pytest.raises(
        UserError, match=r"1 of the 24 images that the database of roxford5k lists are missing"
    ):
        open_retrieval_set(RetrievalData("roxford5k", str(tmp_path / "roxford5k")))
