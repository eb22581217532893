"""Fashion Scenes: a pure function of (seed, split, index), exact masks and boxes, raw pixels near chance."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from support.thorough import more

from siamtransfer.data.scenes.counter_rng import CounterRng
from siamtransfer.data.scenes.objects import CLASSES, object_silhouettes, read_objects, tight_box
from siamtransfer.data.scenes.render import LUMINANCE, UNSHADED, _colour_field, _shaded, place_objects
from siamtransfer.data.scenes.scenes import (
    LEAST_VISIBLE,
    MOST_OBJECTS,
    FashionScenes,
    Scene,
    _build_scene,
    _render_one,
    many_object_scene,
)
from siamtransfer.evaluation.knn.vote import knn_accuracies
from siamtransfer.utils.errors import UserError


def one_object_scene(split: str, index: int, size: int = 32, seed: int = 0) -> Scene:
    """Scene `index` of FashionScenes with its mask and background."""
    image, background, mask, objects = _render_one(split, np.array([index]), size, seed)
    return _build_scene(split, image[0], background[0], [mask[0]], [mask[0]], objects)


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return [many_object_scene("test", index, size=96) for index in range(60)]


def test_random_numbers_are_splitmix64_and_uniform() -> None:
    # The first outputs of splitmix64 from state 0, as published with Java's SplittableRandom and xoshiro.
    rng = CounterRng(0)
    rng._state = np.zeros(1, np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert (rng.below(2**31, 3)[0] == [value >> 33 for value in expected]).all()
    counts = np.bincount(CounterRng(7, np.arange(1000)).below(10, 100).ravel(), minlength=10)
    assert abs(counts - 10_000).max() < 500
    drawn = CounterRng(7, np.arange(1000)).between(-2, 2)
    assert set(drawn.tolist()) == {-2, -1, 0, 1, 2}


def test_random_numbers_of_a_key_do_not_depend_on_the_other_keys() -> None:
    together, alone = CounterRng(1, np.array([5, 9])), CounterRng(1, 9)
    for shape in ((), (3,), (2, 2)):
        assert np.array_equal(together.below(1000, *shape)[1], alone.below(1000, *shape)[0])
    assert not np.array_equal(CounterRng(1, 2).below(1000, 8), CounterRng(2, 1).below(1000, 8))


def test_scenes_are_the_same_in_any_order_and_batch() -> None:
    images = FashionScenes("train", size=24, count=150, seed=3)
    for index in (149, 0, 64, 63):
        scene = one_object_scene("train", index, size=24, seed=3)
        assert np.array_equal(images.image(index), scene.image)
        assert images.labels is not None and images.labels[index] == scene.labels[0] == index % 10
    assert np.array_equal(FashionScenes("train", size=24, count=70, seed=3).pixels, images.pixels[:70])


def test_seed_split_and_index_each_matter() -> None:
    scenes = [
        one_object_scene(split, index, seed=seed).image.tobytes()
        for split in ("train", "test")
        for index in (0, 10)
        for seed in (0, 1)
    ]
    assert len(set(scenes)) == 8


def test_bytes_are_pinned() -> None:
    """A change here changes every number measured on Fashion Scenes: it needs a line in the changelog."""
    one = FashionScenes("test", size=32, count=20, seed=0).pixels
    many = np.concatenate([many_object_scene("train", index, size=64).image for index in range(5)])
    digests = [hashlib.sha256(pixels.tobytes()).hexdigest()[:16] for pixels in (one, many)]
    assert digests == ["74534b56b285199e", "64c0cb6410ef731c"]


def test_masks_of_one_object_scenes_are_exact() -> None:
    for index in range(40):
        scene = one_object_scene("train", index, size=48)
        mask = scene.masks[0]
        assert scene.masks.shape == (1, 48, 48) and scene.visible.tolist() == [1.0]
        assert np.array_equal(scene.image[~mask], scene.background[~mask])
        changed = (scene.image != scene.background).any(-1)
        assert changed[mask].mean() > 0.8
        assert np.array_equal(scene.boxes[0], tight_box(mask))
        assert 0.35 < np.diff(scene.boxes[0].reshape(2, 2), axis=0).max() / 48 <= 1


def test_background_does_not_depend_on_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    before = one_object_scene("train", 4, size=48)
    shuffled = place_objects

    def another(rng: CounterRng, split: str, objects: np.ndarray, *rest: int, **limits: int):
        return shuffled(rng, split, (objects + 2345) % 7000, *rest, **limits)

    monkeypatch.setattr("siamtransfer.data.scenes.scenes.place_objects", another)
    after = one_object_scene("train", 4, size=48)
    outside = ~before.masks[0] & ~after.masks[0]
    assert not np.array_equal(before.masks, after.masks)
    assert np.array_equal(before.image[outside], after.image[outside])


def test_placed_mask_is_the_silhouette() -> None:
    """At 28 pixels, unturned and unstretched, what is placed is the object itself."""

    class Plain(CounterRng):
        def between(self, low, high, *shape):
            return np.zeros(1, np.int64) + (high if low > 0 else 0)

        def below(self, bound, *shape):
            return np.zeros(1, np.int64)

    masks = object_silhouettes("train")
    wide = next(i for i in range(len(masks)) if tight_box(masks[i]).tolist() == [0, 0, 28, 28])
    placed, mask = place_objects(Plain(0), "train", np.array([wide]), 28, smallest=1024, largest=1024)
    assert np.array_equal(mask[0], masks[wide])
    grey = read_objects("train").images[wide].astype(int)
    row, column = (int(k) for k in np.argwhere(masks[wide][5:20, 5:20])[0] + 5)
    # Positions are rounded to 1/32 pixel, so a little of a neighbour's value may come in.
    assert abs(placed[0, row, column] - grey[row, column]) < 6
    # Four times larger, the mask must have sixteen times the area: it neither grows nor shrinks at its edge.
    _, larger = place_objects(Plain(0), "train", np.array([wide]), 112, smallest=1024, largest=1024)
    assert larger.sum() == pytest.approx(16 * masks[wide].sum(), rel=0.02)


def test_many_object_scenes_are_consistent(many: list[Scene]) -> None:
    counts = [len(scene.labels) for scene in many]
    assert min(counts) == 1 and max(counts) == MOST_OBJECTS
    assert min(scene.visible.min() for scene in many) < 0.9  # occlusion does happen
    for scene in many:
        assert scene.masks.sum(0).max() == 1
        assert scene.visible.min() >= LEAST_VISIBLE / 100 and scene.visible[-1] == 1
        outside = ~scene.masks.any(0)
        assert np.array_equal(scene.image[outside], scene.background[outside])
        assert np.array_equal(scene.labels, read_objects("test").labels[scene.objects])
        for mask, (left, top, right, bottom) in zip(scene.masks, scene.boxes, strict=True):
            inside = mask[top:bottom, left:right]
            assert inside.sum() == mask.sum() > 0
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
    labels = np.concatenate([scene.labels for scene in many])
    assert set(labels.tolist()) == set(range(10))


def test_visible_share_is_measured_against_the_whole_object(many: list[Scene]) -> None:
    """An object that is half hidden keeps its place: the mask and what covers it explain the whole."""
    scene = next(scene for scene in many if scene.visible.min() < 0.7)
    hidden = int(scene.visible.argmin())
    whole = scene.masks[hidden].sum() / scene.visible[hidden]
    covering = scene.masks[hidden + 1 :].any(0).sum()
    assert scene.masks[hidden].sum() < whole <= scene.masks[hidden].sum() + covering


def test_no_train_object_in_test_scenes() -> None:
    """Each scene's object indices point into its own split, and the two splits have no image in common."""
    train = {image.tobytes() for image in read_objects("train").images}
    for index in range(30):
        for scene in (one_object_scene("test", index), many_object_scene("test", index, size=64)):
            assert not train & {read_objects("test").images[k].tobytes() for k in scene.objects}
    used = {int(one_object_scene("test", 10 * k, size=16).objects[0]) for k in range(60)}
    assert len(used) > 30 and max(used) < 150  # class 0 of the test split has the objects 0 to 149


