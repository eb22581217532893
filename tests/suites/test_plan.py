"""From a suite's file and the words of the command line to checked command lines; nothing runs here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from siamtransfer.cli.main import program
from siamtransfer.cli.parser import Schema
from siamtransfer.cli.shipped import shipped_configs
from siamtransfer.programs.suite import main
from siamtransfer.suites.backbones import find_backbones
from siamtransfer.suites.cell import Cell
from siamtransfer.suites.measuring import resuming
from siamtransfer.suites.run import prepare
from siamtransfer.suites.suite_file import read_suite
from siamtransfer.suites.words import Vocabulary
from siamtransfer.utils.errors import UserError

SCENES = "data: {name: fashion-scenes}\n"
SHIPPED = [name.removeprefix("suites/") for name in shipped_configs() if name.startswith("suites/")]


def cells_of(tmp_path: Path, text: str, *words: str) -> list[Cell]:
    """The cells of a suite's text; for an untrained network where no checkpoint is among the words."""
    file = tmp_path / "some.yaml"
    file.write_text(text, encoding="utf-8")
    named = any("random:" in word or word == "pixels" for word in words) or "backbones" in text
    source = [] if named else ["net=random:resnet18"]
    return prepare(main.parse([*source, *words, "--config", str(file), "--out", str(tmp_path / "out")])).cells


def commands(cells: Sequence[Cell], out: Path) -> list[str]:
    return [" ".join(cell.command).replace(str(out), "OUT") for cell in cells]


def test_a_cell_is_the_command_that_a_person_would_write(tmp_path: Path) -> None:
    text = SCENES + "tasks: {knn: {options: {k: [5, 7], uniform: true}}, head: {program: linear}}"
    cells = cells_of(tmp_path, text)
    assert commands(cells, tmp_path / "out") == [
        "knn random:resnet18 --data.name fashion-scenes --k 5 7 --uniform --record OUT/net/knn.json",
        "linear random:resnet18 --data.name fashion-scenes --record OUT/net/head.json",
    ]


def test_cells_of_one_backbone_and_set_follow_each_other(tmp_path: Path) -> None:
    text = "sets: {a: {name: fashion-scenes}, b: {name: fashion-objects}}\ntasks: {knn: , linear: }"
    cells = cells_of(tmp_path, text, "x=random:resnet18", "y=random:resnet34")
    assert [cell.id for cell in cells] == [
        *("x/a-knn", "x/a-linear", "x/b-knn", "x/b-linear"),
        *("y/a-knn", "y/a-linear", "y/b-knn", "y/b-linear"),
    ]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--data.root", "own"], "--data.name folder --data.root own"),
        (["--data.name", "cifar10", "--data.root", "own"], "--data.name cifar10 --data.root own"),
        (["--data.count", "50"], "--data.name fashion-scenes --data.count 50"),
        (["--device", "cpu"], "--data.name fashion-scenes --device cpu"),
    ],
)
def test_the_command_line_says_which_images_and_where(tmp_path: Path, words: list[str], shown: str) -> None:
    (cell,) = cells_of(tmp_path, SCENES + "tasks: {knn: }", *words)
    assert shown in " ".join(cell.command)


def test_a_root_is_that_of_all_sets_but_those_with_one_of_their_own(tmp_path: Path) -> None:
    text = "sets: {food101: {name: food101}, cars: {name: cars}}\ntasks: {knn: }"
    food, cars = cells_of(tmp_path, text, "--data.root", "/all", "--roots", "cars=/cars")
    assert food.command[food.command.index("--data.root") + 1] == "/all"
    assert cars.command[cars.command.index("--data.root") + 1] == "/cars"


