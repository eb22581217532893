"""Importing Detectron2: said clearly when it is absent or broken, and made to work when it is release 0.6."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.utils.errors import UserError

PROGRAM = """
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.utils.errors import UserError
try:
    print(import_detectron2())
except UserError as error:
    print("error:", error)
"""


def test_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "detectron2" else real(name)
    )
    assert not is_installed()
    import_detectron2.cache_clear()
    with pytest.raises(UserError, match=r"not installed; get it with .*scripts/get_detectron2\.py"):
        import_detectron2()


@pytest.mark.parametrize(
    ("init", "modeling", "expected"),
    [
        ('__version__ = "0.6"', "", "detectron2 0.6 (Python files only)"),
        (
            '__version__ = "0.6"',
            "import fvcore_that_is_absent",
            "error: Detectron2 needs the module fvcore_that",
        ),
        (
            '__version__ = "0.6"',
            "raise ImportError('undefined symbol: x')",
            "error: Detectron2 does not load (und",
        ),
    ],
)
def test_what_is_said_of_an_installed_one(tmp_path: Path, init: str, modeling: str, expected: str) -> None:
    """A stand-in package: whether its parts load decides, and what was missing is named."""
    for module, text in (("", init), ("checkpoint", ""), ("modeling", modeling)):
        folder = tmp_path / "detectron2" / module
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}){PROGRAM}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(expected)


@pytest.mark.detectron2
@pytest.mark.skipif(
    not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
)
def test_what_release_0_6_needs_is_supplied() -> None:
    first = import_detectron2()
    import_detectron2.cache_clear()
    version = import_detectron2()
    assert version == first, "doing it again changes nothing"
    assert version.version
    import detectron2.data.transforms
    import detectron2.engine
    import detectron2.evaluation
    import detectron2.layers

    if not version.compiled:
        assert detectron2._C.__doc__ is not None and "stands in" in detectron2._C.__doc__
        assert PIL.Image.LINEAR == PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]
        assert {getattr(np, name) for name in ("str", "int", "float")} == {str, int, float}
    assert str(version).startswith("detectron2 ")
