"""What a run chooses where its configuration says auto, and the words that lead to it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.pictures import write_shapes
from support.small_runs import TINY

import siamtransfer
from siamtransfer.config import PretrainConfig, read_saved_config
from siamtransfer.pretraining.auto import find_facts, look_at_sample, rounded_time, settle_source
from siamtransfer.pretraining.chosen_values import Facts, choose_values, speed_on_cpu
from siamtransfer.pretraining.images import open_chosen_images
from siamtransfer.programs.pretrain import main
from siamtransfer.utils.errors import UserError

LAPTOP = Facts(images=577, side=300, device="cpu", memory=0.0, cores=2)
GPU = Facts(images=50_000, side=300, device="cuda", memory=80.0, cores=16)


def read(*words: str) -> PretrainConfig:
    return main.parse(["--data.root=my_images", *words])


def chosen(facts: Facts, *words: str) -> PretrainConfig:
    config = read("--data.name=flat", *words)
    choose_values(config, facts)
    assert config.undecided == ()
    config.check()
    config.optim.check(facts.ranks, facts.images)
    return config


def test_naming_images_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["my_images"], ["--data.root", "my_images"], ["--optim.lr", "0.1", "my_images"]):
        config = main.parse(words)
        assert config.data.root == "my_images"
        assert config.undecided == PretrainConfig.auto
        assert "own-folder, for images are named" in capsys.readouterr().err
    assert main.parse([]).data.name == "fashion-scenes"
    assert main.parse(["--data.name=fashion-objects"]).backbone.width == 16
    assert main.parse(["--config", "imagenet-resnet50-100ep", "--data.root=x"]).undecided == ()
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="named twice"):
        main.parse(["one", "--data.root=two"])


def test_the_python_function_takes_the_same_base(shapes_folder: Path, tmp_path: Path) -> None:
    small = {"optim": {"epochs": 1}, "backbone": {"width": 4}, "simclr": {"dim": 8, "hidden": 8}}
    result = siamtransfer.pretrain(
        data={"root": str(shapes_folder), "workers": 0}, run={"dir": str(tmp_path / "run")}, **small
    )
    assert result is not None
    assert result.protocol["config"]["data"]["name"] == "folder"
    assert result.protocol["config"]["method"]["name"] == "simclr"


def test_what_is_said_is_kept_and_what_is_auto_is_printed_as_auto(capsys: pytest.CaptureFixture[str]) -> None:
    config = read("--optim.epochs=7", "--views.size=32", "--backbone.name=auto")
    assert config.optim.epochs == 7
    assert {"optim.epochs", "views.size"}.isdisjoint(config.undecided)
    assert config.as_dict()["optim"]["batch_size"] == "auto"
    again = PretrainConfig.from_dict(config.as_dict())
    assert (again.undecided, again.as_dict()) == (config.undecided, config.as_dict())
    with pytest.raises(SystemExit):
        read("--print-config")
    assert "epochs: auto" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"optim\.lr is 'auto'"):
        read("--optim.lr=auto")


def test_a_laptop_trains_a_small_network_on_small_views() -> None:
    config = chosen(LAPTOP)
    assert (config.backbone.name, config.backbone.width, config.views.size) == ("resnet18", 32, 64)
    assert config.optim.batch_size == 64
    speed = speed_on_cpu(config, LAPTOP)
    assert speed is not None
    assert 5 <= config.optim.epochs * LAPTOP.images / speed / 60 <= 20
    slow = chosen(dataclasses.replace(LAPTOP, images=100_000))
    assert slow.optim.epochs == 20, "never fewer, however many images"
    wide = chosen(dataclasses.replace(LAPTOP, cores=32))
    assert wide.backbone.width == 64


def test_large_images_get_as_many_epochs_as_can_be_read_in_ten_minutes() -> None:
    large = dataclasses.replace(LAPTOP, images=100, reading=0.1)
    few, plenty = chosen(large), chosen(dataclasses.replace(large, reading=0.0001))
    assert few.optim.epochs == 60, "ten minutes, a worker, 0.1 s an image"
    assert plenty.optim.epochs == chosen(dataclasses.replace(large, reading=0.0)).optim.epochs > 60
    assert chosen(large, "--data.workers=2").optim.epochs == 120
    config = read("--data.name=flat")
    reason = choose_values(config, large)["optim.epochs"].reason
    assert "60 passes over 100 images should take about 10 minutes" in reason
    assert "reading an image takes 100 ms" in reason
    assert "siamtransfer pack IN OUT --size 256" in reason


def test_a_gpu_trains_what_was_usual() -> None:
    config = chosen(GPU)
    assert (config.backbone.name, config.backbone.width, config.views.size) == ("resnet50", 64, 224)
    assert (config.optim.batch_size, config.optim.epochs) == (256, 200)
    assert chosen(dataclasses.replace(GPU, memory=11.0)).optim.batch_size == 32
    few = chosen(dataclasses.replace(GPU, images=600))
    assert few.backbone.name == "resnet18"
    assert few.optim.epochs > 200


@pytest.mark.parametrize("images", [2, 3, 5, 8, 31, 40, 577, 5000])
def test_any_number_of_images_from_two_makes_a_run(images: int) -> None:
    config = chosen(dataclasses.replace(LAPTOP, images=images))
    assert 2 <= config.optim.batch_size <= images
    assert config.log.every <= max(1, images // config.optim.batch_size * config.optim.epochs // 20)


def test_batches_divide_among_ranks_and_a_single_image_is_refused() -> None:
    assert chosen(dataclasses.replace(LAPTOP, ranks=3)).optim.batch_size % 3 == 0
    with pytest.raises(UserError, match="the set has 1 image and a batch needs two"):
        chosen(dataclasses.replace(LAPTOP, images=1))
    with pytest.raises(UserError, match="for each of 4 processes"):
        chosen(dataclasses.replace(LAPTOP, images=7, ranks=4))


def test_small_images_are_not_enlarged() -> None:
    config = chosen(dataclasses.replace(LAPTOP, side=40))
    assert (config.views.size, config.backbone.stem) == (32, "small")
    assert chosen(dataclasses.replace(GPU, side=100)).views.size == 96


def test_other_values_suit_those_that_are_said() -> None:
    config = chosen(LAPTOP, "--backbone.name=resnet50", "--backbone.width=64", "--views.size=96")
    assert config.optim.epochs == 20
    assert chosen(LAPTOP, "--backbone.name=test_resnet").optim.epochs == 100, "its speed was not measured"


def test_the_run_does_not_mix_its_files_with_the_images(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "." / "x" / ".."):
        with pytest.raises(UserError, match=r"is the folder of the images, .* a folder of its own"):
            main.parse([str(tmp_path), f"--run.dir={folder}"]).check()
    main.parse([str(tmp_path), f"--run.dir={tmp_path / 'run'}"]).check()


def test_the_kind_of_set_is_seen_from_the_files(tmp_path: Path) -> None:
    (tmp_path / "classes").mkdir()
    write_shapes(tmp_path / "classes")
    assert kind_of(tmp_path / "classes") == "folder"
    flat = next(path for path in (tmp_path / "classes").iterdir() if path.is_dir())
    assert kind_of(flat) == "flat"
    Image.new("RGB", (9, 9)).save(tmp_path / "classes" / "beside.png")
    assert kind_of(tmp_path / "classes") == "flat", "no image of the folder is lost"
    (tmp_path / "list.txt").write_text("a.png\n")
    assert kind_of(tmp_path / "list.txt") == "list"
    for path, words in ((tmp_path / "none", "does not exist"), (next(flat.iterdir()), "single file")):
        with pytest.raises(UserError, match=words):
            kind_of(path)


def kind_of(path: Path) -> str:
    config = main.parse([f"--data.root={path}"])
    settle_source(config)
    if config.data.name == "list":
        assert (config.data.root, config.data.list_file) == (None, str(path))
    return config.data.name


def test_a_run_saves_what_it_chose_and_goes_on_with_it(
    shapes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """40 images of 20 x 24 pixels, from their name to a record and beyond its last epoch."""
    words = ["--hardware.device=cpu", "--data.workers=0", "--simclr.dim=32", "--backbone.width=8"]
    words += ["--log.tensorboard=false", f"--run.dir={tmp_path / 'run'}"]
    record = main([str(shapes_folder), *words, "--optim.epochs=2"])
    assert record is not None
    said = capsys.readouterr().err
    assert "chosen: optim.batch_size 8, because 40 images are few" in said
    saved = read_saved_config(tmp_path / "run")
    assert saved == json.loads(json.dumps(record["protocol"]["config"]))
    assert "auto" not in [saved["data"]["name"], *saved["optim"].values(), *saved["backbone"].values()]
    assert set(record["protocol"]["chosen"]) >= {"data.name", "views.size", "optim.batch_size"}
    assert record["metrics"]["health/std"] > 0, "a run of ten steps is checked too"
    longer = main(["--resume", str(tmp_path / "run"), "--optim.epochs=3"])
    assert longer is not None
    assert longer["protocol"]["extensions"] == [{"step": 10, "epochs_before": 2, "epochs": 3}]
    assert longer["protocol"]["chosen"] == record["protocol"]["chosen"]
    assert longer["protocol"]["steps"] == 15
    assert "optim.epochs 2 -> 3: from here on the schedule cosine-step" in capsys.readouterr().err
    with pytest.raises(UserError, match="can get more epochs, not fewer"):
        main(["--resume", str(tmp_path / "run"), "--optim.epochs=2"])
    main(["--resume", str(tmp_path / "run")])
    assert "the run has done all its 15 steps" in capsys.readouterr().err


def test_facts_of_images_in_memory_and_in_files(shapes_folder: Path) -> None:
    config = main.parse(TINY)
    images, reasons = open_chosen_images(config, torch.device("cpu"))
    assert (find_facts(images, torch.device("cpu")).side, reasons) == (32, {})
    config = main.parse([f"--data.root={shapes_folder}"])
    images, reasons = open_chosen_images(config, torch.device("cpu"))
    side, reading = look_at_sample(images)
    assert side == 20
    assert 0 < reading < 1
    assert find_facts(images, torch.device("cpu")).reading > 0
    assert set(reasons) == set(PretrainConfig.auto)


def test_times_of_reading_that_differ_by_little_choose_the_same_run() -> None:
    assert [rounded_time(seconds) for seconds in (0.055, 0.0625, 0.08, 0.0)] == [0.0625, 0.0625, 0.0625, 0.0]
    assert rounded_time(0.1) == 0.125
    images = dataclasses.replace(LAPTOP, images=100)
    runs = [chosen(dataclasses.replace(images, reading=rounded_time(s))) for s in (0.11, 0.14)]
    assert runs[0].optim.epochs == runs[1].optim.epochs
