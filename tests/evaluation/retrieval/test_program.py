"""`siamtransfer retrieval` on small sets: numbers, baselines, options, ranks, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.retrieval_layouts import scenes, write_revisited
from support.small_runs import on_ranks

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.retrieval.config import RetrievalConfig, RetrievalData
from siamtransfer.evaluation.retrieval.evaluate import evaluate
from siamtransfer.programs.retrieval import main
from siamtransfer.records.comparison import compare
from siamtransfer.utils.errors import UserError

NETWORK = "random:resnet18:width=8:stem=small"
CPU = ["--device=cpu", "--precision=float32", "--size=64"]


@pytest.fixture(scope="module")
def oxford(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set in the benchmark's layout, with distractors and images for a whitening beside it."""
    root = tmp_path_factory.mktemp("revisited")
    write_revisited(root / "roxford5k")
    for folder in ("more", "others"):
        (root / folder).mkdir()
    pictures = scenes(40, 64)
    for number, picture in enumerate(pictures[10:40]):
        picture.save(root / ("more" if number < 10 else "others") / f"{number}.png")
    return root


def run(oxford: Path, *words: str, source: str = NETWORK) -> dict[str, Any]:
    data = ["--data.name=roxford5k", f"--data.root={oxford / 'roxford5k'}"]
    record = main([source, *data, *CPU, *words])
    assert record is not None
    return record


@pytest.fixture(scope="module")
def plain(oxford: Path) -> dict[str, Any]:
    return run(oxford, f"--record={oxford / 'plain.json'}")


def test_the_record_has_numbers_protocol_and_queries(oxford: Path, plain: dict[str, Any]) -> None:
    metrics, protocol = plain["metrics"], plain["protocol"]
    for name in ("easy", "medium", "hard"):
        assert 0 < metrics[f"retrieval/{name}/mAP"] <= 100
        assert {f"retrieval/{name}/mP@{k}" for k in (1, 5, 10)} <= metrics.keys()
        assert metrics[f"retrieval/{name}/mAP/ci95_low"] <= metrics[f"retrieval/{name}/mAP"]
    assert protocol["queries_without_positives"] == {"easy": 0, "medium": 0, "hard": 1}
    assert (protocol["queries"], protocol["database"], protocol["distractors"]) == (5, 24, 0)
    assert protocol["scales"] == [1.0, 2**-0.5, 0.5] and protocol["pooling"] == "output"
    assert protocol["query_crop"] == "box" and protocol["whitening"] is None
    assert protocol["input"]["size"] == 64 and protocol["input"]["resize"] == "long"
    with np.load(oxford / "plain.npz") as kept:
        assert np.isnan(kept["hard/values"]).tolist() == [False] * 4 + [True]
        assert 100 * np.nanmean(kept["hard/values"]) == pytest.approx(metrics["retrieval/hard/mAP"])


def test_two_backbones_are_compared_by_queries(oxford: Path, plain: dict[str, Any]) -> None:
    other = run(oxford, f"--record={oxford / 'pixels.json'}", source="pixels")
    found = compare(oxford / "plain.json", oxford / "pixels.json", setting="hard").differences["mean"]
    assert found.first == pytest.approx(plain["metrics"]["retrieval/hard/mAP"])
    assert found.second == pytest.approx(other["metrics"]["retrieval/hard/mAP"])
    assert found.low <= found.value <= found.high
    run(oxford, "--query-crop=none", f"--record={oxford / 'whole.json'}")
    with pytest.raises(UserError, match=r"protocol\.query_crop is 'box' in the first and 'none'"):
        compare(oxford / "plain.json", oxford / "whole.json", setting="hard")


def test_the_box_decides_what_is_searched_for(oxford: Path) -> None:
    """The rest of a query's image is red, which no image of the database is."""
    box_alone = run(oxford, "--query-crop=box-alone", "--scales=1")
    whole = run(oxford, "--query-crop=none", "--scales=1")
    assert box_alone["metrics"]["retrieval/easy/mAP"] == 100  # the scene and its JPEG come before all others
    assert whole["metrics"]["retrieval/easy/mAP"] < 100