def test_places_are_filled_and_take_no_part_in_what_a_measurement_is(tmp_path: Path) -> None:
    text = SCENES + (
        "tasks: {diagnose: {options: {spectrum: '{cell}.png'}, writes: ['{cell}.png']},"
        " to-d2: {options: {out: '{folder}/to-d2.pkl'}}}"
    )
    first, second = cells_of(tmp_path, text)
    base = tmp_path / "out" / "net"
    assert f"--spectrum {base}/diagnose.png" in " ".join(first.command)
    assert first.writes == [base / "diagnose.png"]
    assert first.identity["spectrum"] == "{cell}.png"
    assert second.command == ("to-d2", "random:resnet18", f"{base}/to-d2.pkl")


def test_what_reads_the_output_of_another_follows_it_and_is_not_left_alone(tmp_path: Path) -> None:
    text = SCENES + (
        "tasks: {detection: {options: {config: [scenes-fpn], weights: '{folder}/x.pkl'}, after: to-d2},"
        " to-d2: {options: {out: '{folder}/x.pkl'}}, knn: }"
    )
    everything = cells_of(tmp_path, text)
    assert [cell.name for cell in everything] == ["to-d2", "knn", "detection"]
    assert [cell.name for cell in cells_of(tmp_path, text, "--only", "detection")] == ["to-d2", "detection"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--only", "knn"], ["x/a-knn", "x/b-knn", "y/a-knn", "y/b-knn"]),
        (["--only", "y", "--skip", "b"], ["y/a-knn", "y/a-linear"]),
        (["--only", "x/a-*"], ["x/a-knn", "x/a-linear"]),
        (["--skip", "linear", "x"], ["y/a-knn", "y/b-knn"]),
    ],
)
def test_only_and_skip_choose_tasks_sets_backbones_and_cells(
    tmp_path: Path, words: list[str], names: list[str]
) -> None:
    text = "sets: {a: {name: fashion-scenes}, b: {name: fashion-objects}}\ntasks: {knn: , linear: }"
    cells = cells_of(tmp_path, text, "x=random:resnet18", "y=random:resnet34", *words)
    assert [cell.id for cell in cells] == names


def test_options_of_a_backbone_go_to_every_program_that_reads_it(tmp_path: Path) -> None:
    text = SCENES + (
        "tasks: {knn: , to-d2: {options: {out: '{folder}/x.pkl'}}}\n"
        "backbones: {net: {checkpoint: 'random:resnet18', stem: small, layers: layer4}}"
    )
    knn, convert = cells_of(tmp_path, text)
    assert "--stem small" in " ".join(knn.command)
    assert "--layers layer4" in " ".join(knn.command)
    assert "--stem small" in " ".join(convert.command)
    assert "--layers" not in convert.command


def test_tasks_are_left_out_for_sources_that_they_do_not_take(tmp_path: Path) -> None:
    text = SCENES + "tasks: {knn: , linear: {skip_for: [pixels]}, fewshot: {skip_for: ['random:']}}"
    cells = cells_of(tmp_path, text, "pixels", "net=random:resnet18")
    assert [cell.id for cell in cells] == ["pixels/knn", "pixels/fewshot", "net/knn", "net/linear"]


