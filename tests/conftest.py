"""What all tests share: one thread a process, a cache folder of their own, and a small folder of images."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported, and inherited by every process that a test starts: bit-equal runs need one number
# of threads, and many small processes on few cores are fastest with one each.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import pytest
import torch
from support.browser import Browser, start_browser
from support.pictures import write_shapes

from siamtransfer.utils.log import print_messages

torch.set_num_threads(1)

# Shells start what runs in the background, and `nohup` what outlives them, with these ignored, and every
# process that a test starts would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LONGEST = (
    "tests/e2e/",
    "tests/methods/test_adding_a_method.py",
    "tests/test_notebook.py",
    "tests/test_package.py",
)
"""Files whose tests take longest; they run first, so that no process waits for one of them at the end."""


FAULTS = "tests/faults/"
"""A folder of which every test carries the mark `fault`."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of faults/, and puts the longest files first; others keep the order of their names."""
    for item in items:
        if item.nodeid.startswith(FAULTS):
            item.add_marker("fault")
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` run where there is one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps the tests out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """Ends processes that a failed test left running, for pytest would wait for them."""
    yield
    if "support.small_runs" in sys.modules:
        sys.modules["support.small_runs"].kill_leftovers()


@pytest.fixture(scope="session", autouse=True)
def messages_on_stderr() -> None:
    """Messages are printed, as the programs print them."""
    print_messages()


@pytest.fixture(autouse=True)
def own_random_numbers() -> None:
    """Every test begins with the same random numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of 20 x 24 pixels in two class folders: noise with a bright half, upper or left."""
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root)
    return root


@pytest.fixture(scope="module")
def few_test_scenes() -> Iterator[None]:
    """Rendered test sets have 100 scenes instead of 2,000, also in the processes of small_runs.py: for files
    whose tests are not about the numbers themselves, for 2,000 scenes take longer than all else in them."""
    from siamtransfer.data.scenes.scenes import DEFAULT_COUNTS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DEFAULT_COUNTS, "test", 100)
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a network, started when the first test asks for it."""
    with start_browser() as started:
        yield started
