"""kNN against public implementations (golden/knn: DINO, PatrickHua, scikit-learn), then ties and edges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from siamtransfer.errors import UserError
from siamtransfer.neighbours import accuracy, knn_accuracies, search, vote

GOLDEN = Path(__file__).parent / "golden" / "knn"
KS, TEMPERATURES = (1, 5, 10, 20, 200), (0.07, 0.1, 0.5)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "knn.npz").items()}


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_predictions_and_accuracies_equal_the_public_implementations(golden, k, temperature):
    s, i = search(golden["train_features"], golden["test_features"], k)
    scores = vote(s, golden["train_labels"][i], temperature=temperature, classes=7)
    theirs = golden[f"pred/k={k}/T={temperature:g}"]
    assert torch.equal(scores.argmax(dim=1), theirs)
    published = json.loads((GOLDEN / "knn.json").read_text())["results"][f"k={k},T={temperature:g}"]
    assert accuracy(scores, golden["test_labels"]) == pytest.approx(published["dino_top1"])


def test_one_search_serves_every_k_and_temperature():
    """A class without any vote is never a hit: DINO's code leaves its rank to chance."""
    data = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "full.npz").items()}
    summary = json.loads((GOLDEN / "full.json").read_text())["summary"]
    cases = [name.replace("k", "k=").replace("_T", "/T=") for name in summary]
    ks = sorted({int(case.split("/")[0][2:]) for case in cases})
    metrics = knn_accuracies(
        data["train_features"],
        data["train_labels"],
        data["test_features"],
        data["test_labels"],
        ks,
        TEMPERATURES,
    )
    for case, published in zip(cases, summary.values(), strict=True):
        assert metrics[f"knn/{case}/top1"] == pytest.approx(published["dino_top1"])
        expected = published["top5_if_true_class_has_no_vote_and_ties_go_against"]
        assert metrics[f"knn/{case}/top5"] == pytest.approx(expected)


def test_exact_ties_get_an_admissible_answer():
    data = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "full.npz").items()}
    for case, admissible in json.loads((GOLDEN / "full.json").read_text())["ties"].items():
        k, temperature = int(case[1 : case.index("_")]), float(case.split("_T")[1])
        s, i = search(data["ties/train"], data["ties/test"], k)
        scores = vote(s, data["ties/train_labels"][i], temperature=temperature, classes=5)
        for answer, allowed in zip(scores.argmax(dim=1).tolist(), admissible, strict=True):
            assert answer in allowed, case


@pytest.mark.parametrize("k", [1, 5, 20])
def test_uniform_votes_equal_scikit_learn(golden, k):
    s, i = search(golden["train_features"], golden["test_features"], k)
    scores = vote(s, golden["train_labels"][i], temperature=None, classes=7)
    assert torch.equal(scores.argmax(dim=1), golden[f"sklearn_uniform/k={k}"])


def test_ties_are_settled_by_index_even_at_the_cut():
    bank = torch.eye(4)[[0, 1, 0, 0, 2, 0]]
    for k in range(1, 7):
        _, i = search(bank, torch.eye(4)[:1], k)
        assert i[0].tolist() == [0, 2, 3, 5, 1, 4][:k]


def test_answers_equal_a_plain_sort_on_random_data_with_duplicates():
    generator = torch.Generator().manual_seed(0)
    bank = torch.randint(-2, 3, (300, 3), generator=generator).float() + 0.01
    queries = torch.randint(-2, 3, (50, 3), generator=generator).float() + 0.01
    similarities = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(bank).T
    expected = similarities.sort(dim=1, descending=True, stable=True).indices[:, :25]
    _, ours = search(bank, queries, 25)
    assert torch.equal(ours, expected)


def test_blocks_do_not_change_the_answer(monkeypatch):
    bank, queries = torch.randn(70, 8), torch.randn(33, 8)
    whole = search(bank, queries, 10)
    monkeypatch.setattr("siamtransfer.neighbours._BLOCK", 200)
    parts = search(bank, queries, 10)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0])


def test_leave_one_out_never_finds_the_query_itself():
    bank = torch.randn(40, 5)
    bank[7] = bank[3]
    _, i = search(bank, bank, 39, leave_out=torch.arange(40))
    assert not bool((i == torch.arange(40)[:, None]).any())
    assert i.sort(dim=1).values.unique(dim=0).shape == (40, 39)


def test_labels_may_be_any_integers_and_absent_on_either_side():
    bank, queries = torch.eye(3), torch.eye(3)
    labels = torch.tensor([-5, 10**12, 7])
    wanted = torch.tensor([-5, 999, 7])
    metrics = knn_accuracies(bank, labels, queries, wanted, [1], [0.07])
    assert metrics["knn/k=1/T=0.07/top1"] == pytest.approx(100 * 2 / 3)


def test_a_small_temperature_does_not_overflow():
    scores = vote(torch.tensor([[1.0, 0.9]]), torch.tensor([[0, 1]]), temperature=1e-4, classes=2)
    assert torch.isfinite(scores).all()
    assert scores.argmax() == 0


@pytest.mark.parametrize("k", [0, 5])
def test_impossible_k_is_one_sentence(k):
    with pytest.raises(UserError, match="bank has 4"):
        search(torch.eye(4), torch.eye(4), k)
