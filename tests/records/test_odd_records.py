"""Records with any value anywhere: read, ranked and compared, or refused by a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.boards import answers, write_knn
from support.fuzz import examples
from support.odd_texts import odd_values, places_of, with_value_at
from support.sentences import is_sentence

from siamtransfer.leaderboard import board, collect, rank
from siamtransfer.leaderboard.text import missing_lines, table_lines
from siamtransfer.programs.compare import main as compare
from siamtransfer.records import predictions
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("records")
    first, second = answers(0, 0.5, 0.7, samples=60)
    return write_knn(folder / "a.json", "a", first), write_knn(folder / "b.json", "b", second)


def signed(record: Any) -> Any:
    """The record with the digest of its content, where it can have one."""
    if not isinstance(record, dict) or not isinstance(record.get("provenance"), dict):
        return record
    if predictions.DIGEST in record["provenance"]:
        record["provenance"][predictions.DIGEST] = predictions._digest_of_record(record)
    return record


@examples(30)
@given(data=st.data(), value=odd_values())
def test_any_value_at_any_place_of_a_record(
    records: tuple[Path, Path], data: st.DataObject, value: Any
) -> None:
    first, second = records
    whole = json.loads(first.read_text())
    place = data.draw(st.sampled_from(places_of(whole)[1:]))
    first.write_text(json.dumps(signed(with_value_at(whole, place, value))))
    try:
        for use in (rank_both, lambda *paths: compare([*map(str, paths), "--resamples", "100"])):
            try:
                use(first, second)
            except UserError as error:
                assert is_sentence(error)
    finally:
        first.write_text(json.dumps(whole))


def rank_both(first: Path, second: Path) -> None:
    own = board(collect([first, second]), "all")
    lines = [*table_lines(own, rank(own, resamples=100)), *missing_lines(own), *own.remarks]
    assert all(isinstance(line, str) for line in lines)


@pytest.mark.parametrize("what", ["/dev/zero", "pipe"])
def test_a_file_without_end_is_no_record(what: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"is a (device|pipe), not a file"):
        collect([tmp_path / what])


def test_a_backbone_without_any_number_has_missing_cells(records: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (json.loads(path.read_text()) for path in records)
    first["metrics"] = {}
    for name, record in (("a", first), ("b", second)):
        record["provenance"].pop("predictions_digest")
        (tmp_path / f"{name}.json").write_text(json.dumps(signed(record)))
    own = board(collect([tmp_path]))
    assert [(missing.backbone.label, missing.command) for missing in own.missing()] == [("a", "")]
