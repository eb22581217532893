"""SiamTransfer: pretrain Siamese networks, convert their backbones, and measure what they are good for.

    import siamtransfer as st
    backbone = st.load_backbone("checkpoint_0099.pth.tar")

Every public name is imported on first use (PEP 562), so `import siamtransfer` costs nothing. Messages go
through the logger `siamtransfer`; what a user can do wrong is a `UserError`. The command `siamtransfer`
does the same and more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from siamtransfer.version import __version__

if TYPE_CHECKING:
    from siamtransfer.api import (
        PretrainResult,
        compare,
        export,
        load_backbone,
        pretrain,
        to_detectron2,
        to_torchvision,
    )
    from siamtransfer.data.from_objects import from_array, from_images, from_torch
    from siamtransfer.data.sources import open_dataset
    from siamtransfer.embedding.api import embed, predict
    from siamtransfer.evaluation.api import diagnose, extract_features, knn, linear_probe
    from siamtransfer.evaluation.segmentation.api import segmentation_probes
    from siamtransfer.evaluation.sklearn import BackboneFeatures
    from siamtransfer.features.extract import Features
    from siamtransfer.methods.base import Method, Options, ParameterGroup, StepInfo, StepOutput
    from siamtransfer.methods.registry import METHODS
    from siamtransfer.records.result import Result
    from siamtransfer.segmentation.data.from_arrays import from_masks
    from siamtransfer.segmentation.data.registry import open_segmentation
    from siamtransfer.utils.errors import UserError

_HOMES = {
    "siamtransfer.api": (
        "PretrainResult", "compare", "export", "load_backbone", "pretrain", "to_detectron2", "to_torchvision",
    ),
    "siamtransfer.data.from_objects": ("from_array", "from_images", "from_torch"),
    "siamtransfer.data.sources": ("open_dataset",),
    "siamtransfer.embedding.api": ("embed", "predict"),
    "siamtransfer.evaluation.api": ("diagnose", "extract_features", "knn", "linear_probe"),
    "siamtransfer.evaluation.segmentation.api": ("segmentation_probes",),
    "siamtransfer.evaluation.sklearn": ("BackboneFeatures",),
    "siamtransfer.features.extract": ("Features",),
    "siamtransfer.methods.base": ("Method", "Options", "ParameterGroup", "StepInfo", "StepOutput"),
    "siamtransfer.methods.registry": ("METHODS",),
    "siamtransfer.records.result": ("Result",),
    "siamtransfer.segmentation.data.from_arrays": ("from_masks",),
    "siamtransfer.segmentation.data.registry": ("open_segmentation",),
    "siamtransfer.utils.errors": ("UserError",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METHODS",
    "BackboneFeatures",
    "Features",
    "Method",
    "Options",
    "ParameterGroup",
    "PretrainResult",
    "Result",
    "StepInfo",
    "StepOutput",
    "UserError",
    "__version__",
    "compare",
    "diagnose",
    "embed",
    "export",
    "extract_features",
    "from_array",
    "from_images",
    "from_masks",
    "from_torch",
    "knn",
    "linear_probe",
    "load_backbone",
    "open_dataset",
    "open_segmentation",
    "predict",
    "pretrain",
    "segmentation_probes",
    "to_detectron2",
    "to_torchvision",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'siamtransfer' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
