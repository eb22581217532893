"""What all tasks on annotated objects have in common: the data and how Detectron2 reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from siamtransfer.detection.data.dataset_split import ImageRecord, corners
from siamtransfer.detection.data.datasets import DetectionData
from siamtransfer.detection.detectron2.readable_images import ReadableImages
from siamtransfer.detection.lr_search import hold_out
from siamtransfer.detection.tasks.task import Task, TrainingOrder
from siamtransfer.utils.errors import UserError

PLAIN, REPEATED = "TrainingSampler", "RepeatFactorTrainingSampler"  # of DATALOADER.SAMPLER_TRAIN
MASK_RCNN = "GeneralizedRCNN"  # Detectron2's architecture with masks of objects


def can_train(annotation: dict[str, Any]) -> bool:
    """Whether both engines learn from an object: it is no crowd, and its box has an area."""
    x0, y0, x1, y1 = corners(annotation)
    return not annotation.get("iscrowd", 0) and x1 > x0 and y1 > y0


@dataclass(frozen=True, eq=False)
class ObjectsTask(Task):
    """A task on the annotated objects of `data`; subclasses say what is scored, and what else is trained.

    needs_masks: whether nothing can be scored without predicted masks. scored: what the test part needs, for
    messages.
    """

    needs_masks: ClassVar[bool] = False
    scored: ClassVar[str] = "objects that are no crowds"

    data: DetectionData

    @property
    def classes(self) -> tuple[str, ...]:
        return self.data.classes

    @property
    def train_fingerprint(self) -> str:
        return self.data.train_fingerprint

    @property
    def test_fingerprint(self) -> str:
        return self.data.test_fingerprint

    @property
    def test_name(self) -> str:
        return self.data.test_split.name

    def describe(self) -> dict[str, Any]:
        return self.data.describe()

    def hold_out(self, fraction: float) -> Self:
        held = replace(self, data=hold_out(self.data, fraction))
        held.require_objects()
        return held

    def is_scored(self, annotation: dict[str, Any]) -> bool:
        """Whether the score counts an object of a test image; it passes over a crowd."""
        return not annotation.get("iscrowd", 0)

    def require_objects(self) -> None:
        """Raises UserError where no object of the test part counts in the score, or none of the train part
        teaches anything: every score would be NaN or 0, and be known only after the training."""
        test, train = self.data.test_split, self.data.train_splits
        if not self.has_scored_objects():
            listed = len(test.annotations)
            why = f"has {listed:,} objects and none counts in the score" if listed else "has no object"
            raise UserError(
                f"{test.name} {why}, so that nothing could be scored after the training; test on a part with "
                f"{self.scored}"
            )
        if not any(map(can_train, (item for split in train for item in split.annotations))):
            listed = sum(len(split.annotations) for split in train)
            raise UserError(
                f"{'+'.join(split.name for split in train)} has {listed:,} objects and none to learn from: "
                "all are crowds or have no area; train on a part with others"
            )

    def has_scored_objects(self) -> bool:
        """Whether the score counts anything of the test images."""
        return any(map(self.is_scored, self.data.test_split.annotations))

    def fit_settings(self, cfg: Any) -> None:
        from siamtransfer.detection.detectron2.catalog import register

        data = self.data
        if self.needs_masks and not (cfg.MODEL.MASK_ON and cfg.MODEL.META_ARCHITECTURE == MASK_RCNN):
            raise UserError(
                f"{self.name} scores masks; set MODEL.MASK_ON True and MODEL.META_ARCHITECTURE {MASK_RCNN}"
            )
        name = cfg.DATALOADER.SAMPLER_TRAIN
        if name not in (PLAIN, REPEATED):
            raise UserError(f"DATALOADER.SAMPLER_TRAIN is {name!r}; take {PLAIN} or {REPEATED}")
        if cfg.MODEL.MASK_ON and (without := data.without_masks()) is not None:
            raise UserError(f"MODEL.MASK_ON is set and {without}; append MODEL.MASK_ON False")
        train, test = register(data)
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (test,)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(data.classes)
        cfg.INPUT.MASK_FORMAT = data.mask_format

    def train_records(self, cfg: Any) -> list[ImageRecord]:
        """The images to train on; without those that teach nothing, where the settings leave them out."""
        from detectron2.data import get_detection_dataset_dicts

        return get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )

    def train_loader(self, cfg: Any, order: TrainingOrder) -> Any:
        """Detectron2's loader; by DATALOADER.SAMPLER_TRAIN images of rare classes come more often."""
        from detectron2.data import build_detection_train_loader
        from detectron2.data.samplers import RepeatFactorTrainingSampler

        records = self.train_records(cfg)
        if cfg.DATALOADER.SAMPLER_TRAIN == REPEATED:
            sampler = order.repeated(
                RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
                    records, cfg.DATALOADER.REPEAT_THRESHOLD
                )
            )
        else:
            sampler = order.shuffled(len(records))
        mapper = ReadableImages(self.mapper(cfg))
        return build_detection_train_loader(cfg, dataset=records, sampler=sampler, mapper=mapper)

    def mapper(self, cfg: Any) -> Any:
        """Makes of a record what the model trains on."""
        from detectron2.data import DatasetMapper

        from siamtransfer.detection.detectron2.large_jitter import jittered_mapper

        if not cfg.INPUT.LARGE_JITTER.SIZE:
            return DatasetMapper(cfg, is_train=True)

        return jittered_mapper(cfg)

    def test_loader(self, cfg: Any) -> Any:
        from detectron2.data import DatasetMapper, build_detection_test_loader

        mapper = ReadableImages(DatasetMapper(cfg, is_train=False))
        return build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=mapper)

    def __str__(self) -> str:
        return str(self.data)
