"""A user's own training script, as people write them for Detectron2; nothing of this project is imported.

The heads have one norm more behind res5, the evaluator is chosen by the name of the data, and `default_setup`
writes its report of the environment.

    python user_script.py --config-file FILE --num-gpus 0 [--eval-only | --resume] KEY VALUE …
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads

CLASSES = [
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]


@ROI_HEADS_REGISTRY.register()
class NormedHeads(Res5ROIHeads):
    """Detectron2's heads of C4, with a norm behind their last block."""

    def _build_res5_block(self, cfg: CfgNode) -> Any:
        block, channels = super()._build_res5_block(cfg)
        block.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return block, channels


class Trainer(DefaultTrainer):
    """Detectron2's trainer with the evaluator of the data."""

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> Any:
        if "coco" in dataset_name:
            return COCOEvaluator(dataset_name, cfg, True, output_folder or f"{cfg.OUTPUT_DIR}/inference")
        return PascalVOCDetectionEvaluator(dataset_name)


def main(arguments: Namespace) -> Any:
    for part in ("train", "val"):
        name, images = f"scenes_coco_{part}", f"coco/{part}"
        register_coco_instances(name, {}, f"coco/annotations/instances_{part}.json", images)
    if Path("voc").is_dir():
        for part in ("trainval", "test"):
            register_pascal_voc(f"scenes_voc_{part}", "voc", part, 2007, CLASSES)
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml"))
    cfg.merge_from_file(arguments.config_file)
    cfg.merge_from_list(arguments.opts)
    cfg.freeze()
    default_setup(cfg, arguments)
    if arguments.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=arguments.resume)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=arguments.resume)
    return trainer.train()


if __name__ == "__main__":
    given = default_argument_parser().parse_args()
    launch(main, given.num_gpus, dist_url=given.dist_url, args=(given,))
