"""`siamtransfer copies`: the layout of Copydays, average precision of copies, the program on a small set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.retrieval_layouts import scenes, write_copydays

from siamtransfer.evaluation.copies.config import CopyData
from siamtransfer.evaluation.copies.copydays import open_copydays
from siamtransfer.evaluation.copies.evaluate import average_precision
from siamtransfer.programs.copies import main
from siamtransfer.records.comparison import compare
from siamtransfer.utils.errors import UserError

CPU = ["--device=cpu", "--precision=float32", "--size=64"]


@pytest.fixture(scope="module")
def copydays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copydays")
    write_copydays(root)
    (root / "distractors").mkdir()
    for number, picture in enumerate(scenes(14, 96)[5:]):
        picture.save(root / "distractors" / f"{number}.png")
    return root


def run(root: Path, source: str, *words: str) -> dict[str, Any]:
    record = main([source, f"--data.root={root}", *CPU, *words])
    assert record is not None
    return record


def test_average_precision_of_a_copy_by_hand() -> None:
    assert average_precision(np.array([0]), 20) == 1
    assert average_precision(np.array([1]), 20) == 0.25  # from 0 to 1/2
    assert average_precision(np.array([19]), 20) == pytest.approx(1 / 40)
    assert average_precision(np.array([20]), 20) == 0
    assert average_precision(np.array([20]), None) == pytest.approx(1 / 42)
    assert average_precision(np.array([30, 0]), 20) == 0.5


def test_copies_are_grouped_by_the_first_four_digits(copydays: Path) -> None:
    found = open_copydays(CopyData(str(copydays), ["all"]))
    assert list(found.subsets) == ["strong", "jpegqual/3", "jpegqual/10", "crops/50"]
    assert [len(rows) for rows in found.subsets.values()] == [6, 5, 5, 5]
    assert [rows.tolist() for rows in found.answers[:7]] == [[0], [0], [1], [2], [3], [4], [0]]
    assert found.remarks[:2] == ["original has 5 images instead of 157", "strong has 6 images instead of 229"]
    one = open_copydays(CopyData(str(copydays), ["jpegqual/10", "strong/"]))
    assert list(one.subsets) == ["jpegqual/10", "strong"]
    assert one.queries.describe(0).endswith("jpegqual/10/200000.jpg")


def test_the_program_scores_every_subset(copydays: Path) -> None:
    words = ["--data.subsets", "strong", "jpegqual", "--data.distractors", str(copydays / "distractors")]
    network = run(copydays, "random:timm:test_vit", *words, f"--record={copydays / 'a.json'}")
    metrics, protocol = network["metrics"], network["protocol"]
    assert metrics["copies/jpegqual/10/mAP"] == 100
    assert 0 < metrics["copies/strong/mAP"] <= 100 and "copies/strong/mAP/ci95_low" in metrics
    assert protocol["queries_of"] == {"strong": 6, "jpegqual/3": 5, "jpegqual/10": 5}
    assert (protocol["pooling"], protocol["gem_exponent"], protocol["nearest"]) == ("output+gem", 4.0, 20)
    assert (protocol["input"]["resize"], protocol["scales"], protocol["distractors"]) == ("square", [1.0], 9)
    pixels = run(copydays, "pixels", *words, f"--record={copydays / 'b.json'}")
    found = compare(copydays / "a.json", copydays / "b.json", setting="strong").differences["mean"]
    assert found.second == pytest.approx(pixels["metrics"]["copies/strong/mAP"])
    assert pixels["metrics"]["copies/strong/mAP"] <= 100


def test_a_rank_beyond_the_nearest_counts_as_not_found(copydays: Path) -> None:
    strict = run(copydays, "pixels", "--nearest=1")["metrics"]["copies/strong/mAP"]
    whole = run(copydays, "pixels")["metrics"]["copies/strong/mAP"]
    assert strict <= whole
    assert strict == pytest.approx(100 * round(strict * 6 / 100) / 6)  # of six copies, found or not


def test_broken_layouts_are_named(copydays: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder original in .*put the originals of Copydays"):
        open_copydays(CopyData(str(tmp_path)))
    write_copydays(tmp_path / "set")
    data = CopyData(str(tmp_path / "set"))
    with pytest.raises(UserError, match="there is no folder weak in"):
        open_copydays(CopyData(data.root, ["weak"]))
    with pytest.raises(UserError, match=r"there is no folder \.\./set/strong in"):
        open_copydays(CopyData(data.root, ["../set/strong"]))
    (tmp_path / "set/original/200400.jpg").unlink()
    with pytest.raises(UserError, match=r"1 copies in .*strong have no original .*: 200401\.jpg"):
        open_copydays(data)
    (tmp_path / "set/strong/photo.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"strong/photo\.jpg is not named as in Copydays"):
        open_copydays(data)
    for path in (tmp_path / "set/strong").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="there are no images in"):
        open_copydays(data)
    (tmp_path / "bare/original").mkdir(parents=True)
    (tmp_path / "set/original/200000.jpg").rename(tmp_path / "bare/original/200000.jpg")
    with pytest.raises(UserError, match="there are no copies in"):
        open_copydays(CopyData(str(tmp_path / "bare"), ["all"]))
    with pytest.raises(UserError, match="there are no folders such as crops/50"):
        open_copydays(CopyData(str(tmp_path / "bare"), ["crops"]))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], r"give the folder of Copydays with --data\.root"),
        (["--data.root=x", "--nearest=0"], "--nearest is 0"),
        (["--data.root=x", "--size=0"], "--size is 0"),
        (["--data.root=/no/such"], "the folder /no/such does not exist"),
    ],
)
def test_mistakes_are_refused(words: list[str], why: str) -> None:
    with pytest.raises(UserError, match=why):
        main(["pixels", *words])
