"""scripts/experiments.py: every recipe is sound and says what was published; the table and the picture show
what was measured, and nothing else."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import experiments
import matplotlib.image
import pytest
from support import paths
from support.stages import stage_here

from siamtransfer.cli import Command
from siamtransfer.config import PretrainConfig
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

ROOT = paths.ROOT
FILES = sorted((ROOT / "configs" / "experiments").glob("*-*.yaml"))
BASE = ROOT / "configs" / "experiments" / "base.yaml"


@functools.cache
def read(*files: Path) -> PretrainConfig:
    words = [word for file in files for word in ("--config", str(file))]
    return Command("test", PretrainConfig, lambda config: None, "").parse(words)


def score(folder: Path, top1: float = 20.5) -> None:
    """What a scored run leaves behind."""
    folder.mkdir(parents=True)
    metrics = {"top1": top1, "ci95_low": top1 - 1.5, "ci95_high": top1 + 1.5}
    record = {"metrics": {f"knn/k=20/T=0.07/{name}": value for name, value in metrics.items()}}
    (folder / "knn.json").write_text(json.dumps(record))
    rows: list[dict[str, float]] = [
        {"step": 0, **{f"baseline/{name}/knn/k=20/T=0.07/top1": 13.25 for name in ("pixels", "untrained")}}
    ]
    rows += [{"step": step, "loss": -step / 10} for step in range(1, 5)]
    rows += [{"step": 4, "health/std": 0.876, "health/effective_rank": 12.34}]
    rows += [{"step": 4, "knn/k=20/T=0.07/top1": top1}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_experiment_is_sound_and_changes_something(file: Path) -> None:
    config = read(BASE, file)
    config.check()
    config.optim.check(world_size=1, images=config.data.count or 0)
    base, own = flatten(read(BASE).as_dict()), flatten(config.as_dict())
    changed = {key for key in own if own[key] != base.get(key) and not key.startswith(("log.", "monitor."))}
    assert changed or file.stem == experiments.WITH
    assert not {key for key in changed if key.startswith(("data.", "run.", "hardware."))}
    assert file.name.startswith(tuple(f"{part}-" for part in experiments.PARTS))
    assert f"# Command:   python scripts/experiments.py {file.stem}" in file.read_text().splitlines()
    found = experiments.read_experiment(file)
    assert found.question.endswith((")", "?"))
    assert (found.published == "none") <= (found.source == "ours")


def test_the_table_says_what_was_published_measured_and_not_measured(tmp_path: Path) -> None:
    score(tmp_path / "runs" / "paper-predictor-none", 12.3)
    score(tmp_path / "runs" / experiments.WITH, 21.0)
    out = experiments.main(["none", "--runs", str(tmp_path / "runs"), "--table", str(tmp_path / "table.md")])
    assert out["metrics"] == {
        f"{name}/knn/k=20/T=0.07/top1": value
        for name, value in (("paper-predictor-none", 12.3), (experiments.WITH, 21.0))
    }
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "`" in line
    }
    assert rows.keys() == {file.stem for file in FILES}
    assert rows.pop("paper-predictor-none") == [
        "And without the predictor?", "0.1 (arXiv 2011.10566, table 1a)",
        "12.3 (10.8 to 13.8)", "0.88", "12.3",
    ]  # fmt: skip
    assert rows.pop(experiments.WITH)[2] == "21.0 (19.5 to 22.5)"
    assert {tuple(row[2:]) for row in rows.values()} == {("not measured", "", "")}
    assert lines[0].endswith("one seed; raw pixels 13.2, the untrained backbone 13.2.")
    assert lines.index("**The paper's questions**") < lines.index("**Beyond the paper**")


def test_the_figure_needs_both_runs(tmp_path: Path) -> None:
    asked = ["none", "--runs", str(tmp_path / "runs"), "--figure", str(tmp_path / "figure.png")]
    score(tmp_path / "runs" / experiments.WITH)
    with pytest.raises(UserError, match="stop-gradient-none holds no run: measure paper-stop-gradient and"):
        experiments.main(asked)
    assert not (tmp_path / "figure.png").exists()
    score(tmp_path / "runs" / experiments.WITHOUT, 10.0)
    experiments.main(asked)
    picture = matplotlib.image.imread(tmp_path / "figure.png")
    assert picture.shape[1] > 3 * picture.shape[0]
    assert picture[..., :3].std() > 0.05


def test_unknown_names_and_headers_without_a_word_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"paper-nothing is no experiment; there are ours-.*paper-"):
        experiments.main(["paper-nothing"])
    (tmp_path / "ours-x.yaml").write_text("# Question:  And?\n# Source:    ours\nsimsiam: {dim: 8}\n")
    with pytest.raises(UserError, match=r"ours-x\.yaml lacks a line `# Published: …`"):
        experiments.read_experiment(tmp_path / "ours-x.yaml")


@pytest.mark.slow
def test_an_experiment_is_run_scored_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "stage", stage_here)
    small = ["data.count=40", "optim.epochs=1", "optim.batch_size=20", "backbone.width=8", "log.every=1"]
    options = [f"--option={option}" for option in [*small, "monitor.health_every=1", "simsiam.dim=32"]]
    name, argv = "paper-alternation-10", ["paper-alternation-10", "--runs", str(tmp_path), *options]
    first = experiments.main(argv)["metrics"]
    assert 0 < first[f"{name}/knn/k=20/T=0.07/top1"] < 40
    checkpoint = (tmp_path / name / "checkpoint.pth").resolve()
    assert experiments.main(argv)["metrics"] == first
    assert (tmp_path / name / "checkpoint.pth").resolve() == checkpoint
    assert experiments.numbers(tmp_path / name)["rank"] >= 1
