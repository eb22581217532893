"""Where things are: the checkout, its configurations and the golden numbers."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
SCRIPTS = ROOT / "scripts"
GOLDEN = ROOT / "tests" / "golden"
SUPPORT = ROOT / "tests" / "support"
