"""Where an image that is absent from its path lies instead."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from siamtransfer.detection.data.image_names import elsewhere

pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("stored", "named", "why"),
    [
        ("a/x.jpg", "a/a/x.jpg", "its folder stands twice in the path, a"),
        ("a/b/x.jpg", "a/b/a/b/x.jpg", "its folder stands twice in the path, a/b"),
        ("a/x.jpg", "a\\x.jpg", "the name has \\ where this machine has /"),
        ("a/x.JPG", "a/x.jpg", "its name ends in .JPG"),
        ("a/x.jpg", "a/y.jpg", None),
    ],
)
def test_a_near_name_is_found(tmp_path: Path, stored: str, named: str, why: str | None) -> None:
    (tmp_path / stored).parent.mkdir(parents=True)
    (tmp_path / stored).touch()
    assert elsewhere(f"{tmp_path}/{named}") == why


def test_a_path_of_many_folders_takes_no_time() -> None:
    began = time.process_time()
    assert elsewhere(f"/{'a/' * 1000}x.jpg") is None
    assert time.process_time() - began < 1
