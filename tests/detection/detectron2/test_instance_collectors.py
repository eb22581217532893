"""The scores of Cityscapes and of LVIS are those of Detectron2's evaluators, on a part of the images too."""

from __future__ import annotations

import copy
import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.export_cityscapes import write_cityscapes
from siamtransfer.data.scenes.export_lvis import write_lvis
from siamtransfer.detection.data.coco_masks import encoded
from siamtransfer.detection.data.dataset_split import corners
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.tasks.cityscapes import CityscapesTask
from siamtransfer.detection.tasks.lvis import LvisTask
from siamtransfer.detection.tasks.objects import ObjectsTask
from siamtransfer.utils.errors import UserError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed"),
]
needs_cityscapes = pytest.mark.skipif(
    find_spec("cityscapesscripts") is None or find_spec("shapely") is None,
    reason="pip install 'siamtransfer[cityscapes]'",
)
needs_lvis = pytest.mark.skipif(find_spec("lvis") is None, reason="pip install --no-deps lvis")
COUNTS = SceneCounts(train=8, test=6, size=96)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    root = tmp_path_factory.mktemp("city") / "cityscapes"
    write_cityscapes(root, COUNTS)
    return open_detection_data("cityscapes:train", "cityscapes:val", root=root)


@pytest.fixture(scope="module")
def lvis(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    root = tmp_path_factory.mktemp("lvis") / "root"
    write_lvis(root, COUNTS)
    return open_detection_data("lvis_v1_train", "lvis_v1_val", root=root)


def truth_as_output(record: dict[str, Any]) -> dict[str, Any]:
    """Every annotated object, found with a score of its own."""
    from detectron2.structures import Boxes, Instances
    from pycocotools import mask as run_lengths

    items, size = record["annotations"], (record["height"], record["width"])
    if "instance_ids" in record:  # the truth of Cityscapes is not the polygons
        with Image.open(record["instance_ids"]) as image:
            ids = np.array(image)
        names = [24, 25, 26, 27, 28, 31, 32, 33]
        present = [key for key in np.unique(ids) if key // 1000 in names]
        masks = [ids == key for key in present]
        labels = [names.index(key // 1000) for key in present]
        boxes = [[0.0, 0.0, 9.0, 9.0]] * len(present)
    else:
        masks = [run_lengths.decode(encoded(item["segmentation"], *size)).astype(bool) for item in items]
        labels = [item["category_id"] for item in items]
        boxes = [corners(item) for item in items]
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.linspace(0.9, 0.6, len(masks))
    found.pred_classes = torch.tensor(labels, dtype=torch.int64)
    found.pred_masks = torch.from_numpy(np.array(masks, bool).reshape(-1, *size))
    return {"instances": found}


def worsened(output: dict[str, Any], seed: int) -> dict[str, Any]:
    """Masks shifted, classes changed and objects doubled, at random."""
    from detectron2.structures import Instances

    found = copy.deepcopy(output["instances"])
    generator = np.random.default_rng(seed)
    for number in range(len(found)):
        found.pred_masks[number] = found.pred_masks[number].roll(int(generator.integers(0, 9)), 0)
        if generator.random() < 0.2:
            found.pred_classes[number] = (found.pred_classes[number] + 1) % 8
    twice = Instances.cat([found, found])
    twice.scores[len(found) :] *= 0.5
    return {"instances": twice}


def scored(task: ObjectsTask, outputs: list[dict[str, Any]]) -> dict[str, float]:
    collector = task.collector(None)
    collector.reset()
    collector.process(task.data.test, outputs)
    return collector.evaluate()


@needs_cityscapes
def test_cityscapes(cityscapes: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_detectron2()
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import CityscapesInstanceEvaluator

    monkeypatch.chdir(tmp_path)
    task = CityscapesTask(cityscapes)
    perfect = [truth_as_output(record) for record in cityscapes.test]
    scores = scored(task, perfect)
    assert scores["segmentation/AP"] == pytest.approx(100) == scores["segmentation/AP50"]
    of_classes = {name: value for name, value in scores.items() if name.count("/") == 2}
    assert len(of_classes) == 8
    assert all(math.isnan(value) or value == pytest.approx(100) for value in of_classes.values())
    bad = [worsened(output, number) for number, output in enumerate(perfect)]
    found = scored(task, bad)
    assert 0 < found["segmentation/AP"] < found["segmentation/AP50"] < 100
    assert os.listdir(tmp_path) == [], "the benchmark writes to the current folder"  # noqa: PTH208

    folder = Path(cityscapes.test[0]["instance_ids"]).parents[1]
    MetadataCatalog.get("siamtransfer_test_cityscapes").set(thing_classes=list(cityscapes.classes))
    MetadataCatalog.get("siamtransfer_test_cityscapes").set(gt_dir=str(folder))
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as benchmark

    monkeypatch.setattr(benchmark, "writeDict2JSON", lambda *_: None)  # fails with NumPy 2
    theirs = CityscapesInstanceEvaluator("siamtransfer_test_cityscapes")
    theirs.reset()
    theirs.process(cityscapes.test, bad)
    expected = theirs.evaluate()["segm"]
    assert {name: found[f"segmentation/{name}"] for name in expected} == expected
    held_out = task.hold_out(0.5)
    assert len(held_out.data.test) == 4
    perfect = [truth_as_output(record) for record in held_out.data.test]
    assert scored(held_out, perfect)["segmentation/AP"] == pytest.approx(100)


@needs_lvis
def test_lvis(lvis: DetectionData, monkeypatch: pytest.MonkeyPatch) -> None:
    import_detectron2()
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import LVISEvaluator

    task = LvisTask(lvis)
    perfect = [truth_as_output(record) for record in lvis.test]
    scores = scored(task, perfect)
    assert scores["detection/AP"] == pytest.approx(100) and scores["segmentation/AP"] == pytest.approx(100)
    assert math.isnan(scores["segmentation/APl"]), "no object is that large"
    bad = [worsened(output, number) for number, output in enumerate(perfect)]
    found = scored(task, bad)
    assert 0 < found["segmentation/AP"] < found["segmentation/AP50"] < 100
    assert found["segmentation/APr"] != found["segmentation/APf"]

    MetadataCatalog.get("siamtransfer_test_lvis").set(json_file=str(lvis.test_split.source))
    theirs = LVISEvaluator("siamtransfer_test_lvis", distributed=False)
    theirs.reset()
    theirs.process(lvis.test, bad)
    expected = theirs.evaluate()
    for name, iou_type in (("detection", "bbox"), ("segmentation", "segm")):
        ours = {metric: found[f"{name}/{metric}"] for metric in expected[iou_type]}
        assert ours == pytest.approx(
            {key: math.nan if value == -100 else value for key, value in expected[iou_type].items()},
            nan_ok=True,
            abs=0,
        )
    held_out = task.hold_out(0.25)
    assert len(held_out.data.test) == 2
    perfect = [truth_as_output(record) for record in held_out.data.test]
    assert scored(held_out, perfect)["segmentation/AP"] == pytest.approx(100)
    joined = LvisTask(DetectionData((lvis.train_splits[0], lvis.train_splits[0]), lvis.test_split))
    with pytest.raises(UserError, match="one training file of LVIS"):
        joined.hold_out(0.5)
