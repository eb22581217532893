"""Runs on pairs: from a table of files, resumed to the bit, and read back by column."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_runs import complete, differences, launch, newest, rows, stop_at

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.config import PretrainConfig
from siamtransfer.data.registry import open_images
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.evaluation.frozen_model import LabelledFeatures, labelled_features
from siamtransfer.evaluation.gradient_view import checkpoints as gradients
from siamtransfer.evaluation.gradient_view.config import GradientsConfig
from siamtransfer.evaluation.knn.config import KnnConfig
from siamtransfer.pretraining.pairs import check_pairs, recipe_of_columns
from siamtransfer.programs.knn import main as knn_main
from siamtransfer.programs.pretrain import main as pretrain_main
from siamtransfer.utils.errors import UserError
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.pairs import ColumnRecipe
from siamtransfer.views.recipes import recipe

TWO = [
    "--method.name=simsiam-variants",
    "--simsiam_variants.dim=32",
    "--simsiam_variants.projector_layers=2",
    "--simsiam_variants.columns.trunks=2",
]


def write_table(folder: Path, count: int = 40) -> list[str]:
    """Files of two cameras, one of which sees one channel, and the options that name them."""
    rng = np.random.default_rng(0)
    lines = ["visible,thermal,label"]
    for number in range(count):
        pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
        for name, image in (("v", pixels), ("t", 255 - pixels[:, :, 0])):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / name / f"{number}.png")
        lines.append(f"v/{number}.png,t/{number}.png,{number % 4}")
    (folder / "pairs.csv").write_text("\n".join(lines))
    table = f"--data.list_file={folder / 'pairs.csv'}"
    return ["--data.name=pairs", table, "--data.size=null", "--data.count=null"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """The folder of a set of pairs and of a run on it, `whole`, the options of the run, and what it said."""
    folder = tmp_path_factory.mktemp("pairs")
    named = [*write_table(folder / "set"), *TWO, "--data.column_channels=[3,1]", "--optim.epochs=1"]
    thermal = folder / "set" / "t" / "7.png"
    intact = thermal.read_bytes()
    thermal.write_bytes(b"no picture")
    run = complete(folder / "whole", *named)
    stopped = launch(folder / "parts", *named, "--data.workers=1", fault=stop_at(3))
    assert stopped.wait() != 0
    complete(folder / "parts", *named, "--resume")
    thermal.write_bytes(intact)
    return folder, named, run.said


def test_two_trunks_of_other_channels_go_on_to_the_bit(finished: tuple[Path, list[str], str]) -> None:
    folder, _, said = finished
    assert "pairs: 40 of visible, thermal; views are cut from them in turn" in said
    assert "t/7.png" in said and "measured from 39 images" in said
    free = ("config.run.dir", "config.data.workers")
    assert differences(newest(folder / "whole"), newest(folder / "parts"), free=free) == []
    assert rows(folder / "whole") == rows(folder / "parts")


def test_trunks_are_read_by_name_with_their_normalisation(finished: tuple[Path, list[str], str]) -> None:
    tmp_path = finished[0]
    first, read = load_backbone(tmp_path / "whole" / "checkpoint.pth")
    second, other = load_backbone(tmp_path / "whole" / "checkpoint.pth", branch="second")
    assert (read.branch, read.branches) == ("backbone", ("backbone", "second"))
    assert (first.in_channels, second.in_channels) == (3, 1)
    assert len(read.normalisation.mean) == 3 and len(other.normalisation.mean) == 1
    state = newest(tmp_path / "whole")["model"]
    assert torch.equal(second.state_dict()["conv1.weight"], state["second_backbone.conv1.weight"])
    assert torch.equal(first.state_dict()["conv1.weight"], state["backbone.conv1.weight"])


def features(finished: tuple[Path, list[str], str], *words: str) -> LabelledFeatures:
    """The features of the run's checkpoint, by the words of the kNN program."""
    folder = finished[0]
    (folder / "set" / "test.csv").write_text("thermal,visible,label\nt/3.png,v/3.png,3\nt/5.png,v/5.png,1\n")
    test = f"--data.test-list-file={folder / 'set' / 'test.csv'}"
    shared = ["--cache=none", "--device=cpu", "--data.workers=0", test]
    config = knn_main.parse([str(folder / "whole" / "checkpoint.pth"), *shared, *words])
    assert isinstance(config, KnnConfig)
    config.check()
    with start_runtime("cpu", "float32") as runtime:
        return labelled_features(config.checkpoint, config, runtime)


