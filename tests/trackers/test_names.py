"""Names for MLflow and W&B: accepted there, different for different names, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamtransfer.trackers.names import as_files, from_mlflow, mapped_names, to_mlflow, to_wandb
from siamtransfer.utils.errors import UserError

TELLING = "k=/:._ @x0f类"  # characters that the rule treats differently, and those of its escapes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", "loss"),
        ("knn/k=20/T=0.07/top1", "knn/k:20/T:0.07/top1"),
        ("retrieval/mP@5", "retrieval/mP_x40_5"),
        ("AP-traffic light", "AP-traffic light"),
        ("a:b", "a_x3a_b"),
        ("/a//b", "_x_/a/_x_/b"),
        ("a/../b", "a/_x2e__x2e_/b"),
        ("..hidden", "_x2e__x2e_hidden"),
        ("....", "_x2e__x2e__x2e__x2e_"),
        ("already_x40_there", "already_x5f_x40_there"),
        ("_x0:", "_x5f_x0_x3a_"),
    ],
)
def test_the_name_for_mlflow_and_back(name: str, expected: str) -> None:
    assert to_mlflow(name) == expected
    assert from_mlflow(expected) == name


@settings(deadline=None, max_examples=100)  # the first call imports MLflow
@given(st.text(TELLING, max_size=12))
def test_every_name_comes_back_and_mlflow_takes_it(name: str) -> None:
    encoded = to_mlflow(name)
    assert from_mlflow(encoded) == name
    validation = pytest.importorskip("mlflow.utils.validation")
    validation._validate_metric_name(encoded)
    validation._validate_param_name(encoded)


def test_a_name_that_is_too_long_for_mlflow_is_refused() -> None:
    assert len(to_mlflow("a" * 250)) == 250
    with pytest.raises(UserError, match="at most 250 characters"):
        to_mlflow("a" * 251)
    with pytest.raises(UserError, match="has 500 there"):
        to_mlflow("@" * 100)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("knn/k=20/top1", "knn/k=20/top1"), ("/a", "_x2f_a"), ("_step", "_x5f_step"), ("", "")],
)
def test_the_name_for_wandb_begins_with_nothing_that_is_its_own(name: str, expected: str) -> None:
    assert to_wandb(name) == expected


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(UserError, match="the names A and a would both be A"):
        mapped_names(["A", "b", "a"], str.upper)
    assert len(set(mapped_names(["/a", "_x2f_a", "_a"], to_wandb).values())) == 3
    assert mapped_names(["b", "a"], str.upper) == {"b": "B", "a": "A"}


def test_in_files_a_name_stands_apart_from_the_folder_of_others() -> None:
    names = {name: name for name in ("AP50", "AP50/mean", "AP5", "AP50/mean/low")}
    assert as_files(names) == {
        "AP50": "AP50/_x_", "AP50/mean": "AP50/mean/_x_", "AP5": "AP5", "AP50/mean/low": "AP50/mean/low"
    }  # fmt: skip
