"""The containers of one tree of images, written once."""

from __future__ import annotations

import pytest
from support.containers import Made, make_all


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_all(tmp_path_factory.mktemp("containers"))
