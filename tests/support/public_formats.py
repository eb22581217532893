"""Contents of checkpoint files as public code bases write them, around one or two given backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from siamtransfer.checkpoints.detectron2_keys import in_model, to_detectron2

CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
GENERATOR = {"conv1": 0, "bn1": 1, "layer1": 2, "layer2": 3, "layer3": 4, "layer4": 5}


def numbered(state: dict[str, Tensor], numbers: dict[str, int]) -> dict[str, Tensor]:
    return {f"{numbers[key.split('.')[0]]}.{key.split('.', 1)[1]}": tensor for key, tensor in state.items()}


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in state.items()}


def generated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = numbered(state, GENERATOR)
    return {key.replace(".downsample.", ".shortcut."): tensor for key, tensor in names.items()}


HEAD = {"0.weight": torch.ones(4, 4), "0.bias": torch.ones(4)}
Builder = Callable[[dict[str, Tensor], dict[str, Tensor]], Any]
PUBLIC_FORMATS: dict[str, tuple[Builder, str, dict[str, str]]] = {
    "vissl": (
        lambda a, b: {
            "classy_state_dict": {
                "base_model": {
                    "model": {"trunk": under("_feature_blocks.", a), "heads": under("0.clf.", HEAD)},
                    "meta": {},
                },
                "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}},
                "loss": {"queue": torch.ones(2, 2)},
            },
            "phase_idx": 10,
        },
        "vissl",
        {},
    ),
    "unigrad": (
        lambda a, b: {
            "model": {
                **under("module.encoder.", numbered(a, CHILDREN)),
                **under("module.projector.", HEAD),
                **under("module.momentum_encoder.", numbered(b, CHILDREN)),
                **under("module.momentum_projector.", HEAD),
            },
            "F": torch.eye(4),
            "optimizer": {},
            "epoch": 99,
        },
        "unigrad",
        {"momentum": "b"},
    ),
    "directpred": (
        lambda a, b: {
            "online_network_state_dict": {
                **under("module.encoder.", a),
                **under("module.projetion.net.", HEAD),
            },
            "target_network_state_dict": {
                **under("module.encoder.", b),
                **under("module.projetion.net.", HEAD),
            },
            "predictor_state_dict": HEAD,
            "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.ones(2)}}},
        },
        "directpred",
        {"target": "b"},
    ),
    "patrickhua": (
        lambda a, b: {
            "epoch": 800,
            "state_dict": {
                **under("module.backbone.", a),
                **under("module.encoder.0.", a),
                **under("module.projector.layer1.", HEAD),
                **under("module.encoder.1.layer1.", HEAD),
                **under("module.predictor.layer1.", HEAD),
            },
        },
        "patrickhua",
        {"encoder": "a"},
    ),
    "lightly tutorial": (
        lambda a, b: {
            "state_dict": {
                **under("backbone.", numbered(a, CHILDREN)),
                **under("projection_head.layers.", HEAD),
                **under("backbone_momentum.", numbered(b, CHILDREN)),
                **under("projection_head_momentum.layers.", HEAD),
            }
        },
        "lightly-tutorial",
        {"momentum": "b"},
    ),
    "lightly generator": (
        lambda a, b: {"state_dict": {**under("backbone.", generated(a)), **under("projection_head.", HEAD)}},
        "lightly-tutorial",
        {},
    ),
    "lightly dino": (
        lambda a, b: {
            "state_dict": {
                **under("backbone.", a),
                **under("student_backbone.", b),
                **under("projection_head.layers.", HEAD),
                **under("student_projection_head.layers.", HEAD),
                "criterion.center": torch.ones(1, 4),
                **under("online_classifier.classification_head.", HEAD),
            }
        },
        "lightly",
        {"student": "b"},
    ),
    "old solo-learn": (
        lambda a, b: {
            "state_dict": {
                **under("encoder.", a),
                **under("momentum_encoder.", b),
                **under("projector.", HEAD),
                **under("momentum_projector.", HEAD),
                **under("classifier.", HEAD),
                "queue": torch.ones(4, 8),
                "queue_ptr": torch.zeros(1, dtype=torch.int64),
            }
        },
        "solo-learn",
        {"momentum": "b"},
    ),
    "vicreg": (
        lambda a, b: {
            "model": {**under("module.backbone.", a), **under("module.projector.", HEAD)},
            "epoch": 9,
        },
        "vicreg",
        {},
    ),
    "deepcluster v2": (
        lambda a, b: {
            **under("module.", a),
            **under("module.projection_head.", HEAD),
            "module.prototypes.prototypes0.weight": torch.ones(3, 4),
        },
        "swav",
        {},
    ),
    "a moving average": (
        lambda a, b: {
            "model": a,
            "model_ema": {"n_averaged": torch.tensor(3), **under("module.", b)},
            "epoch": 3,
        },
        "torchvision",
        {"ema": "b"},
    ),
    "an ema of a compiled lightning module": (
        lambda a, b: {
            "state_dict": under("model._orig_mod.", a),
            "state_dict_ema": under("model._orig_mod.", b),
        },
        "torchvision",
        {"ema": "b"},
    ),
    "a detector with a feature pyramid": (
        lambda a, b: {
            "model": {
                **under("backbone.bottom_up.", {to_detectron2(key): tensor for key, tensor in a.items()}),
                "backbone.fpn_lateral2.weight": torch.ones(4, 4, 1, 1),
                "proposal_generator.rpn_head.conv.weight": torch.ones(4, 4, 3, 3),
                "roi_heads.box_predictor.cls_score.weight": torch.ones(3, 4),
                "pixel_mean": torch.ones(3, 1, 1),
            },
            "optimizer": {"state": {}},
            "iteration": 10,
        },
        "detectron2",
        {},
    ),
    "a RetinaNet": (
        lambda a, b: {
            "model": {
                **under("backbone.bottom_up.", {to_detectron2(key): tensor for key, tensor in a.items()}),
                "backbone.fpn_lateral3.weight": torch.ones(4, 4, 1, 1),
                "backbone.top_block.p6.weight": torch.ones(4, 4, 3, 3),
                "head.cls_subnet.0.weight": torch.ones(4, 4, 3, 3),
                "anchor_generator.cell_anchors.0": torch.ones(9, 4),
            },
            "trainer": {"iteration": 10},
        },
        "detectron2",
        {},
    ),
    "a detector of the C4 layout": (
        lambda a, b: {
            "model": {
                **{in_model(to_detectron2(key), "C4"): tensor for key, tensor in a.items()},
                **under("roi_heads.res5.norm.", HEAD),
            }
        },
        "detectron2",
        {},
    ),
    "only a moving average": (lambda a, b: {"ema": {"module": a}, "epoch": 3}, "torchvision", {}),
    "pixpro": (
        lambda a, b: {
            "opt": None,
            "model": {
                **under("module.encoder.", a),
                **under("module.encoder_k.", b),
                **under("module.projector.linear1.", HEAD),
                **under("module.projector_k.linear1.", HEAD),
                "module.value_transform.weight": torch.ones(4, 4, 1, 1),
                **under("module.projector_instance.linear1.", HEAD),
                **under("module.projector_instance_k.linear1.", HEAD),
                **under("module.predictor.linear1.", HEAD),
            },
            "optimizer": {},
            "scheduler": {},
            "epoch": 100,
        },
        "pixpro",
        {"momentum": "b"},
    ),
    "ressl": (
        lambda a, b: {
            "model": {
                **under("module.encoder_q.net.", {**a, "fc.weight": torch.ones(5, 4)}),
                **under("module.encoder_q.head.linear1.", HEAD),
                **under("module.encoder_k.net.", {**b, "fc.weight": torch.ones(5, 4)}),
                **under("module.encoder_k.head.linear1.", HEAD),
                "module.queue": torch.ones(4, 8),
                "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
            },
            "optimizer": {},
            "epoch": 200,
        },
        "ressl",
        {"key": "b"},
    ),
    "densecl": (
        lambda a, b: {
            "meta": {"epoch": 200},
            "state_dict": {
                "queue": torch.ones(4, 8),
                "queue_ptr": torch.zeros(1, dtype=torch.int64),
                "queue2": torch.ones(4, 8),
                "queue2_ptr": torch.zeros(1, dtype=torch.int64),
                **under("encoder_q.0.", a),
                **under("encoder_q.1.mlp.", HEAD),
                **under("encoder_q.1.mlp2.", HEAD),
                **under("encoder_k.0.", b),
                **under("encoder_k.1.mlp2.", HEAD),
                **under("backbone.", a),
            },
            "optimizer": {},
        },
        "mmselfsup",
        {"query": "a", "key": "b"},
    ),
    "lightly-train's dino": (
        lambda a, b: {
            "state_dict": {
                **under("teacher_embedding_model.wrapped_model._model.", a),
                **under("teacher_projection_head.layers.", HEAD),
                **under("student_embedding_model.wrapped_model._model.", b),
                **under("student_projection_head.layers.", HEAD),
                "criterion.center.center": torch.ones(1, 4),
            },
            "hyper_parameters": {},
        },
        "lightly-train",
        {"student": "b"},
    ),
    "lightly-train's densecl": (
        lambda a, b: {
            "state_dict": {
                **under("query_encoder.embedding_model.wrapped_model._model.", a),
                **under("query_encoder.local_projection_head.", HEAD),
                **under("key_encoder.embedding_model.wrapped_model._model.", b),
                **under("key_encoder.global_projection_head.", HEAD),
                "memory_bank.bank": torch.ones(4, 4),
            }
        },
        "lightly-train",
        {"key": "b"},
    ),
    "lightly-train's export": (
        lambda a, b: {**under("wrapped_model._model.", a), **under("embed_head.", HEAD)},
        "lightly-train",
        {},
    ),
    "stable-pretraining": (
        lambda a, b: {
            "state_dict": {
                **under("backbone.student.", b),
                **under("backbone.teacher.", a),
                **under("projector.", HEAD),
                **under("callbacks_modules.linear_probe.", HEAD),
                "callbacks_metrics.linear_probe.val.top1.tp": torch.ones(4),
            },
            "pytorch-lightning_version": "2.5",
        },
        "stable-pretraining",
        {"student": "b"},
    ),
    "a segmenter of torchvision": (
        lambda a, b: {
            **under("backbone.", a),
            "classifier.0.weight": torch.ones(4, 4, 3, 3),
            "aux_classifier.0.weight": torch.ones(4, 4, 3, 3),
        },
        "torchvision-segmentation",
        {},
    ),
    "a bare prefix": (lambda a, b: {"state_dict": under("module.encoder.", a)}, "prefixed", {}),
}
"""By name: a function from two backbones a and b to the content; the format's name; and which of the two each
branch holds besides the default one, which is a."""


def as_open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ViT of timm under the names of open_clip's image tower, without the words before them."""
    rules = {
        "patch_embed.proj.": "conv1.", "norm_pre.": "ln_pre.", "attn.qkv.": "attn.in_proj_",
        "attn.proj.": "attn.out_proj.", "norm1.": "ln_1.", "norm2.": "ln_2.",
        "mlp.fc1.": "mlp.c_fc.", "mlp.fc2.": "mlp.c_proj.", "blocks.": "transformer.resblocks.",
    }  # fmt: skip
    official = {}
    for name, tensor in state.items():
        for new, old in rules.items():
            name = name.replace(new, old)
        official["ln_post." + name.removeprefix("norm.") if name.startswith("norm.") else name] = tensor
    official["class_embedding"] = official.pop("cls_token").flatten()
    official["positional_embedding"] = official.pop("pos_embed")[0]
    return official
