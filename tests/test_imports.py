"""The import graph, read from the source with `ast`, against the table in docs/ARCHITECTURE.md.

Every import counts, also one inside a function. Heavy optional packages must be imported inside one, or at
the top of a module of `LATE`, which other modules import inside functions.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from support import paths

ROOT = paths.ROOT
LIBRARY = "siamtransfer"
DOORS = ("pretrain", "eval", "convert")
PROGRAM = "siamtransfer.programs."
OPTIONAL = ("detectron2", "wandb", "mlflow", "pynvml", "faiss", "peft")
LATE = {  # modules that import Detectron2 at their top
    "siamtransfer.detection.detectron2.cityscapes_collector",
    "siamtransfer.detection.detectron2.keypoint_collector",
    "siamtransfer.detection.detectron2.large_jitter",
    "siamtransfer.detection.detectron2.lvis_collector",
    "siamtransfer.detection.detectron2.mask_collector",
    "siamtransfer.detection.detectron2.panoptic_collector",
    "siamtransfer.detection.detectron2.panoptic_mapper",
    "siamtransfer.detection.detectron2.pictured_images",
    "siamtransfer.detection.detectron2.prediction_collector",
    "siamtransfer.detection.detectron2.samplers",
    "siamtransfer.detection.detectron2.trainer",
    "siamtransfer.detection.detectron2.trainer_hooks",
}


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def read_modules(root: Path) -> dict[str, ast.Module]:
    """Every module of the library and the programs, by dotted name."""
    paths = [path for folder in (LIBRARY, *DOORS) for path in sorted((root / folder).rglob("*.py"))]
    return {module_name(path, root): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def imported_names(tree: ast.AST) -> list[str]:
    """What a piece of code imports, as dotted names; `from a import b` gives a.b."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own_imports(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Module to the modules of ours that it imports; a name inside a module counts as that module."""
    graph: dict[str, set[str]] = {}
    for module, tree in modules.items():
        found = set()
        for name in imported_names(tree):
            if name.split(".")[0] not in (LIBRARY, *DOORS):
                continue
            found.add(name if name in modules else name.rpartition(".")[0])
        graph[module] = found - {module}
    return graph


def group_of(module: str) -> str:
    """The name under which a module stands in the table."""
    parts = module.split(".")
    return parts[1] if parts[0] == LIBRARY and len(parts) > 1 else parts[0]


