"""Suites that run: in processes of their own, on a folder of 60 small pictures, with a network of width 4."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.pictures import write_parts

from siamtransfer.cli.main import program
from siamtransfer.programs.suite import main
from siamtransfer.records.predictions import read_record
from siamtransfer.suites.folder import SuiteFolder, read_state
from siamtransfer.utils.errors import UserError

NETWORK = "random:resnet18:width=4:stem=small"
SUITE = """
data: {name: folder}
options: {crop: 16, resize: 16, data.workers: 0}
tasks:
  knn: {options: {k: [3], baselines: false}}
  linear: {options: {strengths: [1.0]}, skip_for: [pixels]}
  broken: {program: knn, options: {layers: layer9, baselines: false}, skip_for: [pixels]}
  second: {program: knn, options: {layers: layer9}, after: broken, skip_for: [pixels]}
  names: {program: to-torchvision, options: {out: "{cell}.pth", force: true}, writes: ["{cell}.pth"],
          skip_for: [pixels]}
"""


class World:
    """A suite's file, pictures, and a folder for the records."""

    def __init__(self, root: Path, text: str = SUITE):
        self.root, self.out, self.pictures = root, root / "out", root / "pictures"
        self.file = root / "small.yaml"
        self.file.write_text(text, encoding="utf-8")
        if not self.pictures.exists():
            write_parts(self.pictures)

    def words(self, *more: str, net: str = NETWORK) -> list[str]:
        places = [
            "--data.root",
            str(self.pictures),
            "--out",
            str(self.out),
            "--cache",
            str(self.root / "cache"),
        ]
        return [f"net={net}", "pixels", "--config", str(self.file), *places, "--device", "cpu", *more]

    def run(self, *more: str, net: str = NETWORK) -> dict[str, Any] | None:
        return main(self.words("--no-report", *more, net=net))

    def record(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / f"{name}.json").read_text(encoding="utf-8"))
        return record

    def times(self) -> dict[str, str]:
        return {name: entry["time"] + str(entry["seconds"]) for name, entry in self.state().items()}

    def state(self) -> dict[str, Any]:
        return read_state(self.out / "suite.json").cells


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A suite that has run, of which one task failed; tests only look at it."""
    world = World(tmp_path_factory.mktemp("suite"))
    with pytest.raises(UserError, match="2 of 6 measurements failed: net/broken, net/second"):
        world.run()
    return world


@pytest.fixture
def world(finished: World, tmp_path: Path) -> World:
    """A copy of it to change."""
    shutil.copytree(finished.root, tmp_path, dirs_exist_ok=True)
    return World(tmp_path)


def test_a_record_of_a_suite_is_that_of_its_command(finished: World, tmp_path: Path) -> None:
    record = finished.record("net/knn")
    words = record["provenance"]["command"]
    assert words[0] == "siamtransfer"
    assert words[-2:] == ["--record", str(finished.out / "net" / "knn.json")]
    alone = program(words[1])([*words[2:-1], str(tmp_path / "alone.json")])
    assert alone["metrics"] == record["metrics"]
    assert json.loads(json.dumps(alone["protocol"])) == record["protocol"]
    assert record["provenance"]["predictions_digest"] == alone["provenance"]["predictions_digest"]


def test_a_program_that_writes_no_record_itself_has_one(finished: World) -> None:
    record = finished.record("net/names")
    assert record["task"].endswith("torchvision")
    assert (finished.out / "net" / "names.pth").is_file()
    assert "net/names.pth" in finished.state()["net/names"]["files"]


def test_features_are_computed_once_for_a_backbone_and_a_set(finished: World) -> None:
    logs = {path.stem: path.read_text(encoding="utf-8") for path in (finished.out / "net").glob("*.log")}
    passes = {name: log.count("extracting features") for name, log in logs.items()}
    assert passes["knn"] == 2  # train and test
    assert passes["linear"] == 0
    assert "linear/top1" in logs["linear"]


def test_what_failed_is_kept_with_its_message_and_its_command(finished: World) -> None:
    broken = json.loads((finished.out / "net" / "broken.failed.json").read_text(encoding="utf-8"))
    assert "layer9" in broken["message"]
    assert broken["command"][:3] == ["siamtransfer", "knn", NETWORK]
    assert broken["exit"] == 2
    second = json.loads((finished.out / "net" / "second.failed.json").read_text(encoding="utf-8"))
    assert second["message"] == "it needs net/broken, which was not measured"
    assert not (finished.out / "net" / "broken.json").exists()


def test_the_ranks_and_what_to_do_are_said(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--retry-failed tries again"):
        world.run()
    said = capsys.readouterr().err
    assert "6 measurements, 4 done and 0 to do" in said
    assert "net/broken has failed before" in said
    assert "mean rank" in said
    rows = [line.split()[0] for line in said.splitlines() if line.strip()]
    assert {"net", "pixels"} <= set(rows)  # by the labels of the suite


def test_a_second_run_measures_nothing_and_a_third_what_failed(world: World) -> None:
    before, failed = world.times(), (world.out / "net" / "broken.failed.json").read_bytes()
    with pytest.raises(UserError, match="2 of 6"):
        world.run()
    assert world.times() == before
    assert (world.out / "net" / "broken.failed.json").read_bytes() == failed
    world.file.write_text(SUITE.replace("layer9", "layer4"), encoding="utf-8")  # the user mends the suite
    record = world.run()
    assert record is not None
    assert record["metrics"] == {
        "suite/measurements": 6,
        "suite/measured_now": 2,
        "suite/done_before": 4,
        "suite/not_measured": 0,
    }
    assert {name: world.times()[name] for name in before} == before
    assert not list(world.out.rglob("*.failed.json"))


def test_other_options_weights_and_images_are_never_mixed(world: World) -> None:
    only = ("--only", "knn", "linear")
    before = world.times()
    world.file.write_text(SUITE.replace("k: [3]", "k: [4]"), encoding="utf-8")
    with pytest.raises(UserError, match=r"net/knn \(k \[3\] instead of \[4\]\) and 1 more; --replace"):
        world.run(*only)
    world.file.write_text(SUITE, encoding="utf-8")
    with pytest.raises(UserError, match=r"net/knn \(other weights\) and 1 more"):
        world.run(*only, net=f"{NETWORK}:seed=1")
    shutil.copy(world.pictures / "train/left/00.png", world.pictures / "train/upper/20.png")
    with pytest.raises(UserError, match=r"net/knn \(other images\) and 2 more"):
        world.run(*only)
    assert world.times() == before
    (world.pictures / "train/upper/20.png").unlink()
    moved = world.pictures.rename(world.root / "moved")  # the same images elsewhere
    record = world.run(*only, "--data.root", str(moved))
    assert record is not None
    assert record["metrics"]["suite/done_before"] == 3


def test_replace_measures_again_what_differs_and_no_more(world: World) -> None:
    before = world.times()
    world.file.write_text(SUITE.replace("strengths: [1.0]", "strengths: [0.5]"), encoding="utf-8")
    record = world.run("--replace", "--only", "knn", "linear")
    assert record is not None
    assert record["metrics"]["suite/measured_now"] == 1
    assert world.record("net/linear")["protocol"] != {}
    assert {name for name, when in world.times().items() if before.get(name) != when} == {"net/linear"}


def test_damaged_files_are_measured_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["net/linear.npz", "net/names.pth", "pixels/knn.json"]
    for name in names:
        (world.out / name).write_bytes((world.out / name).read_bytes()[:-2])
    record = world.run("--skip", "broken", "second")
    assert record is not None
    assert record["metrics"]["suite/measured_now"] == 3
    said = capsys.readouterr().err
    assert all(f"{world.out / name} is not as it was written" in said for name in names)
    assert read_record(world.out / "pixels/knn.json").record["task"] == "knn"


def test_a_record_of_somebody_else_is_not_overwritten(world: World) -> None:
    state = json.loads((world.out / "suite.json").read_text(encoding="utf-8"))
    del state["cells"]["net/linear"]
    (world.out / "suite.json").write_text(json.dumps(state), encoding="utf-8")
    (world.out / "suite.json.sha256").unlink()
    foreign = world.record("net/linear")
    foreign["provenance"]["command"] = ["siamtransfer", "linear", "other.pth"]
    (world.out / "net" / "linear.json").write_text(json.dumps(foreign), encoding="utf-8")
    with pytest.raises(UserError, match="1 of 1 measurements failed"):
        world.run("--only", "linear")
    assert world.record("net/linear") == foreign
    failed = json.loads((world.out / "net" / "linear.failed.json").read_text(encoding="utf-8"))
    assert "is no record of this suite" in failed["message"]


def test_a_folder_is_of_one_suite_and_one_process(world: World) -> None:
    other = world.root / "other.yaml"
    other.write_text(SUITE, encoding="utf-8")
    with pytest.raises(UserError, match="holds the suite small, not other"):
        main([*world.words(), "--config", str(other)])
    with pytest.raises(UserError, match="is a file, and a suite is kept in a folder"):
        main([*world.words(), "--out", str(world.file)])
    with pytest.raises(UserError, match="holds something else than a suite"):
        SuiteFolder(world.pictures, "small")
    code = (
        "import sys; from pathlib import Path; from siamtransfer.suites.folder import SuiteFolder; "
        "SuiteFolder(Path(sys.argv[1]), 'small')"
    )
    with SuiteFolder(world.out, "small"):
        second = subprocess.run(
            [sys.executable, "-c", code, str(world.out)], capture_output=True, text=True, check=False
        )
    assert "is in use by process" in second.stderr
    assert "choose another --out" in second.stderr
    (world.out / "suite.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"suite.json is damaged: .* move it away"):
        SuiteFolder(world.out, "small")


def test_sets_that_are_absent_are_said_before_anything_runs(world: World, tmp_path: Path) -> None:
    text = SUITE.replace("data: {name: folder}", "sets: {here: {name: folder}, there: {name: food101}}")
    world.file.write_text(text, encoding="utf-8")
    world.out = tmp_path / "fresh"
    only = ("--only", "knn", "--roots", "there=/nowhere")
    with pytest.raises(
        UserError, match=r"/nowhere.*\(for net/there-knn, pixels/there-knn\); --roots .*; --skip-missing"
    ):
        world.run(*only)
    assert not world.out.exists()
    record = world.run(*only, "--skip-missing")
    assert record is not None
    assert record["metrics"]["suite/not_measured"] == 2
    assert sorted(read_state(world.out / "suite.json").not_measured) == ["net/there-knn", "pixels/there-knn"]
    assert sorted(world.state()) == ["net/here-knn", "pixels/here-knn"]


def test_a_dry_run_prints_commands_and_writes_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(world.root.rglob("*"))
    assert main(world.words("--dry-run", "--only", "knn", "broken")) is None
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("--record")[0].split()[:4] for line in lines] == [
        ["#", "done:", "siamtransfer", "knn"],
        ["siamtransfer", "knn", NETWORK, "--crop"],
        ["#", "done:", "siamtransfer", "knn"],
    ]
    assert sorted(world.root.rglob("*")) == before
