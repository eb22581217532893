"""The script that fetches Detectron2: what it unpacks, recognises and refuses; nothing is downloaded here."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import get_detectron2
import pytest
from support import paths

SCRIPT = paths.SCRIPTS / "get_detectron2.py"
FILES = {
    "detectron2/__init__.py": '__version__ = "0.6"\n',
    "detectron2/layers/__init__.py": "",
    "detectron2/data/build.py": "histogram = np.zeros(3, dtype=np.int)\nkept = np.bool_(np.int64(1))\n",
    "detectron2/model_zoo/model_zoo.py": "import os\nimport pkg_resources\nimport torch\n\n"
    'file = pkg_resources.resource_filename(\n    "detectron2.model_zoo", os.path.join("configs", name)\n)\n',
    "detectron2/utils/visualizer.py": "import math\nimport cv2\nimport numpy\n",
    "detectron2/model_zoo/configs/Base-RCNN-C4.yaml": "MODEL: {}\n",
    "LICENSE": "Apache\n",
    "setup.py": "raise SystemExit('must not run')\n",
    "tools/train_net.py": "",
    "detectron2/../../escaped.py": "",
}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with an archive of its own pinned."""
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        for name, text in FILES.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("pb1-detectron2-0.6/detectron2/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    digest = hashlib.sha256((tmp_path / "archive.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(get_detectron2, "ARCHIVE_SHA256", digest)
    (tmp_path / "site").mkdir()
    return get_detectron2


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_only_the_package_is_placed_with_metadata_that_pip_knows(tmp_path: Path, script: ModuleType) -> None:
    site = tmp_path / "site"
    script.place_package(tmp_path / "archive.tar.gz", site)
    info = "detectron2-0.6.dist-info"
    package = {name for name in FILES if name.startswith("detectron2/") and ".." not in name}
    metadata = {f"{info}/{name}" for name in ("LICENSE", "INSTALLER", "METADATA", "RECORD")}
    assert files_of(site) == package | metadata | {"detectron2/_C.py"}
    (found,) = importlib.metadata.distributions(name="detectron2", path=[str(site)])
    assert found.version == "0.6"
    assert {str(file) for file in found.files or ()} == files_of(site)
    assert {path.name for path in tmp_path.iterdir()} == {"archive.tar.gz", "site"}


def read(site: Path, name: str) -> str:
    return (site / "detectron2" / name).read_text()


def test_lines_that_current_libraries_do_not_run_are_changed(tmp_path: Path, script: ModuleType) -> None:
    site = tmp_path / "site"
    script.place_package(tmp_path / "archive.tar.gz", site)
    assert read(site, "data/build.py") == "histogram = np.zeros(3, dtype=int)\nkept = np.bool_(np.int64(1))\n"
    zoo = read(site, "model_zoo/model_zoo.py")
    assert "pkg_resources" not in zoo
    place = {"name": "a.yaml", "__file__": str(site / "m.py")}
    exec(zoo.replace("import torch\n", ""), place)
    assert place["file"] == str(site / "configs" / "a.yaml")
    assert read(site, "utils/visualizer.py") == "import math\nimport numpy\n"


def test_the_stand_in_answers_the_report_and_names_the_cure(tmp_path: Path, script: ModuleType) -> None:
    script.place_package(tmp_path / "archive.tar.gz", tmp_path / "site")
    spec = importlib.util.spec_from_file_location("stand_in", tmp_path / "site/detectron2/_C.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (
        module.get_compiler_version() == module.get_cuda_version() == "none: the Python files of release 0.6"
    )
    assert not module.has_cuda()
    with pytest.raises(AttributeError, match=r"_C\.box_iou_rotated is in the compiled part .* --official$"):
        _ = module.box_iou_rotated


def test_files_that_an_earlier_version_placed_are_mended_once(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network: what pip knows of them is true afterwards."""
    site = tmp_path / "site"
    script.place_package(tmp_path / "archive.tar.gz", site)
    (site / "detectron2" / "_C.py").unlink()
    (site / "detectron2" / "data" / "build.py").write_text(FILES["detectron2/data/build.py"])
    assert kind_seen_from(site) == "release"
    monkeypatch.setattr(script.sysconfig, "get_paths", lambda: {"purelib": str(site)})
    monkeypatch.setattr(script, "installed_kind", lambda: "release")
    assert script.install(release=False, official=False).startswith("detectron2 mended: ")
    assert "np.int)" not in read(site, "data/build.py")
    (found,) = importlib.metadata.distributions(name="detectron2", path=[str(site)])
    assert {str(file) for file in found.files or ()} == files_of(site)
    assert script.install(release=False, official=False).startswith("detectron2 is already installed: ")
    assert kind_seen_from(site) == "release"


def test_another_digest_installs_nothing(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ARCHIVE_SHA256", "0" * 64)
    with pytest.raises(script.InstallError, match=r"has digest .*nothing was installed"):
        script.place_package(tmp_path / "archive.tar.gz", tmp_path / "site")
    assert files_of(tmp_path / "site") == set()


def test_a_leftover_of_an_interrupted_run_is_replaced(tmp_path: Path, script: ModuleType) -> None:
    leftover = tmp_path / "site" / "detectron2-0.6.dist-info"
    leftover.mkdir()
    (leftover / "OLD").touch()
    script.place_package(tmp_path / "archive.tar.gz", tmp_path / "site")
    assert not (leftover / "OLD").exists()
    assert (leftover / "RECORD").is_file()


def kind_seen_from(folder: Path) -> str:
    """What a fresh Python that sees only `folder` and the standard library takes its detectron2 for."""
    program = (
        "import importlib.util as u; s = u.spec_from_file_location('g', r'%s'); m = u.module_from_spec(s)\n"
        "s.loader.exec_module(m)\n"
        "try: print(m.installed_kind())\n"
        "except m.InstallError as e: print('error:', e)"
    )
    command = [sys.executable, "-S", "-c", program % SCRIPT]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": f"{folder}:{paths.SCRIPTS}"},
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return done.stdout.strip()


def test_the_kinds_are_told_apart(tmp_path: Path, script: ModuleType) -> None:
    site = tmp_path / "site"
    assert kind_seen_from(site) == "None"
    (site / "detectron2").mkdir()  # a clone's outer folder is not the package
    assert kind_seen_from(site) == "None"
    (site / "detectron2" / "__init__.py").touch()
    assert kind_seen_from(site).startswith("error:")
    (site / "detectron2" / "_C.cpython-311-x86_64-linux-gnu.so").touch()
    assert kind_seen_from(site) == "official"
    for path in (site / "detectron2").iterdir():
        path.unlink()
    (site / "detectron2").rmdir()
    script.place_package(tmp_path / "archive.tar.gz", site)
    assert kind_seen_from(site) == "release"


@pytest.mark.parametrize(
    ("present", "release", "official", "outcome"),
    [
        ("release", False, False, "already installed: the Python files"),
        ("release", True, False, "already installed: the Python files"),
        ("official", False, False, "already installed: the official"),
        ("official", False, True, "already installed: the official"),
        ("official", True, False, "error: the official build is installed"),
        ("release", False, True, "error: no compiler"),
        (None, False, True, "error: no compiler"),
        (None, False, False, "installed: the Python files"),
        (None, True, False, "installed: the Python files"),
    ],
)
def test_which_of_the_two_is_installed(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    present: str | None,
    release: bool,
    official: bool,
    outcome: str,
) -> None:
    placed: list[Path] = []
    monkeypatch.setattr(script, "installed_kind", lambda: present)
    monkeypatch.setattr(script, "build_official", lambda: "no compiler")
    monkeypatch.setattr(script, "mend_placed", lambda folder: 0)
    monkeypatch.setattr(script, "download_archive", lambda scratch: scratch)
    monkeypatch.setattr(script, "place_package", lambda archive, folder: placed.append(folder))
    try:
        said = script.install(release=release, official=official)
    except script.InstallError as error:
        said = f"error: {error}"
    assert outcome in said
    assert len(placed) == (outcome == "installed: the Python files")


def test_a_repository_that_cannot_be_reached_is_named(script: ModuleType, tmp_path: Path) -> None:
    assert "cannot be reached" in script.unreachable(f"file://{tmp_path}/absent.git")


def test_a_plain_python_is_refused(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "in_environment", lambda: False)
    monkeypatch.setattr(sys, "argv", ["get_detectron2.py"])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 1
    assert "not in a virtual environment" in capsys.readouterr().err