def test_a_program_goes_on_in_the_state_that_it_has_kept(tmp_path: Path) -> None:
    text = SCENES + "tasks: {linear: {options: {protocol: simsiam, run: '{cell}-run'}}, knn: }"
    linear, knn = cells_of(tmp_path, text)
    run = tmp_path / "out" / "net" / "linear-run"
    assert resuming(linear) == linear.command
    run.mkdir(parents=True)
    assert resuming(linear) == linear.command
    (run / "probe.pth").write_bytes(b"state")
    assert resuming(linear) == (*linear.command, "--resume")
    assert resuming(knn) == knn.command


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear", {"protocol": "sweep", "lrs": [0.1, 1e-05], "augment": True, "standardise": False}),
        ("linear", {"selections": ["layer4", "layer3+layer4"], "weight_decay": None, "data.download": False}),
        ("knn", {"k": [5], "baselines": None, "temperature": [0.07], "data.value_range": [-1.0, 1.0]}),
        ("knn", {"checkpoint": "a b.pth", "branch": "-x", "data.root": "--odd", "data.list_file": ""}),
        ("svm", {"low_shot": [], "one_hot": True}),
        ("diagnose", {"checkpoints": ["a.pth"], "sample": 0}),
        ("detection", {"config": ["base-c4", "x.yaml"], "settings": ["SOLVER.BASE_LR", "0.04"]}),
        ("to-d2", {"checkpoint": "a.pth", "out": "b.pkl", "stride_in_1x1": False, "force": True}),
    ],
)
def test_words_mean_the_options_that_they_were_made_of(name: str, options: dict[str, Any]) -> None:
    command = program(name)
    parsed = command.parse(Vocabulary(name, command).words(options))
    for key, value in options.items():
        found: Any = parsed
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value, key
    others = set(Schema(command.config).options) - set(options)
    usual = command.config()
    for key in (key for key in others if "." not in key):
        assert getattr(parsed, key) == getattr(usual, key), key


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (
            "tasks: {knn: {optoins: {k: 3}}}",
            [],
            "tasks.knn: there is no key 'optoins'; did you mean options?",
        ),
        (SCENES + "tasks: {knn: {options: {kk: 3}}}", [], "tasks.knn.options: knn: there is no option kk"),
        (
            SCENES + "tasks: {knn: {options: {k: three}}}",
            [],
            "net/knn (…tasks.knn): k is '[three]', but must be INT",
        ),
        (SCENES + "tasks: {knn: {options: {k: [0]}}}", [], "net/knn (…tasks.knn): --k must be at least 1"),
        ("tasks: {knnn: }", [], "there is no program 'knnn'; did you mean knn?"),
        ("tasks: {report: }", [], "report measures no checkpoint, so it is no task of a suite"),
        ("tasks: {a.b: {program: knn}}", [], "'a.b' is to be the name of a file"),
        ("tasks: [knn]", [], "tasks is …, but must be a section"),
        ("tasks: {knn: 3}", [], "tasks.knn is '3', but must be a section"),
        ("tasks: {knn: {alone: 1}}", [], "tasks.knn.alone is 1, but must be true or false"),
        ("tasks: {knn: {skip_for: pixels}}", [], "tasks.knn.skip_for is 'pixels', but must be a list"),
        ("task: {knn: }", [], "there is no key 'task'; did you mean tasks?"),
        ("", [], "a suite needs tasks"),
        ("tasks: {knn: ", [], "this is no YAML"),
        (SCENES + "sets: {a: }\ntasks: {knn: }", [], "leave one out"),
        (SCENES + "tasks: {knn: {sets: [a]}}", [], "tasks.knn.sets: there is no set 'a'"),
        (
            "sets: {a: {nam: x}}\ntasks: {knn: }",
            [],
            "sets.a: no program of …some.yaml has an option data.nam",
        ),
        ("sets: {a: }\ntasks: {knn: }", [], "does not say on which images knn runs"),
        ("tasks: {knn: }", [], "does not say on which images knn runs: name them by --data.name"),
        (SCENES + "tasks: {knn: {after: linear}}", [], "tasks.knn.after: there is no task 'linear'"),
        (SCENES + "tasks: {knn: {after: knn}}", [], "tasks.knn.after: there is no task 'knn'"),
        (SCENES + "tasks: {knn: }\noptions: {presicion: float32}", [], "options: no program of …presicion"),
        (SCENES + "tasks: {knn: }\nbackbones: {x: {chekpoint: y}}", [], "must be a checkpoint, or a section"),
        (
            SCENES + "tasks: {knn: }\nbackbones: {x: {checkpoint: 'random:resnet18', brunch: y}}",
            [],
            "backbones.x: no program of …some.yaml has an option brunch",
        ),
        (
            "sets: {a: {name: fashion-scenes}, a-b: {name: fashion-objects}}\n"
            "tasks: {b-knn: {program: knn}, knn: }",
            [],
            "two cells have the name a-b-knn",
        ),
        ("sets: {a: {name: food101}}\ntasks: {knn: }", ["--data.name", "cars"], "names its sets itself"),
        (SCENES + "tasks: {knn: }", ["--roots", "x"], "--roots x must be SET=FOLDER"),
        (SCENES + "tasks: {knn: }", ["--roots", "x=y"], "has no such set or task"),
        (
            SCENES + "tasks: {knn: }",
            ["--only", "linear"],
            "--only linear matches no task, set, backbone or cell",
        ),
        (SCENES + "tasks: {knn: }", ["--skip", "*"], "--only and --skip leave nothing"),
        (SCENES + "tasks: {knn: }", ["--parallel", "0"], "--parallel is 0, but must be at least 1"),
        (SCENES + "tasks: {knn: }", ["a=random:resnet18", "A=random:resnet34"], "have the same label A"),
        (SCENES + "tasks: {knn: }", ["lock=random:resnet18"], "label 'lock' of random:resnet18"),
        (SCENES + "tasks: {knn: }", ["a=nowhere.pth", "random:resnet18"], "there is no file nowhere.pth"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(
    tmp_path: Path, text: str, words: list[str], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        cells_of(tmp_path, text, *words)
    assert all(piece in str(caught.value) for piece in message.split("…")), caught.value
    assert not (tmp_path / "out").exists()


def test_neither_a_suite_nor_a_checkpoint_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a suite by --config"):
        prepare(main.parse(["random:resnet18"]))
    with pytest.raises(UserError, match="did you mean quick"):
        prepare(main.parse(["random:resnet18", "--config", "quik"]))
    with pytest.raises(UserError, match="give a checkpoint or more"):
        prepare(main.parse(["--config", "quick"]))


def test_labels_say_which_file_is_which(tmp_path: Path) -> None:
    for name in ("moco.pth.tar", "runs/a/checkpoint.pth", "runs/b/checkpoint.pth", "one/x.pth", "two/x.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "odd=name.pth").write_bytes(b"weights")
    names = ["moco.pth.tar", "runs/a/checkpoint.pth", "runs/b/checkpoint.pth", "one/x.pth", "two/x.pth"]
    words = [*(str(tmp_path / name) for name in names), f"mine={tmp_path / 'moco.pth.tar'}"]
    words += [str(tmp_path / "odd=name.pth"), "timm:resnet50.a1_in1k", "random:resnet18:width=8", "pixels"]
    labels = [backbone.label for backbone in find_backbones(words, {}, "")]
    assert labels == [
        *("moco", "a", "b", "one-x", "two-x", "mine"),
        *("odd-name", "timm-resnet50.a1_in1k", "random-resnet18-width-8", "pixels"),
    ]


def test_a_stamp_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    for place in ("a.pth", "hub/model.safetensors"):
        (tmp_path / place).write_bytes(b"weights")
    first = [b.stamp() for b in find_backbones([str(tmp_path / "a.pth"), str(tmp_path / "hub")], {}, "")]
    (tmp_path / "hub" / "config.json").write_bytes(b"{}")
    second = [b.stamp() for b in find_backbones([str(tmp_path / "a.pth"), str(tmp_path / "hub")], {}, "")]
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert first[0] == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_suite_is_a_suite(name: str, tmp_path: Path) -> None:
    file = shipped_configs()[f"suites/{name}"]
    suite = read_suite(file)
    words = ["net=random:resnet50", "--config", name, "--out", str(tmp_path), "--data.root", str(tmp_path)]
    cells = prepare(main.parse(words)).cells
    assert {cell.task.name for cell in cells} == set(suite.tasks)


def test_a_file_whose_name_begins_like_an_option_is_a_value() -> None:
    vocabulary = Vocabulary("knn", program("knn"))
    words = vocabulary.words({"checkpoint": "-odd.pth", "record": "a.json"})
    assert words == ["--checkpoint=-odd.pth", "--record", "a.json"]
    assert program("knn").parse(words).checkpoint == "-odd.pth"
