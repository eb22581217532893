"""The containers of one tree of images, written once, and what is said of images."""

from __future__ import annotations

import logging

import pytest
from support.containers import Made, make_all

from siamtransfer.data import depth


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_all(tmp_path_factory.mktemp("containers"))


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is said, of a process that has remarked nothing yet."""
    monkeypatch.setattr(depth, "_remarked", set())
    monkeypatch.setattr(logging.getLogger("siamtransfer"), "propagate", True)
    caplog.set_level(logging.INFO, logger="siamtransfer")
    return caplog
