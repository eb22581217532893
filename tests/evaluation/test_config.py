"""The options of the evaluators: light, each with a help text, and in agreement with the tables they name."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest

from siamtransfer.cli.options import field_docs
from siamtransfer.evaluation.finetuning import FINETUNING
from siamtransfer.evaluation.linear.config import LRS, STRENGTHS, LinearConfig, PublishedName
from siamtransfer.evaluation.linear.protocols import PUBLISHED
from siamtransfer.evaluation.semisup.config import FinetuningName, SemisupConfig
from siamtransfer.evaluation.svm.config import Stage
from siamtransfer.evaluation.svm.pooled_features import WINDOWS
from siamtransfer.utils.errors import UserError

CONFIGS = {
    "knn": "KnnConfig",
    "linear": "LinearConfig",
    "fewshot": "FewshotConfig",
    "semisup": "SemisupConfig",
    "svm": "SvmConfig",
    "diagnostics": "DiagnoseConfig",
    "gradient_view": "GradientsConfig",
    "feature_export": "FeaturesConfig",
}


def config_of(room: str) -> Any:
    return getattr(importlib.import_module(f"siamtransfer.evaluation.{room}.config"), CONFIGS[room])


def test_the_options_import_neither_torch_nor_numpy() -> None:
    modules = ", ".join(f"siamtransfer.evaluation.{room}.config" for room in CONFIGS)
    code = f"import sys, {modules}; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("room", CONFIGS)
def test_every_option_has_a_help_text_and_every_listed_one_exists(room: str) -> None:
    kind = config_of(room)
    names = {field.name for field in dataclasses.fields(kind)}
    sections = {field.name for field in dataclasses.fields(kind) if field.name == "data"}
    assert names - sections <= set(field_docs(kind))
    data = {f"data.{field.name}" for field in dataclasses.fields(kind().data)}
    assert set(kind.common) <= names | data
    assert 8 <= len(kind.common) <= 14
    assert set(kind.positional) <= names
    assert set(kind.aliases.values()) <= names and not set(kind.aliases) & names


def test_the_names_in_the_options_are_those_of_the_tables() -> None:
    assert get_args(PublishedName) == tuple(PUBLISHED)
    assert get_args(FinetuningName) == tuple(FINETUNING)
    assert get_args(Stage) == tuple(WINDOWS)


def test_the_grids_are_equally_spaced_in_their_logarithm() -> None:
    assert list(STRENGTHS) == [float(f"{10**x:.6g}") for x in np.linspace(-6, 5, 45)]
    assert list(LRS) == [float(f"{10**x:.3g}") for x in np.linspace(-4, 2, 13)]


def test_fine_tuning_takes_two_learning_rates() -> None:
    with pytest.raises(UserError, match="two learning rates"):
        SemisupConfig(checkpoint="random:resnet18", lrs=[0.1]).check()


def test_a_missing_checkpoint_is_refused() -> None:
    with pytest.raises(UserError, match=r"no file no/such\.pth"):
        LinearConfig(checkpoint="no/such.pth").check()
