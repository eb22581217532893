"""The reading of a run's images holds when the run goes on and when its checkpoint is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamtransfer.config import DataConfig, PretrainConfig, refuse_differences
from siamtransfer.data.imageset import require_same_images
from siamtransfer.data.pixel_form import recorded_form
from siamtransfer.data.recorded_form import form_as_recorded, hint_on_parts
from siamtransfer.evaluation.config import EvaluationData
from siamtransfer.evaluation.labelled_images import form_of, open_images
from siamtransfer.pretraining.images import open_training_images
from siamtransfer.utils.errors import UserError

OLDER = {"name": "folder", "bit_depth": None, "channels": None, "value_range": None, "axes": None}
NOW = {"orientation": "shown", "background": "white"}


pytestmark = pytest.mark.usefixtures("messages")


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Two splits of two classes with a turned photo, a drawing on nothing, and 12 bits in 16."""
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing = np.zeros((8, 8, 4), np.uint8)
    drawing[2:4, 2:4, 3] = 255
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (12, 8), "red").save(folder / "0.jpg", exif=exif)
            Image.fromarray(drawing).save(folder / "1.png")
            Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(folder / "2.png")
    return str(tmp_path)


def seen(images: Any) -> tuple[tuple[int, ...], int, int]:
    """The shape of the photo, the largest value of the drawing, that of the deep picture."""
    return images.image(0).shape[:2], int(images.image(1).max()), int(images.image(2).max())


SHOWN, AS_OLDER = ((12, 8), 255, 4000 >> 4), ((8, 12), 0, 4000 >> 8)


def config(root: str, **data: Any) -> PretrainConfig:
    return PretrainConfig(data=DataConfig(name="folder", root=root, **data))


def saved_by(run: PretrainConfig) -> dict[str, Any]:
    return {"config": run.as_dict()}


def saved_by_an_older_version(run: PretrainConfig) -> dict[str, Any]:
    saved = run.as_dict()
    saved["data"] = {key: value for key, value in saved["data"].items() if key not in NOW} | {
        "bit_depth": None
    }
    return {"config": saved}


def test_a_run_saves_what_was_found_and_goes_on_with_it(root: str) -> None:
    run = config(root)
    images = open_training_images(run.data)
    assert seen(images) == SHOWN
    assert (run.data.orientation, run.data.background, run.data.bit_depth) == ("shown", "white", 12)
    again = config(root)
    resumed = open_training_images(again.data, saved_by(run))
    assert seen(resumed) == SHOWN and resumed.fingerprint == images.fingerprint
    refuse_differences(saved_by(run)["config"], again.as_dict())


def test_an_older_run_goes_on_as_it_was_trained_and_says_so(root: str, messages) -> None:
    run = config(root)
    older = open_training_images(config(root, orientation="stored", background="drop", bit_depth=16).data)
    messages.clear()
    images = open_training_images(run.data, saved_by_an_older_version(config(root)))
    assert seen(images) == AS_OLDER and images.fingerprint == older.fingerprint
    assert "the images are read as in the run, which was made before" in messages.text
    refuse_differences(saved_by_an_older_version(config(root))["config"], run.as_dict())


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ({"orientation": "shown"}, "data.orientation 'stored' -> 'shown'"),
        ({"background": "white"}, "data.background 'drop' -> 'white'"),
    ],
)
def test_another_reading_is_another_run(root: str, stated: dict[str, str], named: str) -> None:
    run = config(root, **stated)
    saved = saved_by_an_older_version(config(root))
    open_training_images(run.data, saved)
    with pytest.raises(UserError, match=named):
        refuse_differences(saved["config"], run.as_dict())
    current = config(root, orientation="stored", background="drop")
    open_training_images(current.data)
    with pytest.raises(UserError, match=named):
        refuse_differences(current.as_dict(), run.as_dict())


def test_a_published_set_goes_on_in_shards_as_it_was_read() -> None:
    saved = {key: value for key, value in DataConfig(name="imagenet").__dict__.items() if key not in NOW}
    assert form_as_recorded(saved, "shards") == {
        "orientation": "stored",
        "background": "drop",
        "bit_depth": 16,
    }
    now = {**saved, "orientation": "stored", "background": "drop"}
    assert form_as_recorded(now, "shards") == {"orientation": "stored", "background": "drop"}
    assert form_as_recorded(now, "cifar10") == {}


def test_the_images_of_an_older_checkpoint_are_read_as_in_its_training(root: str, messages) -> None:
    train, test = open_images(EvaluationData(), {**OLDER, "root": root}, "run.pth")
    assert seen(train) == seen(test) == AS_OLDER
    assert "made before" in messages.text
    shown, _ = open_images(EvaluationData(orientation="shown"), {**OLDER, "root": root}, "run.pth")
    assert seen(shown) == ((12, 8), 0, 4000 >> 8), "what is stated counts, the rest is as recorded"


def test_the_images_of_a_checkpoint_are_read_as_it_records_and_the_record_says_it(root: str) -> None:
    run = config(root)
    open_training_images(run.data)
    train, test = open_images(EvaluationData(), run.as_dict()["data"], "run.pth")
    assert seen(train) == seen(test) == SHOWN
    assert form_of(train, test) == {**NOW, "bit_depth": 12} | {
        key: value for key, value in form_of(train, test).items() if key == "image_remarks"
    }
    named, other = open_images(EvaluationData(name="folder", root=root), {**OLDER, "root": "/"}, "run.pth")
    assert seen(named) == seen(other) == SHOWN, "images that are named are seen as any of one's own"
    assert "are turned as their EXIF orientation says" in str(form_of(named, other)["image_remarks"])


def test_of_several_channels_an_older_run_dropped_nothing() -> None:
    assert recorded_form({"channels": 13}) == {"channels": 13, "orientation": "stored", "bit_depth": 16}
    assert recorded_form({"value_range": [0, 9]}) == {
        "value_range": [0, 9], "orientation": "stored", "background": "drop",
    }  # fmt: skip


def test_an_older_run_whose_classes_were_named_as_parts_are_goes_on_with_them(root: str) -> None:
    for split, name in (("train", "Train"), ("val", "Val")):
        Path(root, split).rename(Path(root, name))
    run = config(root, parts="none")
    classes = open_training_images(run.data, saved := saved_by_an_older_version(config(root)))
    assert classes.classes == ("Train", "Val") and len(classes) == 12
    refuse_differences(saved["config"], run.as_dict())

    parts = open_training_images(config(root).data, saved)
    assert parts.classes == ("a", "b") and len(parts) == 6
    hint = hint_on_parts(saved["config"]["data"], "folder", None)
    with pytest.raises(
        UserError, match=r"\(12 then and 6 now; older versions took .* --data.parts none does\)"
    ):
        require_same_images(parts, fingerprint=classes.fingerprint, count=12, hint=hint)
    for recorded, name, stated in (
        (saved["config"]["data"], "folder", "none"),
        (saved["config"]["data"], "cifar10", None),
        (run.as_dict()["data"], "folder", None),
    ):
        assert hint_on_parts(recorded, name, stated) == ""


def test_a_gap_of_0_is_not_left_out() -> None:
    """It is two views of one frame, and no number that nobody gave."""
    some = {"size": 16, "count": 8, "test_split": "train"}
    same, _ = open_images(EvaluationData("fashion-frames", frames_gap=0, column="later", **some), {}, "x")  # type: ignore[arg-type]
    scenes, _ = open_images(EvaluationData("fashion-scenes", **some), {}, "x")  # type: ignore[arg-type]
    assert all(np.array_equal(same.image(index), scenes.image(index)) for index in range(8))
