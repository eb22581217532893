"""`siamtransfer predict`: labels from few labels, kept heads, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from support.tables import rows_of

import siamtransfer as st
from siamtransfer.embedding.predict.head_file import read_head
from siamtransfer.embedding.predict.labelled import open_labels
from siamtransfer.programs.embed import main as embed
from siamtransfer.programs.predict import main as predict
from siamtransfer.utils.errors import UserError

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
ODD = os.fsdecode(b"od\xffd,\n.png")


def write(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-30, 30, (24, 24, 3))
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/: ten of each colour, a grey one and a broken one; few.csv: four labels of each; a kept head."""
    root = tmp_path_factory.mktemp("world")
    for colour, rgb in COLOURS.items():
        for number in range(10):
            name = ODD if (colour, number) == ("red", 0) else f"{colour}{number}.png"
            write(root / "images" / name, rgb, number)
    write(root / "images" / "strange.png", (250, 250, 250), 77)
    (root / "images" / "broken.png").write_bytes(b"nothing")
    rows = [f"{colour}{number}.png,{colour}" for colour in COLOURS for number in range(1, 5)]
    (root / "few.csv").write_text("\n".join(["path,label", *rows]))
    run(
        root / "images",
        root / "out.csv",
        "--labels",
        root / "few.csv",
        "--save-head",
        root / "head.safetensors",
    )
    return root


def run(images: Path, out: Path, *words: object, network: str = "pixels") -> dict[str, dict[str, object]]:
    texts = [str(word) for word in (images, out, "--crop", 8, *words, "--data.workers", 0, "--device", "cpu")]
    record = predict([network, *texts])
    assert record is not None
    return record


def lines(path: Path) -> dict[str, dict[str, str]]:
    return {row["path"]: row for row in rows_of(path)}


def test_new_images_get_labels_with_probabilities(world: Path) -> None:
    found = lines(world / "out.csv")
    assert len(found) == 31 and ODD in found
    for colour in COLOURS:
        for number in range(5, 10):
            row = found[f"{colour}{number}.png"]
            p = {name: float(row[f"p:{name}"]) for name in COLOURS}
            assert (row["label"], row["given"]) == (colour, "no")
            assert float(row["probability"]) == max(p.values()) == p[colour]
            assert sum(p.values()) == pytest.approx(1, abs=1e-5)
            assert p[row["runner_up"]] == sorted(p.values())[1] == float(row["runner_up_probability"])
    assert found[ODD]["label"] == "red"


def test_given_labels_stand_as_given_with_the_probability_of_one_that_has_not_seen_them(world: Path) -> None:
    given = [row for row in lines(world / "out.csv").values() if row["given"] == "yes"]
    assert sorted(row["path"] for row in given) == sorted(f"{c}{n}.png" for c in COLOURS for n in range(1, 5))
    assert all(row["path"].startswith(row["label"]) for row in given)
    swapped = (world / "few.csv").read_text().replace("red1.png,red", "red1.png,blue")
    (world / "swapped.csv").write_text(swapped)
    run(world / "images", world / "swapped-out.csv", "--labels", world / "swapped.csv")
    wrong = lines(world / "swapped-out.csv")["red1.png"]
    assert (wrong["label"], wrong["given"], wrong["runner_up"]) == ("blue", "yes", "red")
    assert float(wrong["probability"]) < float(wrong["runner_up_probability"])


def test_what_is_unlike_all_labelled_images_is_unknown(world: Path) -> None:
    found = lines(world / "out.csv")
    assert found["strange.png"]["unknown"] == "yes"
    known = [row for row in found.values() if row["path"] != "strange.png" and row["given"] == "no"]
    assert max(float(row["distance"]) for row in known) < float(found["strange.png"]["distance"])


def test_the_record_has_the_estimate_and_names_unreadable_images(world: Path) -> None:
    record = json.loads((world / "out.json").read_text())
    metrics = record["metrics"]
    assert (metrics["predict/images"], metrics["predict/given"], metrics["predict/labels"]) == (31, 12, 12)
    assert metrics["predict/cv/top1"] == 100 and 75 < metrics["predict/cv/top1/ci95_low"] < 77
    assert [metrics["predict/chance"], metrics["predict/majority"]] == pytest.approx([100 / 3] * 2)
    assert [image["path"] for image in record["unreadable"]] == ["broken.png"]


