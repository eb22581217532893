"""The table of checkpoint formats: where a public code base stores its backbones, and which keys it adds.

All names of tensors are those without `module.` and `_orig_mod.`, the prefixes of wrappers, which may occur
in any file. A new format is a new entry in one of the tables that FORMATS joins, and a test that builds such
a file.
"""

from __future__ import annotations

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.detector_formats import DETECTOR_FORMATS
from siamtransfer.checkpoints.file_format import Branch, Format, branches
from siamtransfer.checkpoints.framework_formats import FRAMEWORK_FORMATS
from siamtransfer.checkpoints.hugging_face_formats import HUGGING_FACE_FORMATS
from siamtransfer.checkpoints.layouts import efficientnet, openmmlab
from siamtransfer.checkpoints.masked_formats import MASKED_FORMATS
from siamtransfer.checkpoints.method_formats import METHOD_FORMATS
from siamtransfer.checkpoints.modern_formats import MODERN_FORMATS
from siamtransfer.checkpoints.trainer_formats import TRAINER_FORMATS
from siamtransfer.checkpoints.view_formats import VIEW_FORMATS
from siamtransfer.checkpoints.vision_language_formats import VISION_LANGUAGE_FORMATS

# Our own checkpoints from before they declared their keys (see declaration.py); this list grows no more.
OWN = Format(
    FORMAT,
    "a checkpoint of this program",
    branches(backbone="backbone.", target="target_backbone."),
    key_paths=(("model",),),
    drops={
        "projector.": "projector",
        "target_projector.": "target's projector",
        "head.": "projector",
        "target_head.": "target's projector",
        "predictor.": "predictor",
        "prototypes.": "prototypes",
        "norm.": "batch norm of the loss",
        "distance.": "weights of similarities",
        "terms.": "further terms of the loss",
        "target.": "spread of the outputs",
        "memory.": "averages over augmentations",
        "clusters.": "clusters of images",
        "queue": "queue",
        "center": "centre",
        "correlation.": "correlation matrix",
    },
    needs=("format", "version", "backbone", "normalisation"),
)

# The first entry whose rules explain everything in a file is its format.
FORMATS: tuple[Format, ...] = (
    *DETECTOR_FORMATS,
    *VIEW_FORMATS,
    *MASKED_FORMATS,
    *TRAINER_FORMATS,
    *METHOD_FORMATS,
    *FRAMEWORK_FORMATS,
    *(
        Format(
            "prefixed",
            f"a backbone called {word}, without a method's heads",
            {"backbone": Branch(f"{word}.", head="classifier")},
            convert=openmmlab.to_timm,
            marks=(f"{word}.",),
        )
        for word in ("backbone", "encoder", "trunk")
    ),
    *HUGGING_FACE_FORMATS,
    *MODERN_FORMATS,
    *VISION_LANGUAGE_FORMATS,
    Format(
        "efficientnet-pytorch",
        "efficientnet-pytorch or efficientnet-lite-pytorch",
        drops={"_fc.": "classifier"},
        marks=("_conv_stem.", "_blocks."),
        convert=efficientnet.to_timm,
        networks="tf_",  # TensorFlow's padding and its epsilon of batch norm
    ),
    Format(
        "timm",
        "a timm ViT's state_dict",
        drops={"head.": "classifier"},
        marks=("patch_embed.", "blocks."),
    ),
    Format("torchvision", "a torchvision model's state_dict", drops={"fc.": "classifier"}),
)