@pytest.mark.parametrize(("bank", "asked", "most"), [(3000, 1000, 18), more(10000, 2000, 20)])
def test_raw_pixels_say_little(bank: int, asked: int, most: float) -> None:
    """Cosine kNN, k = 20: near chance, of pixels in [0, 1] and of normalised ones, where the bare objects
    give 75 % or so."""
    train, test = FashionScenes("train", size=32, count=bank), FashionScenes("test", size=32, count=asked)
    assert train.labels is not None and test.labels is not None
    mean, std = train.pixels.mean((0, 1, 2)), train.pixels.std((0, 1, 2))
    for shift, scale in ((0.0, 255.0), (mean, std)):
        stored, queries = (
            torch.from_numpy(((images.pixels - shift) / scale).reshape(len(images), -1).astype(np.float32))
            for images in (train, test)
        )
        labels = torch.from_numpy(train.labels), torch.from_numpy(test.labels)
        scores = knn_accuracies(stored, labels[0], queries, labels[1], [20], [0.07])
        assert 10 < scores["knn/k=20/T=0.07/top1"] < most


def test_colour_says_nothing_and_luminance_shows_the_object() -> None:
    """A colour field has one luminance (to the rounding), and shading only ever scales it."""
    field = _colour_field(CounterRng(3, np.arange(50)), 32)
    luminance = field @ np.array([0.299, 0.587, 0.114])
    assert abs(luminance - LUMINANCE).max() < 2
    assert field.min() < 12 and field.max() > 218  # and hues as loud as that luminance allows
    grey = np.full((50, 32, 32), UNSHADED)
    assert abs(_shaded(field, grey).astype(int) - field).max() <= 1
    assert not _shaded(field, 0 * grey).any()
    assert abs(_shaded(field, grey // 2) @ np.array([0.299, 0.587, 0.114]) - LUMINANCE / 2).max() < 2


def test_image_set_interface() -> None:
    images = FashionScenes("test", size=20, count=30, seed=5)
    assert (images.name, images.split, len(images), images.image_size) == ("fashion-scenes", "test", 30, 20)
    assert images.classes == CLASSES and images.describe(17) == "fashion-scenes/test[17]"
    assert images.labels is not None and np.array_equal(np.bincount(images.labels), np.full(10, 3))
    image = images.image(0)
    assert image.shape == (20, 20, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    same, other = (FashionScenes("test", size=20, count=30, seed=seed).fingerprint for seed in (5, 6))
    assert images.fingerprint == same != other
    assert (len(FashionScenes("test", size=16)), FashionScenes("test", size=16).image_size) == (2000, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "train and test, not 'val'"),
        ({"size": 8}, "16 to 1024 pixels, not 8"),
        ({"seed": -1}, "not -1"),
        ({"count": 0}, "at least one scene, not 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FashionScenes(**arguments)
