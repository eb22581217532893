"""scripts/collapse_limits.py reads runs and records, and says what limits they give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import collapse_limits
import pytest
from support.experiment_records import record_of

from siamtransfer.experiments.records import Records
from siamtransfer.experiments.suites import read_suites
from siamtransfer.utils.errors import UserError


def write_run(
    folder: Path,
    std: Sequence[float],
    share: Sequence[float],
    *,
    knn: float | None = None,
    method: str = "byol",
) -> Path:
    folder.mkdir(parents=True)
    rows: list[dict[str, float]] = [
        {"step": 50 * (number + 1), "health/std": one, "health/rank_share": other}
        for number, (one, other) in enumerate(zip(std, share, strict=True))
    ]
    if knn is not None:
        rows.insert(0, {"step": 0, "baseline/untrained/knn/k=20/T=0.07/top1": 12.0})
        rows.append({"step": rows[-1]["step"], "knn/k=20/T=0.07/top1": knn})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps({"method": {"name": method}}))
    return folder


def test_the_command_reads_journals_and_labels_by_knn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = [0.9] * 5, [0.9, 0.2, 0.2, 0.2, 0.2]
    folders = [
        write_run(tmp_path / "learns", good, good, knn=30.0),
        write_run(tmp_path / "constant", bad, bad, knn=10.0),
        write_run(tmp_path / "unclear", bad, bad, knn=17.0),
    ]
    caplog.set_level("INFO")
    picture = tmp_path / "limits.png"
    record = collapse_limits.main(["--runs", *map(str, folders), "--picture", str(picture)])
    assert record["metrics"] == pytest.approx({"std": 0.55, "rank share": 0.55})
    assert record["provenance"] == {"runs": 2}
    assert "1 runs left out" in caplog.text
    assert "| byol | 0.4, 0.42 | 1 | 0.90 | 0.90 | 0 | 1 | 1 |" in caplog.text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_records_of_experiments_are_read_with_their_methods(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suite = read_suites(collapse_limits.RECIPES)["collapse"]
    untrained = {"baseline/untrained/knn/k=20/T=0.07/top1": 12.0}
    cells = [
        ("dino", 0, 30.0, 0.8),
        ("dino", 1, 11.0, 0.2),
        ("vicreg", 0, 30.0, 0.3),
        ("vicreg", 1, 17.0, 0.1),
    ]
    made = [record_of(suite[name], seed, top1, **untrained) for name, seed, top1, _ in cells]
    for record, (*_, value) in zip(made, cells, strict=True):
        for key in collapse_limits.MEASURES.values():
            record.curves[key] = [[10, 0.0], *([50 + step, value] for step in range(4))]
    Records(tmp_path, suite).add(made)
    words = ["--records", str(tmp_path / "collapse.jsonl")]
    caplog.set_level("INFO")
    assert collapse_limits.main(words)["metrics"] == pytest.approx({"std": 0.25, "rank share": 0.25})
    assert "1 runs left out" in caplog.text
    record = collapse_limits.main([*words, "--methods", "dino"])
    assert record["metrics"] == pytest.approx({"std": 0.5, "rank share": 0.5})
    assert record["provenance"] == {"runs": 2}
    other = tmp_path / "other.jsonl"
    with pytest.raises(UserError, match=r"there is no file .*other\.jsonl"):
        collapse_limits.main(["--records", str(other)])
    other.touch()
    with pytest.raises(UserError, match=r"other\.jsonl holds no records of a suite; there are base-rate, "):
        collapse_limits.main(["--records", str(other)])


def test_labels_may_be_given(tmp_path: Path) -> None:
    healthy = write_run(tmp_path / "healthy", [0.7] * 4, [0.6] * 4)
    collapsed = write_run(tmp_path / "collapsed", [0.1] * 4, [0.9] * 4)
    limits = collapse_limits.main(["--healthy", str(healthy), "--collapsed", str(collapsed)])["metrics"]
    assert limits["std"] == pytest.approx(0.4)
    assert limits["rank share"] == pytest.approx(0.6), "no collapsed run is below: the lowest healthy one"


def test_runs_that_cannot_be_used(tmp_path: Path) -> None:
    short = write_run(tmp_path / "short", [0.5], [0.5])
    whole = write_run(tmp_path / "whole", [0.5] * 3, [0.5] * 3)
    with pytest.raises(UserError, match="1 checks are fewer than the 3 that an alarm needs; train longer"):
        collapse_limits.main(["--healthy", str(short)])
    with pytest.raises(UserError, match="none of 1 runs is collapsed: a limit needs runs of both kinds"):
        collapse_limits.main(["--healthy", str(whole)])
    with pytest.raises(UserError, match="--nothing 3 is above --learnt 2: a run would be both"):
        collapse_limits.main(["--healthy", str(whole), "--nothing", "3", "--learnt", "2"])
    with pytest.raises(UserError, match="has no rows: is"):
        collapse_limits.main(["--healthy", str(tmp_path / "none")])
