"""Folders searched with all below them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.folders import files_below


def test_files_are_sorted_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    for name in ("b/y.json", "a/x.npz", ".git/z.json", "b/.hidden.json", "c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(file.relative_to(tmp_path)) for file in files_below(tmp_path)] == [
        "a/x.npz",
        "b/y.json",
        "c.json",
    ]


def test_a_folder_that_cannot_be_read_is_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        files_below(tmp_path)
