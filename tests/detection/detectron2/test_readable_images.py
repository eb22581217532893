"""Images that go bad after the data were opened: Detectron2's loaders say what our reader says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support.coco_sets import HEIGHT, WIDTH, coco_content, write_content
from support.image_bombs import jpeg_of_scans

from siamtransfer.detection.data.dataset_split import ImageRecord, read_image
from siamtransfer.detection.data.datasets import DetectionData, open_detection_data
from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.detection.detectron2.readable_images import ReadableImages
from siamtransfer.detection.detectron2.samplers import ResumedOrder
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.utils.errors import UserError

pytestmark = [
    pytest.mark.fault,
    pytest.mark.detectron2,
    pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed"),
]


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    for number in range(2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"p{number}.jpg")
    part = f"{write_content(tmp_path / 'own.json', coco_content(2))}@{tmp_path}"
    return open_detection_data(part, part)


def refusal(record: ImageRecord) -> str:
    """What our own reader says of the image."""
    with pytest.raises(UserError) as ours:
        read_image(record)
    return str(ours.value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda image: image.write_bytes(jpeg_of_scans(150)), "more than 100 scans"),
        (lambda image: image.write_bytes(image.read_bytes()[:-20]), "truncated"),
        (lambda image: image.unlink(), "No such file"),
    ],
)
def test_both_loaders_say_what_our_reader_says(
    spoil: Callable[[Path], object], sentence: str, workers: int, data: DetectionData
) -> None:
    import_detectron2()
    from detectron2.config import get_cfg

    for record in data.train:
        spoil(Path(record["file_name"]))
    task, cfg = InstancesTask(data, "coco"), get_cfg()
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = workers, 1
    cfg.INPUT.LARGE_JITTER = type(cfg)({"SIZE": 0})
    task.fit_settings(cfg)
    for loader, records in (
        (task.train_loader(cfg, ResumedOrder(0, 0)), data.train),
        (task.test_loader(cfg), data.test),
    ):
        with pytest.raises(UserError, match=sentence) as theirs:
            next(iter(loader))
        assert str(theirs.value) in [refusal(record) for record in records]


def test_an_error_of_the_mapper_itself_is_not_hidden(data: DetectionData) -> None:
    def broken(record: object) -> dict[str, object]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ReadableImages(broken)(data.train[0])