def require_that_changes_are_found(across: LabelledFeatures) -> None:
    assert across.model is not None and across.model.for_test is not None
    across.model.require_untouched()
    assert across.model.for_test.backbone is not None
    with torch.no_grad():
        next(across.model.for_test.backbone.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="has changed while it was evaluated"):
        across.model.require_untouched()


def test_the_second_trunk_sees_the_test_images_of_its_column(finished: tuple[Path, list[str], str]) -> None:
    second = ["--data.column=thermal", "--branch=second"]
    first_alone, second_alone = features(finished), features(finished, *second)
    across = features(finished, "--data.test-column=thermal", "--test-branch=column")
    assert across.test is not None and second_alone.test is not None and first_alone.test is not None
    assert torch.equal(across.train.tensor, first_alone.train.tensor)
    assert torch.equal(across.test.tensor, second_alone.test.tensor)
    assert not torch.equal(across.test.tensor, first_alone.test.tensor)
    require_that_changes_are_found(across)
    assert across.test.labels is not None and across.test.labels.tolist() == [3, 1]
    protocol, provenance = across.protocol, across.provenance
    assert protocol["train"] == "pairs:visible/train" and protocol["test"] == "pairs:thermal/test"
    assert "test_transform" not in protocol  # the same crops, but for their normalisation
    assert provenance["test_branch"] == "second" and len(provenance["test_normalisation"]["mean"]) == 1
    assert provenance["test_weights_digest"] == second_alone.provenance["weights_digest"]
    assert "test_branch" not in first_alone.provenance


def test_the_branch_of_a_column_is_that_columns(finished: tuple[Path, list[str], str]) -> None:
    second = ["--data.column=thermal", "--branch=second"]
    first_alone, second_alone = features(finished), features(finished, *second)
    backwards = features(finished, *second, "--data.test-column=visible", "--test-branch=column")
    same = features(finished, "--data.test-column=visible", "--test-branch=column")
    assert backwards.test is not None and same.test is not None and first_alone.test is not None
    assert torch.equal(backwards.train.tensor, second_alone.train.tensor)
    assert torch.equal(backwards.test.tensor, first_alone.test.tensor)
    assert backwards.provenance["test_branch"] == "backbone"
    assert torch.equal(same.test.tensor, first_alone.test.tensor)
    assert "test_branch" not in same.provenance


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--branch=second"], "name the column whose images it sees by --data.column"),
        (["--test-branch=second"], "name the column whose images it sees by --data.test-column"),
        (["--data.test-column=thermal"], "takes images of 3 channels, and those of pairs:thermal have 1"),
        (["--data.test-column=sonar", "--test-branch=second"], "data.test_column: there is no column sonar"),
        (["--data.column=4"], "data.column: there is no column 4"),
        (
            ["--data.test-list-file=null", "--data.test-column=thermal", "--test-branch=second"],
            "each would find its own partner",
        ),
    ],
)
def test_columns_are_never_taken_for_each_other(
    finished: tuple[Path, list[str], str], words: list[str], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        features(finished, *words)


def test_raw_pixels_of_other_channels_do_not_compare(finished: tuple[Path, list[str], str]) -> None:
    set_of_pairs = [word.replace("list_file", "list-file") for word in finished[1] if "list_file" in word]
    columns = ["--data.column-channels", "3", "1", "--data.test-column=thermal"]
    test = set_of_pairs[0].replace("list-file", "test-list-file").replace("pairs.csv", "test.csv")
    features(finished)  # which writes test.csv
    with pytest.raises(UserError, match=r"raw pixels of pairs:visible have 3 channels and those of .* 1"):
        knn_main(["pixels", "--data.name=pairs", *set_of_pairs, *columns, test, "--device=cpu"])


def config_of(*words: str) -> PretrainConfig:
    config = pretrain_main.parse(list(words))
    assert isinstance(config, PretrainConfig)
    return config


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--data.name=fashion-objects", "--data.pair_order=random"], "data.pair_order random is for pairs"),
        (
            ["--data.name=fashion-objects", *TWO],
            "columns.trunks 2 is for pairs, whose views are of different",
        ),
        (["--data.name=fashion-pairs", "--data.column_channels=[3,1]"], "colour 3, infrared 1.*trunks 2"),
        (["--data.name=fashion-pairs", "--data.pair_order=random", *TWO], "leave data.pair_order random out"),
        (
            ["--data.name=fashion-pairs", "--data.column_channels=[3,1]", "--data.rgb=[2,1,0]", *TWO],
            "data.rgb counts the channels of all columns alike",
        ),
        (["--data.name=fashion-pairs", "--hardware.shard=fsdp2", *TWO], "are not sharded"),
    ],
)
def test_a_run_refuses_what_its_columns_do_not_have(words: list[str], problem: str) -> None:
    config = config_of("--config", "configs/experiments/base.yaml", *words)
    count = 20 if "pairs" in config.data.name else None
    images = open_images(config.data.name, count=count, column_channels=config.data.column_channels)
    with pytest.raises(UserError, match=problem):
        check_pairs(config, images)


