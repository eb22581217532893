"""Tables and cards that leave the page: Markdown, LaTeX and CSV as other programs read them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from support.boards import answers, write_knn

from siamtransfer.records.scores import card_metadata, score_of
from siamtransfer.reports import ReportOptions, write_report
from siamtransfer.reports.answers import class_names
from siamtransfer.reports.cards import model_card
from siamtransfer.reports.sources import Sources, gather
from siamtransfer.reports.standings import Standings
from siamtransfer.reports.tables import csv_text, latex_text, markdown_text, table_files

KNN = "knn/k=20/T=0.07"
NAMES = ("=1+1", "50% & $x_1$ | b")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    root = tmp_path_factory.mktemp("tables")
    for place, (name, own) in enumerate(zip(NAMES, answers(0, 0.9, 0.3), strict=True)):
        write_knn(root / f"{place}.json", name, own)
    return gather([root], ReportOptions())


def test_csv_has_unrounded_numbers_and_no_formulas(sources: Sources) -> None:
    rows = list(csv.DictReader(io.StringIO(table_files(sources)["scores.csv"])))
    assert [row["backbone"] for row in rows] == ["'=1+1", "50% & $x_1$ | b"]
    for row, measurement in zip(rows, sources.measurements, strict=True):
        metrics = measurement.record["metrics"]
        assert float(row["value"]) == metrics[row["metric"]]
        assert float(row["ci95_low"]) == metrics[f"{KNN}/ci95_low"]
    assert [row["groups"] for row in rows] == ["a", "b"]
    assert [float(row["rank"]) for row in rows] == [1.0, 2.0]
    assert all(csv_text(text)[0] == "'" for text in ("=1", "+1", "-1", "@a", "\ta"))


def test_every_number_of_every_record_is_in_one_file(sources: Sources) -> None:
    rows = list(csv.DictReader(io.StringIO(table_files(sources)["numbers.csv"])))
    for measurement in sources.measurements:
        own = [row for row in rows if row["record"] == str(measurement.path)]
        wanted = {name for name in measurement.metrics if "ci95" not in name}
        assert {row["metric"] for row in own} == wanted
        assert {float(row["value"]) for row in own} == {measurement.metrics[name] for name in wanted}
        assert float(own[0]["ci95_high"]) == measurement.metrics[f"{KNN}/ci95_high"]
    scores = list(csv.DictReader(io.StringIO(table_files(sources)["scores.csv"])))
    assert {row["protocol_key"] for row in rows} == {row["protocol_key"] for row in scores}


def test_names_of_classes_cannot_turn_the_text_around() -> None:
    """Nor hold what is no character, as JSON can."""
    made = {"provenance": {"classes": ["\u202eevil", "a\x00b", "\ud800", "日本"]}}
    assert class_names(made) == [r"\u202eevil", r"a\x00b", r"\ud800", "日本"]


def test_markdown_keeps_its_columns_whatever_the_names(sources: Sources) -> None:
    lines = table_files(sources)["scores.md"].splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in cells} == {2}
    assert lines[1] == "| --- | ---: |"
    assert "**" in cells[2][1] and "**" not in cells[3][1]
    assert markdown_text("a|b\n*c*") == r"a\|b \*c\*"


def test_latex_is_a_tabular_of_booktabs(sources: Sources) -> None:
    text = table_files(sources)["scores.tex"]
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"50\% \& \$x\_1\$ \textbar{} b & " in text
    assert text.count(r"\\") == 3
    assert r"\textbf{" in text
    assert latex_text("a\\b~^") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}"
    body = re.sub(r"\\[&%$#_{}\\]", "", text)
    assert body.count("{") == body.count("}")


def test_the_hub_reads_the_metadata_of_a_card(sources: Sources) -> None:
    one = Standings(sources).contenders[0]
    text = model_card(sources, one)
    card = ModelCard(text)
    (result,) = card.data.eval_results
    assert result.metric_value == pytest.approx(
        sources.measurements[0].record["metrics"]["knn/k=20/T=0.07/top1"]
    )
    assert (result.dataset_type, result.metric_type) == ("made", "accuracy")
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert "license: not stated" in text and one.digest in text
    assert str(sources.measurements[0].path.parent) not in text and "runs/" not in text


def test_a_card_names_the_set_whose_train_images_were_scored() -> None:
    record = {"task": "linear", "metrics": {"linear/top1": 50.0}}
    ends = []
    for test in ("pets/test", "20% of train", "leave-one-out on train", "roxford5k"):
        score = score_of(record | {"protocol": {"train": "pets/train", "test": test}}, "linear/top1")
        card = card_metadata("a", [score], method=None, data=None, libraries=())
        (result,) = ModelCard(f"---\n{card}\n---").data.eval_results
        ends.append((result.dataset_type, result.dataset_name))
    assert ends == [
        ("pets", "pets/test"),
        ("pets", "pets/train, 20% of train"),
        ("pets", "pets/train, leave-one-out on train"),
        ("roxford5k", "roxford5k"),
    ]


def test_tables_and_cards_are_files_where_asked(sources: Sources, tmp_path: Path) -> None:
    folder = sources.measurements[0].path.parent
    options = ReportOptions(tables=str(tmp_path / "tables"), card=str(tmp_path / "cards"))
    write_report([folder], tmp_path / "page.html", options)
    written = {path.name: path.read_bytes().decode() for path in (tmp_path / "tables").iterdir()}
    assert written == table_files(sources)
    assert len(list((tmp_path / "cards").iterdir())) == 2
    assert json.loads((folder / "index.json").read_text())["files"].keys() == {"0.json", "1.json"}
