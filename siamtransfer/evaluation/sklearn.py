"""A frozen backbone as a transformer of scikit-learn, for its pipelines and model selection.

pipeline = make_pipeline(BackboneFeatures("checkpoint.pth"), StandardScaler(), LogisticRegression())
pipeline.fit(train_images, train_labels)
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn

from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, load_backbone
from siamtransfer.distributed.runtime import Precision, start_runtime
from siamtransfer.evaluation.api_inputs import ImageSource, as_image_set
from siamtransfer.evaluation.transform import choose_transform
from siamtransfer.features.extract import extract


class BackboneFeatures(TransformerMixin, BaseEstimator):
    """Images -> features float32[N, D] of a backbone, which is not trained.

    Nothing is learned from the images: `fit` only reads the checkpoint, so that mistakes show early. The
    checkpoint is read again after pickling, and where `set_params` changes it.

    Attributes:
        checkpoint: checkpoint of any known format, or random:NAME or torchvision:NAME.
        branch: which backbone of the checkpoint; None: the one that its format names first.
        normalisation, channels, stride_in_1x1, stem, output_stride, heads, positions, architecture: what is
            known of the network that its file does not say; see `siamtransfer.load_backbone`.
        layers: where the features come from, such as `output`, `layer3` or `last4`.
        crop: side of the central crop; None: the size of the views in pretraining, or 224.
        resize: length of the shorter side before the crop; None: 8/7 of the crop, and none for images of that
            very size.
        device, precision: see `siamtransfer.distributed.runtime.start_runtime`.
        batch_size: images that go through the backbone at once.
        workers: processes that decode.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        branch: str | None = None,
        normalisation: str | None = None,
        channels: Literal["rgb", "bgr"] | None = None,
        stride_in_1x1: bool | None = None,
        stem: str | None = None,
        output_stride: int | None = None,
        heads: int | None = None,
        positions: str | None = None,
        architecture: str | None = None,
        layers: str = OUTPUT,
        crop: int | None = None,
        resize: int | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 256,
        workers: int = 0,
    ):
        self.checkpoint = checkpoint
        self.branch = branch
        self.normalisation = normalisation
        self.channels = channels
        self.stride_in_1x1 = stride_in_1x1
        self.stem = stem
        self.output_stride = output_stride
        self.heads = heads
        self.positions = positions
        self.architecture = architecture
        self.layers = layers
        self.crop = crop
        self.resize = resize
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.workers = workers

    def fit(self, X: Any = None, y: Any = None) -> BackboneFeatures:
        """Reads the checkpoint; `X` and `y` are not used.

        Raises:
            UserError: the checkpoint cannot be read, or its backbone has no such layers.
        """
        self._network()
        return self

    def transform(self, X: ImageSource) -> np.ndarray:
        """float32[N, D] of a list of PIL images or paths, an array uint8[N,H,W,3], an image set or a Dataset.

        Raises:
            UserError: the checkpoint or the images cannot be used, or a feature is not finite.
            UnreadableImage: an image cannot be read.
        """
        images = as_image_set(X)
        network, read = self._network()
        transform = choose_transform(read, None, crop=self.crop, resize=self.resize)
        if self.resize is None and images.image_size == transform.crop:
            transform = choose_transform(read, transform.crop, crop=self.crop, resize=None)
        with start_runtime(self.device, self.precision) as runtime:
            network.to(runtime.device)
            features = extract(
                network, images, transform, runtime, batch=self.batch_size, workers=self.workers
            )
        return features.numpy()

    def _network(self) -> tuple[nn.Module, ReadBackbone]:
        """The backbone with its layers and what was read, read once for each checkpoint, branch, reading and
        layers."""
        stated = {field.name: getattr(self, field.name) for field in fields(ReadingOptions)}
        key = (self.checkpoint, self.branch, *stated.values(), self.layers)
        loaded = getattr(self, "_loaded", None)
        if loaded is None or loaded[0] != key:
            options = ReadingOptions(**stated)
            backbone, read = load_backbone(self.checkpoint, branch=self.branch, options=options)
            say_assumptions(read)
            loaded = self._loaded = (key, FeatureLayers(backbone, [self.layers]).eval(), read)
        return loaded[1], loaded[2]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_loaded"}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        return tags
