"""The suites of configs/experiments are sound, and a mistake in one is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import paths
from support.experiment_records import recipe, small_suite, write_small_suite

from siamtransfer.cli import Command
from siamtransfer.config import PretrainConfig
from siamtransfer.experiments.suites import read_suite, read_suites
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

RECIPES = paths.ROOT / "configs" / "experiments"
SUITES = read_suites(RECIPES)
PARSER = Command("test", PretrainConfig, lambda config: None, "")


@pytest.mark.parametrize("name", SUITES)
def test_every_experiment_of_a_suite_is_sound_and_changes_something(name: str) -> None:
    seen: dict[str, str] = {}
    for experiment in SUITES[name].experiments:
        words = [word for file in experiment.files for word in ("--config", str(file))]
        config = PARSER.parse(words)
        config.check()
        config.optim.check(world_size=1, images=config.data.count or 0)
        assert experiment.question.endswith(("?", ")")), experiment.id
        assert experiment.published and experiment.source, experiment.id
        text = experiment.files[-1].read_text()
        assert f"# Command:   python scripts/experiments.py {experiment.id}" in text.splitlines()
        assert seen.setdefault(experiment.digest, experiment.name) == experiment.name, experiment.id
        own = flatten(config.as_dict())
        assert {own["run.seed"], own["hardware.threads"], own["hardware.device"]} == {0, 1, "cpu"}
    assert len(seen) == len(SUITES[name].experiments)


def test_settings_are_the_base_the_budget_and_the_recipe_in_this_order(tmp_path: Path) -> None:
    folder = write_small_suite(tmp_path)
    before = read_suite(folder)["slow"]
    assert before.settings["optim.lr"] == 0.01
    assert before.settings["optim.epochs"] == 1
    (folder / "budget.yaml").write_text("optim: {epochs: 3, lr: 7}\n")
    after = read_suite(folder)["slow"]
    assert (after.settings["optim.epochs"], after.settings["optim.lr"]) == (3, 0.01)
    assert [file.name for file in after.files] == ["base.yaml", "budget.yaml", "slow.yaml"]
    assert before.digest != after.digest
    assert read_suite(folder)["slow"].digest == after.digest


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("suite.yaml", "title: A\nquestion: B?\nrows: []\n", "unknown key rows"),
        ("suite.yaml", "title: A\n", "lacks a line `question: …`"),
        ("suite.yaml", "title: A\nquestion: B?\nbaseline: medium\n", "medium is none of its experiments"),
        ("suite.yaml", "title: A\nquestion: B?\norder: [slow]\n", "differ in fast"),
        ("suite.yaml", "title: A\nquestion: B?\norder: [slow, fast, slow]\n", "a name that stands twice"),
        ("slow.yaml", "# Question: A?\n# Source: ours\nsimsiam: {dim: 8}\n", "lacks a line `# Published: …`"),
        ("slow.yaml", recipe("A?", "", "# Against:  medium"), "medium is none of its experiments"),
    ],
)
def test_a_mistake_in_a_suite_is_a_sentence(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    folder = write_small_suite(tmp_path)
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_suite(folder)
    assert file in str(caught.value) or "suite.yaml" in str(caught.value)


def test_experiments_are_found_by_name(tmp_path: Path) -> None:
    suite = small_suite(tmp_path)
    assert [experiment.id for experiment in suite.experiments] == ["rates/fast", "rates/slow"]
    assert suite["fast"].question == "With a high rate?"
    assert (suite.seeds, suite.baseline) == (2, "slow")
