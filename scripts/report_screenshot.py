"""Draws a report as a desktop and a phone show it, side by side: the page of docs/REPORT.md.

python scripts/report_screenshot.py page.html docs/report.png

Needs Playwright (the extra browser) and Chromium on the path.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from siamtransfer.cli import run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write

DESKTOP, PHONE = (1280, 1000), (390, 1000)
GAP, GROUND = 24, "#8a94a0"


def main() -> dict[str, Any]:
    """The command line; returns where the picture is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, help="a page that siamtransfer report wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    asked = parser.parse_args()
    if not asked.page.is_file():
        raise UserError(f"there is no page {asked.page}")
    shots = photographs(asked.page)
    width = sum(shot.width for shot in shots) + GAP * (len(shots) + 1)
    sheet = Image.new("RGB", (width, max(shot.height for shot in shots) + 2 * GAP), GROUND)
    left = GAP
    for shot in shots:
        sheet.paste(shot, (left, GAP))
        left += shot.width + GAP
    with atomic_write(asked.picture) as file:
        sheet.save(file, "PNG", optimize=True)
    return {"task": "report_screenshot", "picture": str(asked.picture), "size": list(sheet.size)}


def photographs(page: Path) -> list[Image.Image]:
    """The first screen on a desktop in light colours, and on a phone in dark ones with the protocol of a
    number open.

    Raises:
        UserError: there is no browser.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError("Playwright is not installed: pip install 'siamtransfer[browser]'") from error
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise UserError("there is no chromium on the path")
    views: tuple[tuple[tuple[int, int], Literal["light", "dark"]], ...] = (
        (DESKTOP, "light"),
        (PHONE, "dark"),
    )
    shots = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for (width, height), scheme in views:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                offline=True,
                reduced_motion="reduce",
            )
            opened = context.new_page()
            opened.goto(page.absolute().as_uri())
            if scheme == "dark":
                opened.locator("#answer button.number").first.click()
                opened.locator("#popover").wait_for(state="visible")
            shots.append(Image.open(io.BytesIO(opened.screenshot())).convert("RGB"))
            context.close()
        browser.close()
    return shots


if __name__ == "__main__":
    run(main)
