"""docs/notebook.md runs from top to bottom, in a process of its own, in an empty folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.paths import ROOT
from support.warm_python import run_python

pytestmark = pytest.mark.usefixtures("few_test_scenes")


def test_the_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    code = "\n".join([*blocks, "print('END', sorted(knn.metrics)[-1], knn.provenance['weights_digest'][:8])"])
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = run_python("-c", code, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("END knn/k=20/T=0.07/top5")
    assert (tmp_path / "backbone.pkl").exists()
    assert (tmp_path / "backbone.yaml").exists()
    assert "is better by" in done.stdout or "no difference can be told" in done.stdout