def test_a_kept_head_gives_the_same_labels(world: Path, tmp_path: Path) -> None:
    head = world / "head.safetensors"
    for network, words in ((str(head), ()), ("pixels", ("--head", head))):
        run(world / "images", tmp_path / "again.csv", *words, "--force", network=network)
        first, again = lines(world / "out.csv"), lines(tmp_path / "again.csv")
        new = [path for path, row in first.items() if row["given"] == "no"]
        assert [again[path] for path in new] == [first[path] for path in new]
        assert all(row["given"] == "no" for row in again.values())
    facts = read_head(head).facts
    assert facts["labelled_images"][0] == {"path": "red1.png", "label": "red"}
    assert facts["estimate"]["predict/cv/top1"] == 100


def test_labels_may_be_folders(world: Path, tmp_path: Path) -> None:
    for colour, rgb in COLOURS.items():
        for number in range(4):
            write(tmp_path / "sorted" / colour / f"{number}.png", rgb, 50 + number)
    record = run(world / "images", tmp_path / "out.csv", "--labels", tmp_path / "sorted")
    assert record["metrics"]["predict/given"] == 0
    assert all(
        row["label"] in row["path"]
        for path, row in lines(tmp_path / "out.csv").items()
        if path != ODD and path != "strange.png"
    )
    record = run(tmp_path / "sorted", tmp_path / "own.csv", "--labels", tmp_path / "sorted")
    assert record["metrics"]["predict/given"] == record["metrics"]["predict/images"] == 12


def test_options_of_the_images_that_a_table_has_not_are_left_out(world: Path) -> None:
    options = {"parts": "none", "background": "black", "split": None}
    found = open_labels(str(world / "few.csv"), str(world / "images"), None, options)
    assert found.classes == ("blue", "green", "red")
    assert found.parts[0].images.form.background == (0, 0, 0)  # type: ignore[attr-defined]