def test_more_columns_than_views_need_a_random_order_or_a_choice(tmp_path: Path) -> None:
    write_table(tmp_path, 3)
    text = "a,b,c\n" + "\n".join(f"v/{i}.png,t/{i}.png,v/{(i + 1) % 3}.png" for i in range(3))
    (tmp_path / "pairs.csv").write_text(text)
    images = open_images("pairs", list_file=tmp_path / "pairs.csv")
    with pytest.raises(UserError, match=r"has 3 columns of images .a, b, c. and views.recipe scenes makes 2"):
        check_pairs(config_of("--data.name=pairs", "--views.recipe=scenes"), images)
    check_pairs(config_of("--data.name=pairs", "--views.recipe=scenes", "--data.pair_order=random"), images)


def test_a_column_without_colours_has_the_recipe_without_their_operations() -> None:
    images = open_images("fashion-pairs", count=20, column_channels=[3, 1])
    views = ViewsConfig(
        "scenes", grey_p=0.3, jitter=[0.1, 0.2, 0.3, 0.4], per_view={"1": {"solarize_p": 0.5}}
    )
    both = recipe_of_columns(views, images, views.build(), None)
    assert isinstance(both, ColumnRecipe) and both.views == views.build().views
    first, second = both.columns
    assert first.views[0].grey_p == 0.3 and first.views[0].solarize_p == 0.5
    assert second.views[1].jitter == (0.1, 0.2, 0.0, 0.0) and second.views[0].solarize_p == 0
    assert second.channels == 1 and 0.4 < second.mean[0] < 0.7
    plain = open_images("fashion-pairs", count=20)
    assert recipe_of_columns(views, plain, recipe("scenes"), None) == recipe("scenes")


def test_the_gradient_view_of_a_checkpoint_cuts_no_views_from_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"name": "fashion-frames", "split": "train", "size": 16, "count": 8, "frames_gap": 2}
    run = SimpleNamespace(format=FORMAT, meta={"config": {"data": data}}, normalisation=None)
    monkeypatch.setattr(gradients, "read_backbone", lambda path: run)
    with pytest.raises(UserError, match=r"run.pth learned from pairs, .* by --monitor.gradients_every"):
        gradients.open_checkpoints([Path("run.pth")], GradientsConfig(), 1)
