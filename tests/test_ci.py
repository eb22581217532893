"""Continuous integration runs what there is: a workflow that calls .ci/run, which calls make."""

from __future__ import annotations

import os
import re

import yaml
from support.paths import ROOT


def test_the_workflow_runs_targets_that_there_are() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    called = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"test", "check", "docs"} <= set(called) <= set(targets)


def test_it_runs_on_a_python_that_the_package_takes() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (setup,) = [step for step in workflow["jobs"]["ci"]["steps"] if "setup-python" in step.get("uses", "")]
    needed = re.search(
        r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert needed is not None
    assert setup["with"]["python-version"] == needed[1]
