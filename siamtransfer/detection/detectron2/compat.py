"""Imports Detectron2, and supplies what its release 0.6 misses on current libraries.

The official main branch needs none of it, nor do the Python files of release 0.6 as scripts/get_detectron2.py
places them. The same files from elsewhere, or placed by an earlier version of that script, come without the
compiled `detectron2._C`, and use names that Pillow 10 and NumPy 1.24 removed. Each is supplied only where it
is missing, before the first import.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class Detectron2:
    """The installed Detectron2.

    compiled: whether it has its compiled part. Without it, rotated boxes, deformable convolution and COCO's
    fast evaluation are absent: call `COCOEvaluator(..., use_fast_impl=detectron2.compiled)`.
    """

    version: str
    compiled: bool

    def __str__(self) -> str:
        return f"detectron2 {self.version} ({'compiled' if self.compiled else 'Python files only'})"


def is_installed() -> bool:
    """Whether there is a Detectron2 to import; a plain folder of that name does not count."""
    spec = importlib.util.find_spec("detectron2")
    return spec is not None and spec.origin is not None


@functools.cache
def import_detectron2() -> Detectron2:
    """Makes `import detectron2` work from here on and returns its version.

    Raises:
        UserError: Detectron2, or a library that it needs, is absent or does not load.
    """
    if not is_installed():
        raise UserError(
            f"Detectron2 is not installed; get it with `{sys.executable} scripts/get_detectron2.py`"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer libraries' advice to Detectron2
        _supply_removed_names()
        return _import()


def _import() -> Detectron2:
    try:
        package = importlib.import_module("detectron2")
        extensions = [path for folder in package.__path__ for path in Path(folder).glob("_C.*")]
        compiled = any(path.suffix != ".py" for path in extensions)
        if not extensions:
            _supply_extension(package)
        importlib.import_module("detectron2.checkpoint")
        importlib.import_module("detectron2.modeling")
    except ModuleNotFoundError as error:
        raise UserError(
            f"Detectron2 needs the module {error.name}; install what it runs on with "
            "`pip install 'siamtransfer[detection]'`"
        ) from error
    except ImportError as error:
        raise UserError(
            f"Detectron2 does not load ({error}); it was probably built for another torch: `pip uninstall "
            f"detectron2` and run `{sys.executable} scripts/get_detectron2.py`"
        ) from error
    return Detectron2(package.__version__, compiled)


def _supply_removed_names() -> None:
    import numpy as np
    import PIL.Image

    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.Resampling.BILINEAR  # type: ignore[attr-defined]
    for builtin in (str, bool, int, float):
        if not hasattr(np, builtin.__name__):
            setattr(np, builtin.__name__, builtin)


def _supply_extension(package: types.ModuleType) -> None:
    """`detectron2.layers` imports the compiled module at once but calls it only for a few rare layers; the
    report of `default_setup` asks it for the versions of compilers."""
    extension = types.ModuleType("detectron2._C", "stands in for the compiled part, which is not installed")
    for name in ("get_compiler_version", "get_cuda_version"):
        setattr(extension, name, lambda: "none: Python files only")
    extension.has_cuda = lambda: False  # type: ignore[attr-defined]
    sys.modules[extension.__name__] = extension
    package._C = extension  # type: ignore[attr-defined]
