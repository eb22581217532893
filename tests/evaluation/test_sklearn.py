"""The backbone as a transformer of scikit-learn: pipelines, parameters, clones, pickles."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from siamtransfer.data import open_images
from siamtransfer.evaluation.api import extract_features
from siamtransfer.evaluation.sklearn import BackboneFeatures
from siamtransfer.utils.errors import UserError

SOURCE = "random:resnet18:width=8:stem=small"


def images() -> tuple[list[Image.Image], np.ndarray]:
    scenes = open_images("fashion-scenes", split="train", size=24, count=40)
    assert scenes.labels is not None
    return [Image.fromarray(scenes.image(index)) for index in range(40)], scenes.labels


def test_features_are_those_of_the_extraction() -> None:
    pictures, _ = images()
    h = BackboneFeatures(SOURCE, crop=24, device="cpu").transform(pictures)
    assert (h.dtype, h.shape) == (np.float32, (40, 64))
    np.testing.assert_array_equal(h, BackboneFeatures(SOURCE, crop=24, device="cpu").fit_transform(pictures))
    expected = extract_features(SOURCE, pictures, crop=24, device="cpu").tensor.numpy()
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)  # there batch norm is folded


def test_it_works_in_a_pipeline() -> None:
    pictures, labels = images()
    backbone = BackboneFeatures(SOURCE, crop=24, device="cpu")
    pipeline = make_pipeline(backbone, StandardScaler(), LogisticRegression(max_iter=500))
    assert pipeline.fit(pictures, labels).score(pictures, labels) > 0.5
    assert pipeline.set_params(backbonefeatures__layers="layer2").fit(pictures, labels) is pipeline


def test_parameters_clones_and_pickles() -> None:
    pictures, _ = images()
    backbone = BackboneFeatures(SOURCE, crop=24, device="cpu", layers="layer1").fit()
    h = backbone.transform(pictures)
    assert backbone.get_params()["layers"] == "layer1"
    for copied in (clone(backbone), pickle.loads(pickle.dumps(backbone))):
        assert not hasattr(copied, "_loaded")
        np.testing.assert_array_equal(copied.transform(pictures), h)
    assert backbone.set_params(layers="output").transform(pictures).shape == (40, 64)


def test_mistakes_show_when_it_is_fitted() -> None:
    with pytest.raises(UserError, match=r"no/such\.pth"):
        BackboneFeatures("no/such.pth").fit()
    with pytest.raises(UserError, match="layer9"):
        BackboneFeatures(SOURCE, layers="layer9").fit()