TABLE = "path,label\n"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE + "red1.png,red\nred9999.png,blue\n", r"red9999\.png.*--labels-root is the folder"),
        (TABLE + "red1.png,red\nred1.png,blue\n", r"more than once .*red1\.png.*red, blue"),
        (TABLE + "red1.png,red\nred2.png,red\n", r"all labels in .* are red; a classifier needs two classes"),
        (TABLE + "red1.png,\nblue1.png,\n", r"has no labels"),
        (TABLE + "red1.png,Red\nred2.png,red\nblue1.png,blue\n", r"upper and lower case.*Red and red"),
        (
            TABLE + "red1.png,red\nbroken.png,blue\n",
            r"no image with the label blue .* can be read \(broken\.png",
        ),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(
    world: Path, tmp_path: Path, table: str, message: str
) -> None:
    (tmp_path / "few.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        run(world / "images", tmp_path / "out.csv", "--labels", tmp_path / "few.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_empty_labels_are_images_without_one(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TABLE + "red1.png,red\nred2.png,red\nblue1.png,blue\nblue2.png,blue\nred3.png,\n"
    (tmp_path / "few.csv").write_text(text)
    record = run(world / "images", tmp_path / "out.csv", "--labels", tmp_path / "few.csv")
    assert record["metrics"]["predict/labels"] == 4
    assert "1 images of the table have no label" in capsys.readouterr().err
    assert lines(tmp_path / "out.csv")["red3.png"]["given"] == "no"


@pytest.mark.parametrize(
    ("network", "words", "message"),
    [
        (
            "pixels",
            ["--head", "{head}", "--crop", "16"],
            r"was learnt with --crop \d+, not 16: leave --crop out",
        ),
        ("random:resnet18", ["--head", "{head}"], r"features of other weights than those of random:resnet18"),
        (
            "pixels",
            ["--head", "{head}", "--data.background", "black"],
            r"data\.background white, .* have black",
        ),
        ("pixels", ["--head", "{head}", "--labels", "few.csv"], r"give one of the two"),
        ("pixels", [], r"give one of the two"),
        ("pixels", ["--head", "{few}"], r"few\.csv is no head"),
        ("pixels", ["--labels", "{few}", "--save-head", "{new}.pth"], r"must end in \.safetensors"),
        ("pixels", ["--labels", "{few}", "--unknown-quantile", "1.5"], r"must be from 0 to 1"),
    ],
)
def test_what_does_not_belong_to_a_head_is_refused(
    world: Path, tmp_path: Path, network: str, words: list[str], message: str
) -> None:
    places = {"head": world / "head.safetensors", "few": world / "few.csv", "new": tmp_path / "new"}
    filled = [word.format(**places) for word in words]
    with pytest.raises(UserError, match=message):
        run(world / "images", tmp_path / "out.csv", *filled, network=network)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_head_is_refused_and_a_pickle_is_not_run(world: Path, tmp_path: Path) -> None:
    whole = (world / "head.safetensors").read_bytes()
    for name, content in {
        "short": whole[:-9],
        "flipped": whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:],
        "text": whole.replace(b'\\"red\\"', b'\\"rad\\"', 1),
    }.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            read_head(tmp_path / f"{name}.safetensors")
    tensors = load_file(world / "head.safetensors")
    save_file(tensors, tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="is no head"):
        read_head(tmp_path / "plain.safetensors")

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "sprung"),))  # type: ignore[return-value]

    (tmp_path / "trap.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="is no head"):
        read_head(tmp_path / "trap.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_a_head_names_the_checkpoint_that_is_gone(world: Path, tmp_path: Path) -> None:
    from siamtransfer.embedding.predict.head_file import write_head

    head = read_head(world / "head.safetensors")
    head.facts["checkpoint"] = str(tmp_path / "gone.pth")
    write_head(head, tmp_path / "lost.safetensors")
    with pytest.raises(UserError, match=r"belongs to .*gone\.pth, which is not there: name the checkpoint"):
        run(world / "images", tmp_path / "out.csv", network=str(tmp_path / "lost.safetensors"))
    shutil.copy(world / "head.safetensors", tmp_path / "lost.safetensors")
    run(world / "images", tmp_path / "out.csv", network=str(tmp_path / "lost.safetensors"))


def test_python_functions_say_what_the_programs_write(world: Path) -> None:
    found = st.predict("random:resnet18", world / "images", labels=world / "few.csv", crop=8, device="cpu")
    assert [image.path for image in found] == list(lines(world / "out.csv"))
    assert [image.path for image in found if image.given] == sorted(
        f"{colour}{number}.png" for colour in COLOURS for number in range(1, 5)
    )
    assert all(
        image.probabilities and sum(image.probabilities.values()) == pytest.approx(1) for image in found
    )
    embedding = st.embed("random:resnet18", world / "images", crop=8, device="cpu")
    assert embedding.paths == [image.path for image in found] and embedding.classes is None
    assert embedding.features.shape == (31, 512) and embedding.sizes.tolist() == [[24, 24]] * 31
    assert [image.path for image in embedding.unreadable] == ["broken.png"]


def test_what_is_read_and_the_record_are_never_overwritten(world: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "few.csv", tmp_path / "out.csv"
    shutil.copy(world / "few.csv", labels)
    with pytest.raises(UserError, match=r"few\.csv is the labels; choose another name"):
        run(world / "images", labels, "--labels", labels, "--force")
    assert labels.read_bytes() == (world / "few.csv").read_bytes()
    with pytest.raises(UserError, match=r"--record .*out\.json is written anyway, beside the table"):
        run(world / "images", out, "--labels", labels, "--record", tmp_path / "out.json")
    with pytest.raises(UserError, match=r"h\.safetensors cannot be written: .*few\.csv is not a folder"):
        run(world / "images", out, "--labels", labels, "--save-head", labels / "h.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


def test_one_file_with_two_labels_by_a_link_is_refused(world: Path, tmp_path: Path) -> None:
    for name in ("red1.png", "red2.png", "blue1.png"):
        shutil.copy(world / "images" / name, tmp_path / name)
    (tmp_path / "link.png").symlink_to("red1.png")
    labels = tmp_path / "few.csv"
    labels.write_text("path,label\nred1.png,red\nlink.png,blue\nblue1.png,blue\n")
    with pytest.raises(UserError, match=r"red1\.png and link\.png .* one file with the labels red and blue"):
        run(tmp_path, tmp_path / "out.csv", "--labels", labels)
    labels.write_text("path,label\nred1.png,red\nlink.png,red\nblue1.png,blue\n")
    assert run(tmp_path, tmp_path / "out.csv", "--labels", labels)["metrics"]["predict/given"] == 3


def test_a_head_is_no_network(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a head of siamtransfer predict and has no network"):
        embed([str(world / "head.safetensors"), str(world / "images"), str(tmp_path / "out.npz")])