def test_distractors_whitening_and_poolings(oxford: Path, plain: dict[str, Any]) -> None:
    more = ["--data.distractors", str(oxford / "more"), "--whitening", str(oxford / "others")]
    found = run(oxford, *more, "--whitening-dim=8", "--pooling=output+gem", "--layers=layer3", "--workers=1")
    protocol = found["protocol"]
    assert (protocol["distractors"], protocol["gem_exponent"]) == (10, 3.0)
    assert protocol["whitening"] == {"rule": "pca", "images": 20, "directions": 8}
    assert found["provenance"]["layers"] == "layer3"
    assert found["provenance"]["distractors_fingerprint"] != found["provenance"]["whitening_fingerprint"]
    only_more = run(oxford, *more[:2])
    assert only_more["metrics"]["retrieval/hard/mAP"] <= plain["metrics"]["retrieval/hard/mAP"]
    with pytest.raises(UserError, match="a whitening of 64 directions needs more images than 20"):
        run(oxford, *more)


def test_unreadable_distractors_end_the_program_or_are_counted(oxford: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    words = ["--data.distractors", str(tmp_path), "--scales=1"]
    with pytest.raises(UserError, match=r"bad\.jpg"):
        run(oxford, *words, source="pixels")
    protocol = run(oxford, *words, "--skip-unreadable", source="pixels")["protocol"]
    assert (protocol["distractors"], protocol["unreadable_distractors"]) == (1, 1)


def test_a_set_of_ones_own(tmp_path: Path) -> None:
    """Every image is a query in turn; of each scene there are two."""
    for number, picture in enumerate(scenes(3, 48)):
        picture.save(tmp_path / f"{number}a.png")
        picture.save(tmp_path / f"{number}b.jpg", quality=60)
    names = [f"{number}{ending}" for number in range(3) for ending in ("a.png", "b.jpg")]
    queries = [{"image": name, "positives": [names[index ^ 1]]} for index, name in enumerate(names)]
    (tmp_path / "own.json").write_text(json.dumps({"queries": queries, "database": names}))
    words = ["--data.name=folder", f"--data.root={tmp_path}", f"--data.queries={tmp_path / 'own.json'}"]
    record = main(["pixels", *words, *CPU])
    assert record is not None
    assert record["metrics"]["retrieval/all/mAP"] == 100
    assert record["protocol"]["query_crop"] == "the set has no boxes"
    (tmp_path / "none.json").write_text(json.dumps({"queries": [{"image": names[0]}]}))
    with pytest.raises(UserError, match="no query of folder has a positive image"):
        main(["pixels", *words[:2], f"--data.queries={tmp_path / 'none.json'}", *CPU])


def on_a_rank(runtime: Runtime, root: str) -> dict[str, Any] | None:
    config = RetrievalConfig(
        checkpoint=NETWORK,
        data=RetrievalData("roxford5k", f"{root}/roxford5k", distractors=f"{root}/more"),
        whitening=f"{root}/others",
        whitening_dim=8,
        size=64,
    )
    found = evaluate(config, runtime)
    return found and {**found.metrics, **found.protocol}


def test_two_ranks_find_what_one_process_finds(oxford: Path) -> None:
    more = ["--data.distractors", str(oxford / "more"), "--whitening", str(oxford / "others")]
    alone = run(oxford, *more, "--whitening-dim=8")
    main_rank, other = on_ranks(on_a_rank, str(oxford))
    assert other is None
    for name, value in (alone["metrics"] | alone["protocol"]).items():
        assert main_rank[name] == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--data.root=x"], r"name the set with --data\.name"),
        (["--data.name=folder", "--data.root=x"], r"needs --data\.queries FILE"),
        (["--data.name=roxford5k", "--data.root=x", "--data.queries=y"], "has its own queries"),
        (["--data.name=roxford5k", "--data.root=/no/such"], "the folder /no/such does not exist"),
        (["--data.name=roxford5k", "--data.root=x", "--scales", "0"], "--scales must be above 0"),
        (
            ["--data.name=roxford5k", "--data.root=x", "--pooling=max"],
            "must be one or several of output, mean",
        ),
        (["--data.name=roxford5k", "--data.root=x", "--pooling=gem+gem"], "must be one or several of"),
        (["--data.name=roxford5k", "--data.root=x", "--whitening-dim=4"], "--whitening-dim belongs to"),
        (["--data.name=roxford5k", "--data.root=x", "--gem-exponent=0"], "--gem-exponent is 0"),
    ],
)
def test_mistakes_are_refused_before_any_work(words: list[str], why: str) -> None:
    with pytest.raises(UserError, match=why):
        main(["pixels", *words])