def allowed_arrows(text: str) -> dict[str, set[str]]:
    """The table under the heading `## Imports`."""
    block = re.search(r"^## Imports$.*?^```imports\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block, "docs/ARCHITECTURE.md needs a block ```imports under the heading ## Imports"
    lines = [line.split("->") for line in block[1].splitlines() if line.strip()]
    return {left.strip(): {name for name in re.split(r"[,\s]+", right) if name} for left, right in lines}


def forbidden(graph: dict[str, set[str]], allowed: dict[str, set[str]]) -> list[str]:
    """Imports that the table does not allow, and those that no table could."""
    wrong = []
    for module, imported in graph.items():
        for other in sorted(imported):
            ours, theirs = group_of(module), group_of(other)
            if theirs in DOORS:
                wrong.append(f"{module} imports the door {other}")
            elif other.startswith(PROGRAM) and ours not in (*DOORS, "api"):
                wrong.append(f"{module} imports the program {other}")
            elif ours != theirs and theirs not in allowed.get(ours, set()):
                wrong.append(f"{module} imports {other}: {ours} -> {theirs} is not in the table")
    return wrong


def top_level_imports(tree: ast.Module) -> list[str]:
    """Imports that happen when the module is imported: all but those inside functions."""
    names: list[str] = []
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += imported_names(ast.Module([node], []))
        waiting += [
            child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)
        ]
    return names


def early_imports(modules: dict[str, ast.Module], package: str, late: set[str]) -> list[str]:
    """The modules that import `package` as soon as they are imported; those of `late` count as the package.

    A module of `late` may import the package and other modules of `late` at its top.
    """
    early = []
    for module, tree in modules.items():
        for name in top_level_imports(tree):
            of_late = name in late or name.rpartition(".")[0] in late
            if module not in late and (of_late or name.split(".")[0] == package):
                early.append(module)
    return early


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    return read_modules(ROOT)


@pytest.fixture(scope="module")
def table() -> dict[str, set[str]]:
    return allowed_arrows((ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"))


def test_every_import_is_an_arrow_of_the_table(modules, table):
    assert forbidden(own_imports(modules), table) == []


def test_the_table_names_what_there_is(modules, table):
    groups = {group_of(module) for module in modules}
    assert set(table) == groups
    assert set.union(*table.values()) <= groups


def test_the_table_has_no_cycle(table):
    assert list(graphlib.TopologicalSorter(table).static_order())


def test_modules_have_no_cycle(modules):
    graph = own_imports(modules)
    assert len(graph) > 40
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_are_imported_inside_functions_only(package, modules):
    assert early_imports(modules, package, LATE if package == "detectron2" else set()) == []


def test_every_late_module_needs_to_be_one(modules):
    early = {module for module in LATE if module in early_imports(modules, "detectron2", LATE - {module})}
    assert early == LATE


def test_programs_do_not_hide_other_modules():
    """A program's folder comes first on its path, so a file named like a module would replace that module."""
    ours = {path.stem for folder in DOORS for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert ours, "there are programs"
    places = [sysconfig.get_paths()[name] for name in ("purelib", "platlib")]
    assert {name for name in ours if PathFinder.find_spec(name, places)} == set()
    assert PathFinder.find_spec("pytest", places)
    assert ours & sys.stdlib_module_names == set()


# The rules themselves, on made-up code.


def graph_of(**code: str) -> dict[str, set[str]]:
    return own_imports({name.replace("__", "."): ast.parse(text) for name, text in code.items()})


def test_forbidden_arrows_are_found():
    graph = graph_of(
        siamtransfer__utils__errors="",
        siamtransfer__data__registry="",
        siamtransfer__programs__knn="from siamtransfer.data import registry",
        siamtransfer__programs__linear="def f():\n    from siamtransfer.programs.knn import main",
        siamtransfer__views__crop="def f():\n    from siamtransfer.data.registry import g",
        siamtransfer__data__folders="from siamtransfer.utils.errors import UserError",
        siamtransfer__utils__files="import eval.knn",
        eval__knn="from siamtransfer.programs.knn import main",
    )
    wrong = forbidden(graph, {"data": {"utils"}, "eval": {"programs"}, "programs": {"data"}})
    assert wrong == [
        "siamtransfer.programs.linear imports the program siamtransfer.programs.knn",
        "siamtransfer.views.crop imports siamtransfer.data.registry: views -> data is not in the table",
        "siamtransfer.utils.files imports the door eval.knn",
    ]


def test_cycles_are_found():
    graph = graph_of(
        siamtransfer__a="import siamtransfer.b", siamtransfer__b="def f():\n    import siamtransfer.a"
    )
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("code", "early"),
    [
        ("import siamtransfer.a.late", ["siamtransfer.a.user"]),
        ("from siamtransfer.a.late import Trainer", ["siamtransfer.a.user"]),
        ("from siamtransfer.a import late", ["siamtransfer.a.user"]),
        ("def f():\n    from siamtransfer.a.late import Trainer", []),
        ("import faiss", ["siamtransfer.a.user"]),
    ],
)
def test_late_modules_are_imported_inside_functions_only(code, early):
    modules = {
        "siamtransfer.a.late": ast.parse("import faiss\nfrom siamtransfer.a.second import Hook"),
        "siamtransfer.a.second": ast.parse("from faiss import x"),
        "siamtransfer.a.user": ast.parse(code),
    }
    assert early_imports(modules, "faiss", {"siamtransfer.a.late", "siamtransfer.a.second"}) == early


@pytest.mark.parametrize(
    ("code", "early"),
    [
        ("import faiss", True),
        ("try:\n    from faiss.contrib import x\nexcept ImportError:\n    pass", True),
        ("class A:\n    if True:\n        import faiss", True),
        ("def f():\n    import faiss", False),
        ("class A:\n    def f(self):\n        import faiss", False),
    ],
)
def test_early_imports_are_found(code, early):
    assert any(name.startswith("faiss") for name in top_level_imports(ast.parse(code))) == early
