"""Writes each set of the transfer suites at tiny size, in the layout that its authors' archives unpack to."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets


def picture(path: Path, number: int, kind: str | None = None) -> Path:
    """A 6 x 8 image whose every pixel is (number, number // 256, 7)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.array([number % 256, number // 256, 7], np.uint8)
    image = Image.fromarray(np.broadcast_to(colour, (6, 8, 3)).copy())
    image.save(path, kind or "PNG")  # the content decides, not the ending
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def food101(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "food-101"
    parts: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for number in range(12):
        label = ("waffles", "apple_pie", "ramen")[number % 3]  # not in the classes' order
        picture(base / f"images/{label}/{number}.jpg", number)
        parts["test" if number >= 9 else "train"].setdefault(label, []).append(f"{label}/{number}")
    (base / "meta").mkdir()
    for part, lists in parts.items():
        (base / f"meta/{part}.json").write_text(json.dumps(lists))


def cars(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.array(["Audi R8", "BMW M3", "Fiat 500"], dtype=object)
    savemat(base / "devkit/cars_meta.mat", {"class_names": names})
    places = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for part, count in (("train", 6), ("test", 3)):
        kind = [("fname", "O"), ("class", "u1")]
        rows = np.array([(f"{n:05d}.jpg", n % 3 + 1) for n in range(count)], dtype=kind)
        savemat(base / places[part], {"annotations": rows})
        for n in range(count):
            picture(base / f"cars_{part}/{n:05d}.jpg", n + (100 if part == "test" else 0))


def aircraft(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "fgvc-aircraft-2013b/data"
    write_lines(base / "variants.txt", ["707-320", "727-200", "A300B4 (x)"])
    variants = ["707-320", "727-200", "A300B4 (x)"]
    for n in range(12):
        picture(base / f"images/{n:07d}.jpg", n)
    for part, rows in {
        "train": range(3),
        "val": range(3, 6),
        "trainval": range(6),
        "test": range(6, 12),
    }.items():
        write_lines(
            base / f"images_variant_{part}.txt", [f"{n:07d} {variants[n % 3]}" for n in reversed(rows)]
        )


def dtd(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "dtd/dtd"
    for part, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 10)}.items():
        labels = [f"{('banded', 'zigzagged')[n % 2]}" for n in numbers]
        write_lines(
            base / f"labels/{part}1.txt",
            [f"{label}/{label}_{n:04d}.jpg" for n, label in zip(numbers, labels, strict=True)],
        )
        for n, label in zip(numbers, labels, strict=True):
            picture(base / f"images/{label}/{label}_{n:04d}.jpg", n)


def pets(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "oxford-iiit-pet"
    breeds = ["Abyssinian", "american_bulldog", "Bengal"]
    for part, numbers in {"trainval": range(9), "test": range(9, 15)}.items():
        lines = [f"{breeds[n % 3]}_{n} {n % 3 + 1} {1 + n % 2} 1" for n in numbers]
        write_lines(base / f"annotations/{part}.txt", lines)
        for n in numbers:
            picture(base / f"images/{breeds[n % 3]}_{n}.jpg", n)


def flowers102(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "flowers-102"
    for n in range(1, 13):
        picture(base / f"jpg/image_{n:05d}.jpg", n)
    savemat(base / "imagelabels.mat", {"labels": np.arange(12, dtype=np.uint8)[None] % 102 + 91})
    parts = {"trnid": [3, 1, 2], "valid": [4, 6, 5], "tstid": [7, 8, 9, 10, 11, 12]}
    savemat(base / "setid.mat", {key: np.array([ids], np.uint16) for key, ids in parts.items()})
    files = {
        key: (name, md5(base / name)) for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    patch.setattr(datasets.Flowers102, "_file_dict", files)


def country211(root: Path, patch: pytest.MonkeyPatch) -> None:
    for part, first, count in (("train", 0, 4), ("valid", 4, 2), ("test", 6, 4)):
        for n in range(first, first + count):
            picture(root / f"country211/{part}/{('AD', 'ZW')[n % 2]}/{n}.jpg", n)


def gtsrb(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "gtsrb"
    for n in range(6):
        picture(base / f"GTSRB/Training/{n % 3:05d}/{n:05d}_00000.ppm", n, "PPM")
        (base / f"GTSRB/Training/{n % 3:05d}/GT-{n % 3:05d}.csv").touch()
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["Filename", "Width", "Height", "ClassId"])
        for n in range(4):
            picture(base / f"GTSRB/Final_Test/Images/{n:05d}.ppm", 100 + n, "PPM")
            table.writerow([f"{n:05d}.ppm", 8, 6, (2, 0, 1, 42)[n]])


def rendered_sst2(root: Path, patch: pytest.MonkeyPatch) -> None:
    for part, first, count in (("train", 0, 4), ("valid", 4, 2), ("test", 6, 4)):
        for n in range(first, first + count):
            picture(root / f"rendered-sst2/{part}/{('negative', 'positive')[n % 2]}/{n}.png", n)


def places365(root: Path, patch: pytest.MonkeyPatch) -> None:
    write_lines(root / "categories_places365.txt", ["/a/airfield 0", "/a/alley 1", "/z/zen_garden 2"])
    train = [f"/{('a/airfield', 'a/alley', 'z/zen_garden')[n % 3]}/{n:08d}.jpg {n % 3}" for n in range(6)]
    write_lines(root / "places365_train_standard.txt", train)
    write_lines(root / "places365_val.txt", [f"Places365_val_{n:08d}.jpg {n % 3}" for n in range(3)])
    for n, line in enumerate(train):
        picture(root / f"data_256_standard{line.split()[0]}", n)
    for n in range(3):
        picture(root / f"val_256/Places365_val_{n:08d}.jpg", 100 + n)
    files = {"train-standard": "places365_train_standard.txt", "val": "places365_val.txt"}
    lists = {part: (name, md5(root / name)) for part, name in files.items()}
    patch.setattr(datasets.Places365, "_FILE_LIST_META", lists)
    name = "categories_places365.txt"
    patch.setattr(datasets.Places365, "_CATEGORIES_META", (name, md5(root / name)))


def caltech101(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "caltech101/101_ObjectCategories"
    for kind, count in (("BACKGROUND_Google", 33), ("Faces", 40), ("inline_skate", 31)):
        for n in range(1, count + 1):
            picture(base / f"{kind}/image_{n:04d}.jpg", n)
    (base / "BACKGROUND_Google/tmp").touch()


def eurosat(root: Path, patch: pytest.MonkeyPatch) -> None:
    for kind, count in (("Forest", 20), ("River", 11)):
        for n in range(count):
            picture(root / f"eurosat/2750/{kind}/{kind}_{n}.jpg", n)


def sun397(root: Path, patch: pytest.MonkeyPatch) -> None:
    names = ["/a/abbey", "/a/apartment_building/outdoor", "/z/zoo"]
    write_lines(root / "SUN397/ClassName.txt", names)
    for name in names:
        for n in range(103):
            picture(root / f"SUN397{name}/sun_{n:05d}.jpg", n)


def inat18(root: Path, patch: pytest.MonkeyPatch) -> None:
    categories = [{"id": n, "name": f"species {n}", "supercategory": "Aves"} for n in (2, 0, 1)]
    for part, first, count in (("train", 0, 6), ("val", 6, 3)):
        images = [
            {"id": n, "file_name": f"train_val2018/Aves/{n % 3}/{n:04x}.jpg"}
            for n in range(first, first + count)
        ]
        truth = [{"id": 50 + n, "image_id": n, "category_id": n % 3} for n in range(first, first + count)]
        content = {"images": images, "annotations": truth[::-1], "categories": categories}
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{part}2018.json").write_text(json.dumps(content))
        for n in range(first, first + count):
            picture(root / f"2018/Aves/{n % 3}/{n:04x}.jpg", n)


def inat21(root: Path, patch: pytest.MonkeyPatch, train: str = "2021_train") -> None:
    kinds = ["00000_Animalia_a_b_c_d_e_f", "00001_Plantae_a_b_c_d_e_f"]
    for part, first, count in ((train, 0, 6), ("2021_valid", 6, 4)):
        for n in range(first, first + count):
            picture(root / f"{part}/{kinds[n % 2]}/{n:04x}.jpg", n)


def inat21_mini(root: Path, patch: pytest.MonkeyPatch) -> None:
    inat21(root, patch, train="2021_train_mini")


def voc07(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Truth by image, class after class: bird, cat, dog."""
    base = root / "VOCdevkit/VOC2007"
    truth = {
        "trainval": {"000007": "1 -1 0", "000005": "-1 1 -1", "000012": "1 1 -1", "000009": "-1 -1 1"},
        "test": {"000001": "0 1 -1", "000002": "-1 -1 1", "000003": "1 -1 -1"},
    }
    for part, rows in truth.items():
        write_lines(base / f"ImageSets/Main/{part}.txt", list(rows))
        for place, label in enumerate(("bird", "cat", "dog")):
            lines = [f"{name} {values.split()[place]:>2}" for name, values in rows.items()]
            write_lines(base / f"ImageSets/Main/{label}_{part}.txt", lines)
        for name, values in rows.items():
            picture(base / f"JPEGImages/{name}.jpg", int(name))
            objects = []
            for label, value in zip(("bird", "cat", "dog"), values.split(), strict=True):
                flags = {"1": ("1", "0"), "0": ("1", "1"), "-1": ()}[
                    value
                ]  # a difficult one beside a clear one
                objects += [f"<object><name>{label}</name><difficult>{f}</difficult></object>" for f in flags]
            (base / "Annotations").mkdir(exist_ok=True)
            (base / f"Annotations/{name}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")


def mnist(root: Path, patch: pytest.MonkeyPatch) -> None:
    base = root / "MNIST/raw"
    base.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 4)):
        pixels = np.arange(count, dtype=np.uint8)[:, None, None] + np.zeros((count, 28, 28), np.uint8)
        head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        (base / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(range(count))
        (base / f"{part}-labels-idx1-ubyte").write_bytes(labels)


def svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lists = {}
    for part, count in (("train", 5), ("test", 4)):
        rows = np.arange(count, dtype=np.uint8) + np.zeros((32, 32, 3, count), np.uint8)
        rows[0] = 99  # the first row, which a transposed image would have as its first column
        savemat(root / f"{part}_32x32.mat", {"X": rows, "y": np.array([[10], [1], [2], [9], [4]])[:count]})
        lists[part] = ["nowhere", f"{part}_32x32.mat", md5(root / f"{part}_32x32.mat")]
    patch.setattr(datasets.SVHN, "split_list", lists)


WRITERS = {
    "food101": food101, "cars": cars, "aircraft": aircraft, "dtd": dtd, "pets": pets,
    "flowers102": flowers102,
    "country211": country211, "gtsrb": gtsrb, "rendered-sst2": rendered_sst2, "places365": places365,
    "caltech101": caltech101, "eurosat": eurosat, "sun397": sun397, "inat18": inat18, "inat21": inat21,
    "inat21-mini": inat21_mini, "voc07": voc07, "mnist": mnist, "svhn": svhn,
}  # fmt: skip
