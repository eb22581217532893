"""The page as a whole: it is written or refused, holds no way out, and says what the records say."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support.boards import write_knn
from support.report_records import HOSTILE, make_labels, write_board, write_run

from siamtransfer.programs.report import main as report
from siamtransfer.records.meanings import meaning_of
from siamtransfer.reports import ReportOptions, write_report
from siamtransfer.reports.details import details_of
from siamtransfer.reports.page import MARK, POLICY, embedded_json
from siamtransfer.reports.sources import gather
from siamtransfer.utils.errors import UserError

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "source"}


class Reader(HTMLParser):
    """The elements of a page with their attributes, the texts of scripts, and what is not closed."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes = next(attrs for tag, attrs in reversed(self.elements) if tag == "script")
            self.scripts.append((attributes, data))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three backbones, raw pixels, a run, a cell that failed, and a name that must do nothing."""
    root = tmp_path_factory.mktemp("records")
    write_board(root, backbones=3, samples=400)
    pixels = {"backbone": "pixels", "weights_digest": None, "architecture": None, "metric": "top1"}
    right = np.arange(400) % 8 == 0
    write_knn(root / "pixels" / "knn.json", "pixels", right, labels=make_labels(400, 10), **pixels)
    write_run(root / "run", steps=300)
    failed = {"command": ["siamtransfer", "svm", "b.pth"], "message": HOSTILE, "exit": 2}
    (root / "backbone-1" / "svm.failed.json").write_text(json.dumps(failed))
    left_out = {"backbone-2/linear-pets": f"there is no folder pets {HOSTILE}"}
    planned = {"backbone-2/linear-pets": ["linear", "b.pth", "--data.name", "pets"]}
    (root / "suite.json").write_text(json.dumps({"not_measured": left_out, "planned": planned}))
    return root


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "page.html"
    write_report([folder], out, ReportOptions(title=f"A {HOSTILE} title", index=False))
    return out


def test_the_page_is_well_formed_and_asks_the_network_for_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    read = Reader(text)
    assert read.wrong == [] and read.open == []
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}) in read.elements
    assert "default-src 'none'" in POLICY and "http" not in POLICY
    for tag, attributes in read.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base") and "action" not in attributes
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "src" not in attributes or (attributes["src"] or "").startswith("data:")
        href = attributes.get("href")
        assert href is None or href.startswith("#")
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_names_are_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert 'onerror="window.hacked' not in text
    read = Reader(text)
    data = [json.loads(body) for attrs, body in read.scripts if attrs.get("type") == "application/json"]
    assert len(data) > 2  # each is JSON, so none was cut by what a name holds
    assert json.loads(str(embedded_json(HOSTILE))) == HOSTILE
    assert "<" not in embedded_json(HOSTILE)
    assert json.loads(str(embedded_json({"a": float("nan"), "b": "\u2028"}))) == {"a": None, "b": "\u2028"}


def test_every_number_of_the_page_leads_to_its_protocol_and_meaning(folder: Path, page: Path) -> None:
    sources = gather([folder], ReportOptions())
    details = details_of(sources)
    buttons = [attrs for tag, attrs in Reader(page.read_text()).elements if attrs.get("class") == "number"]
    assert len(buttons) >= 2 * 3 + 1
    for button in buttons:
        measured = details["measurements"][int(button["data-m"] or "")]
        metric = button["data-metric"]
        value, _ = measured["numbers"][metric]
        record = sources.measurements[int(button["data-m"] or "")].record
        assert value == f"{record['metrics'][metric]:.2f} %"
        assert ("test", "made/test") in details["protocols"][measured["protocol"]]
        meaning = meaning_of(str(metric))
        assert meaning is not None
        assert details["meanings"][details["names"][metric]] == meaning._asdict()


def test_a_report_is_replaced_and_no_other_file_is(folder: Path, page: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.html", tmp_path / "other.html"
    record = folder / "pixels" / "knn.json"
    write_report([record], mine)
    before = mine.read_text()
    assert MARK in before
    write_report([record, folder / "backbone-0"], mine, ReportOptions(index=False))
    assert mine.read_text() != before
    other.write_text("<html>somebody's page</html>")
    with pytest.raises(UserError, match=r"other\.html exists and is no report"):
        write_report([record], other)
    assert other.read_text() == "<html>somebody's page</html>"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name what to report and, last, the page"),
        (["FOLDER"], "name what to report and, last, the page"),
        (["FOLDER", "page.txt"], r"page\.txt must end in \.html"),
        (["FOLDER/absent", "OUT"], "there is no file or folder .*absent"),
        (
            ["FOLDER/pixels/knn.npz", "OUT"],
            r"knn\.npz is no record \(\.json\), no map of images and no folder",
        ),
        (["FOLDER", "FOLDER/run/metrics.jsonl", "OUT"], r"metrics\.jsonl is no record"),
        (["EMPTY", "OUT"], "holds no record, no run and no map"),
        (["FOLDER", "OUT", "--alpha", "1.5"], "--alpha is 1.5, but must be below 1"),
        (["FOLDER", "OUT", "--alpha", "0"], "--alpha is 0.0, but must be above 0"),
        (["FOLDER", "OUT", "--seed", "-1"], "seed is -1, but must be from 0 to"),
        (["FOLDER", "OUT", "--card", "TMP/card.md"], "is one file, and there are 3 backbones: name a folder"),
        (["FOLDER", "OUT", "--map", "FOLDER/pixels/knn.npz"], "knn.npz"),
        (["FOLDER", "OUT", "--map", "absent.npz"], "absent.npz"),
        (["FOLDER", "OUT", "--tables", "FOLDER/pixels/knn.json"], "knn.json"),
    ],
)
def test_wrong_words_are_one_sentence_and_nothing_is_written(
    words: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"OUT": tmp_path / "out.html", "EMPTY": tmp_path / "empty"}
    given = [str(names.get(word, word)) for word in words]
    given = [word.replace("FOLDER", str(folder)).replace("TMP", str(tmp_path)) for word in given]
    with pytest.raises(UserError, match=message):
        report([*given, "--no-index"] if given else given)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    write_board(tmp_path, backbones=1, samples=60, tasks=("knn",))
    record = tmp_path / "backbone-0" / "knn.json"
    record.write_text(record.read_text().replace('"task": "knn"', '"task": "kmm"'))
    with pytest.raises(UserError, match=r"knn\.json is not as it was written"):
        write_report([record], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_run_alone_and_a_record_without_predictions_make_a_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=300)
    write_report([tmp_path / "run"], tmp_path / "run.html", ReportOptions(index=False))
    assert "0 backbones" not in (tmp_path / "run.html").read_text()
    record = {
        "task": "knn",
        "metrics": {"knn/k=20/T=0.07/top1": 41.0},
        "protocol": {"train": "a/train", "test": "a/test", "metric": "top1"},
        "provenance": {"backbone": "net.pth", "weights_digest": "0" * 64, "time": "2026-01-02T03:04:05"},
    }
    (tmp_path / "bare.json").write_text(json.dumps(record))
    write_report([tmp_path / "bare.json"], tmp_path / "bare.html")
    text = (tmp_path / "bare.html").read_text()
    assert Reader(text).wrong == []
    assert "41.0 %" in text and "was measured in 1 task" in text


def test_records_without_a_score_are_said_to_say_nothing(tmp_path: Path) -> None:
    record = {
        "task": "knn",
        "metrics": {"own/number": 1.5},
        "protocol": {},
        "provenance": {"backbone": "net.pth", "weights_digest": "0" * 64},
    }
    (tmp_path / "own.json").write_text(json.dumps(record))
    write_report([tmp_path / "own.json"], tmp_path / "own.html")
    text = (tmp_path / "own.html").read_text()
    assert "No number of these records says how good a backbone is." in text
    assert "own/number" in text and "1.5" in text


def test_the_page_says_what_a_suite_left_out_and_by_which_command_it_is_measured(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Not measured: 1, failed: 1, left out: 1" in text
    assert 'linear-pets: <span class="bad">left out.</span> there is no folder pets' in text
    assert "linear b.pth --data.name pets</pre>" in text


def test_the_record_counts_what_the_page_shows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    made = report([str(folder), str(out), "--no-index"])
    assert made is not None
    assert made["metrics"]["report/backbones"] == 4
    assert made["metrics"]["report/columns"] == 2
    assert made["metrics"]["report/missing"] == 1
    assert made["metrics"]["report/failed"] == made["metrics"]["report/left_out"] == 1
    assert made["metrics"]["report/bytes"] == out.stat().st_size
    assert all(meaning_of(name) is not None for name in made["metrics"])
    assert np.isfinite(made["metrics"]["report/seconds"])
