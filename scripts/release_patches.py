"""What the Python files of Detectron2 0.6 need so that a user's own script runs on them by itself.

The release is older than the libraries beside it and comes without its compiled module. Each change is a name
that is gone, or a way round the compiled module; no number that Detectron2 computes is another one.

    Image.LINEAR              gone in Pillow 10; BILINEAR is the same filter
    np.bool, np.int …         gone in NumPy 1.24; they were Python's own types
    pkg_resources             gone in newer setuptools; model_zoo asks it for a path inside the package
    caffe2                    gone in torch 2.4; `export` needs it for the export to Caffe2 only
    cv2                       only the outlines of masks need it: imported there, so that Visualizer loads
    torch.meshgrid            wants its order of axes stated; "ij" is the one that it had
    detectron2._C             a module of Python: it says that nothing is compiled, in default_setup's report
                              too, and names the cure where a rotated box or a deformable layer asks for more
    COCOEvaluator             takes pycocotools where the compiled evaluation is absent, and says "official"

It needs only the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

Change = Callable[[str], str]
"""Of the text of a file; one that is changed already stays as it is."""

EXTENSION = "_C.py"
STAND_IN = '''\
"""This module stands in for the compiled part of Detectron2, which the files of release 0.6 come without.

Placed by get_detectron2.py. Box, mask and keypoint R-CNN, RetinaNet and panoptic FPN do not need it.
"""

COMPILED = False


def get_compiler_version():
    return "none: the Python files of release 0.6"


def get_cuda_version():
    return "none: the Python files of release 0.6"


def has_cuda():
    return False


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name} is in the compiled part of Detectron2, which is not installed; "
        "build the official repository: get_detectron2.py --official"
    )
'''
COMPILED_EVALUATION = 'hasattr(_C, "COCOevalEvaluateImages")'


def _replace(old: str, new: str) -> Change:
    return lambda text: text if new in text else text.replace(old, new)


def _drop(line: str) -> Change:
    return lambda text: text.replace(f"\n{line}\n", "\n", 1)


def _builtin_types(text: str) -> str:
    """np.bool and its like become Python's; np.bool_ and np.int64 stay."""
    return re.sub(r"\bnp\.(bool|int|float|str|object)\b", r"\1", text)


EVERYWHERE: tuple[Change, ...] = (
    _builtin_types,
    lambda text: re.sub(r"\bImage\.LINEAR\b", "Image.BILINEAR", text),
)
CHANGES: dict[str, tuple[Change, ...]] = {
    "model_zoo/model_zoo.py": (
        _drop("import pkg_resources"),
        lambda text: re.sub(
            r'pkg_resources\.resource_filename\(\s*"detectron2\.model_zoo", ',
            "os.path.join(\n        os.path.dirname(__file__), ",
            text,
        ),
    ),
    "export/__init__.py": (
        _replace(
            "\nfrom .api import *\n",
            "\ntry:\n    from .api import *\nexcept ModuleNotFoundError:  # of caffe2\n    pass\n",
        ),
    ),
    "utils/visualizer.py": (
        _drop("import cv2"),
        _replace(
            "        mask = np.ascontiguousarray(mask)",
            "        import cv2\n\n        mask = np.ascontiguousarray(mask)",
        ),
    ),
    "modeling/anchor_generator.py": (
        _replace("torch.meshgrid(shifts_y, shifts_x)", 'torch.meshgrid(shifts_y, shifts_x, indexing="ij")'),
    ),
    "evaluation/coco_evaluation.py": (
        _replace(
            "\nfrom detectron2.evaluation.fast_eval_api import",
            "\nfrom detectron2 import _C\nfrom detectron2.evaluation.fast_eval_api import",
        ),
        _replace(
            "self._use_fast_impl = use_fast_impl\n",
            f"self._use_fast_impl = use_fast_impl and {COMPILED_EVALUATION}\n",
        ),
        _replace(
            "(COCOeval_opt if use_fast_impl else COCOeval)",
            f"(COCOeval_opt if use_fast_impl and {COMPILED_EVALUATION} else COCOeval)",
        ),
    ),
}


def is_compiled(package: Path) -> bool:
    """Whether the folder of the package holds the compiled module, and not its stand-in."""
    return any(path.suffix != ".py" for path in package.glob("_C.*"))


def changed_files(package: Path) -> dict[Path, str]:
    """The new text of every file of the package in this folder that is to be changed; {} where all are."""
    changed: dict[Path, str] = {}
    for path in sorted(package.rglob("*.py")):
        text = new = path.read_text(encoding="utf-8")
        for change in (*EVERYWHERE, *CHANGES.get(path.relative_to(package).as_posix(), ())):
            new = change(new)
        if new != text:
            changed[path] = new
    extension = package / EXTENSION
    if not extension.is_file() or extension.read_text(encoding="utf-8") != STAND_IN:
        changed[extension] = STAND_IN
    return changed


def apply(package: Path) -> int:
    """Changes the files of the package; returns their number. Each file is whole at any moment."""
    changed = changed_files(package)
    for path, text in changed.items():
        scratch = path.with_name(f".{path.name}.new")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    return len(changed)
