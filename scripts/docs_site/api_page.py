"""The reference of the Python API: every name of siamtransfer.__all__, rendered from its docstring."""

from __future__ import annotations

import siamtransfer
from siamtransfer import _HOME_OF

PAGE = "api.md"
GROUPS = {
    "Load, train, convert": ("siamtransfer.api",),
    "Images": ("siamtransfer.data.sources", "siamtransfer.data.from_objects"),
    "Evaluate": (
        "siamtransfer.evaluation.api", "siamtransfer.features.extract", "siamtransfer.evaluation.sklearn",
    ),
    "Features and labels of own images": ("siamtransfer.embedding.api",),
    "Segmentation": (
        "siamtransfer.evaluation.segmentation.api",
        "siamtransfer.segmentation.data.registry",
        "siamtransfer.segmentation.data.from_arrays",
    ),
    "Results and mistakes": ("siamtransfer.records.result", "siamtransfer.utils.errors"),
    "A method of your own": ("siamtransfer.methods.base", "siamtransfer.methods.registry"),
}  # fmt: skip
"""Heading to the modules whose public names stand below it; names of modules that are not here come last."""

INTRODUCTION = """# Python API

`import siamtransfer as st`: every name is imported on first use, so the import costs nothing. Messages go
through the logger `siamtransfer`; what a user can do wrong is a `UserError`.
[In a notebook](notebook.md) shows the functions at work.
"""


def public_names() -> dict[str, str]:
    """Every public name but the version, with the module that defines it."""
    return {name: _HOME_OF[name] for name in siamtransfer.__all__ if name != "__version__"}


def api_page() -> str:
    """The page, with a directive of mkdocstrings for each name."""
    homes = public_names()
    grouped = {module for modules in GROUPS.values() for module in modules}
    groups = {**GROUPS, "More": tuple(sorted(set(homes.values()) - grouped))}
    text = INTRODUCTION
    for title, modules in groups.items():
        names = sorted(
            (name for name, home in homes.items() if home in modules),
            key=lambda name: (homes[name], name.lower()),
        )
        if names:
            text += f"\n## {title}\n" + "".join(f"\n::: {homes[name]}.{name}\n" for name in names)
    return text
