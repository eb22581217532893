"""Scores predicted masks by Detectron2's evaluator of Cityscapes, which calls the benchmark's own programs.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from detectron2.data.catalog import Metadata
from detectron2.evaluation import CityscapesInstanceEvaluator
from detectron2.utils import comm

from siamtransfer.detection.data.dataset_packages import import_cityscapes
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.pictured_images import PicturedEvaluator, PicturedImages
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.errors import UserError


class CityscapesCollector(PicturedEvaluator, CityscapesInstanceEvaluator):
    """Writes the predictions to a temporary folder and scores them against the test images' instanceIds.png.

    `stop`, where given, may end the program between two batches. All ranks are on one machine.
    """

    def __init__(self, data: DetectionData, stop: StopSignal | None):
        import_cityscapes()
        self.data, self.stop = data, stop
        # Not by super(), which takes the metadata from the catalog, where the folder of the truth is fixed.
        self._metadata = Metadata(thing_classes=list(data.classes))
        self._cpu_device = torch.device("cpu")
        self._logger = logging.getLogger(__name__)
        self.pictures = PicturedImages(data)

    def evaluate(self) -> dict[str, float]:
        """The metrics in per cent on the main process, {} on the others."""
        self.pictures.gather()
        if not comm.is_main_process():
            super().evaluate()
            return {}
        with tempfile.TemporaryDirectory(prefix="cityscapes_truth_") as folder:
            self._link_truth(Path(folder))
            self._metadata.gt_dir = folder
            with _complete_results() as complete, _failures():
                scores = super().evaluate()["segm"]
        classes = complete["averages"]["classes"]
        of_classes = {f"AP/{label}": 100 * float(classes[label]["ap"]) for label in self.data.classes}
        return {f"segmentation/{name}": float(score) for name, score in {**scores, **of_classes}.items()}

    def _link_truth(self, folder: Path) -> None:
        """Puts links to the truth of the test images, maybe a part of a split, into CITY/ of `folder`."""
        for record in self.data.test:
            path = Path(record["instance_ids"]).absolute()
            (folder / path.parent.name).mkdir(exist_ok=True)
            (folder / path.parent.name / path.name).symlink_to(path)


@contextlib.contextmanager
def _complete_results() -> Iterator[dict[str, Any]]:
    """Gives all that the benchmark computes, of which Detectron2 returns the two means.

    The benchmark also writes its matches to the current folder, which fails with NumPy 2. Nobody reads
    them; they are not written here.
    """
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as benchmark

    complete: dict[str, Any] = {}
    evaluate_lists = benchmark.evaluateImgLists

    def keep(*arguments: Any) -> dict[str, Any]:
        complete.update(evaluate_lists(*arguments))
        return complete

    with patch.multiple(benchmark, evaluateImgLists=keep, writeDict2JSON=lambda *_: None):
        yield complete


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Makes an error of what the benchmark prints before it ends the program; its progress is not shown."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    except SystemExit as end:
        said = printed.getvalue().strip().splitlines()
        raise UserError(
            f"the evaluation of Cityscapes has failed ({said[-1] if said else 'without a word'}); check the "
            "truth below gtFine and score again by --eval-only"
        ) from end
