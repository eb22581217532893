"""A real browser for tests of pages: Debian's Chromium without a network, driven by Playwright.

A test takes the fixture `browser` (tests/conftest.py) and opens a file:

    def test_page(browser: Browser, report: Path) -> None:
        with browser.open(report, width=390) as opened:
            opened.page.click("text=Map")
            assert opened.page.locator("#panel").is_visible()
        opened.require_silence()

Where Playwright or Chromium is absent, such tests are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

TIMEOUT = 20_000  # ms that an element may take to appear; a machine that runs other tests is slow


@dataclass
class OpenedPage:
    """A page in a tab of its own, and what it did.

    Attributes:
        page: Playwright's Page.
        errors: what it wrote to the console as warnings or errors, and exceptions that it did not catch.
        requests: every address that it asked for, but its own file and what lies in it (data:, blob:).
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def require_silence(self) -> None:
        """Fails where the page complained or asked for anything outside itself."""
        assert self.errors == []
        assert self.requests == []

    def is_wider_than_window(self) -> bool:
        """Whether the page as a whole scrolls sideways."""
        return bool(
            self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        )


class Browser:
    """Chromium, started once for all tests of a process."""

    def __init__(self, chromium: Any):
        self._chromium = chromium

    @contextmanager
    def open(
        self,
        path: Path,
        *,
        width: int = 1280,
        height: int = 800,
        scheme: Literal["light", "dark"] = "light",
        touch: bool = False,
        scale: float = 1,
        wait: Literal["load", "domcontentloaded"] = "load",
    ) -> Iterator[OpenedPage]:
        """Opens a file offline in a window of that size; `touch` is a phone's screen, `scale` its pixels per
        CSS pixel."""
        context = self._chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            has_touch=touch,
            device_scale_factor=scale,
            offline=True,
            reduced_motion="reduce",
        )
        context.set_default_timeout(TIMEOUT)
        try:
            opened = OpenedPage(context.new_page())
            address = path.absolute().as_uri()
            opened.page.on(
                "console",
                lambda message: (
                    opened.errors.append(message.text) if message.type in ("error", "warning") else None
                ),
            )
            opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
            opened.page.on(
                "request",
                lambda request: (
                    None
                    if request.url.split("#")[0] == address or request.url.startswith(("data:", "blob:"))
                    else opened.requests.append(request.url)
                ),
            )
            opened.page.goto(address, wait_until=wait)
            yield opened
        finally:
            context.close()


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Starts Chromium; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright (the extra browser)")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium on the path")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            yield Browser(started)
        finally:
            started.close()
