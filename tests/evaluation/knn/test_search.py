"""kNN against public implementations (golden/knn: DINO, PatrickHua, scikit-learn), then ties and edges."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from support import paths
from support.small_runs import on_ranks
from torch.nn import functional as F

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn import searchers
from siamtransfer.evaluation.knn.search import search, search_over_ranks
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.vote import knn_accuracies, knn_scores, score_neighbours
from siamtransfer.metrics.average_precision import mean_average_precision, steps
from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.utils.errors import UserError

GOLDEN = paths.GOLDEN / "knn"
KS, TEMPERATURES = (1, 5, 10, 20, 200), (0.07, 0.1, 0.5)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "knn.npz").items()}


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_predictions_and_accuracies_equal_the_public_implementations(golden, k, temperature):
    s, i = search(golden["train_features"], golden["test_features"], k)
    labels = golden["train_labels"], golden["test_labels"]
    scores = score_neighbours(s, i, *labels, [k], [temperature])
    setting = f"k={k}/T={temperature:g}"
    assert scores.predictions[setting].tolist() == golden[f"pred/{setting}"].tolist()
    published = json.loads((GOLDEN / "knn.json").read_text())["results"][f"k={k},T={temperature:g}"]
    assert scores.metrics[f"knn/{setting}/top1"] == pytest.approx(published["dino_top1"])


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
        labels = data["ties/train_labels"]
        scores = score_neighbours(s, i, labels, labels[: len(s)], [k], [temperature])
        predictions = scores.predictions[f"k={k}/T={temperature:g}"].tolist()
        for answer, allowed in zip(predictions, admissible, strict=True):
            assert answer in allowed, case


@pytest.mark.parametrize("k", [1, 5, 20])
def test_uniform_votes_equal_scikit_learn(golden, k):
    s, i = search(golden["train_features"], golden["test_features"], k)
    scores = score_neighbours(s, i, golden["train_labels"], golden["test_labels"], [k], [None])
    assert scores.predictions[f"k={k}/uniform"].tolist() == golden[f"sklearn_uniform/k={k}"].tolist()


@pytest.mark.parametrize("k", [1, 5, 20])
def test_confidences_are_scikit_learns_probabilities(golden, k):
    s, i = search(golden["train_features"], golden["test_features"], k)
    ours = score_neighbours(s, i, golden["train_labels"], golden["test_labels"], [k], [None, 0.07])
    unit = {name: unit_rows(golden[f"{name}_features"], torch.float64).numpy() for name in ("train", "test")}
    for setting, weights in {
        "uniform": "uniform",
        "T=0.07": lambda d: np.exp(-np.square(d) / 2 / 0.07),
    }.items():
        theirs = KNeighborsClassifier(k, weights=weights, algorithm="brute")
        p = theirs.fit(unit["train"], golden["train_labels"].numpy()).predict_proba(unit["test"])
        np.testing.assert_allclose(ours.confidences[f"k={k}/{setting}"], p.max(axis=1), atol=2e-5)


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
    monkeypatch.setattr("siamtransfer.evaluation.knn.searchers._BLOCK", 200)
    parts = search(bank, queries, 10)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0])


def test_leave_one_out_never_finds_the_query_itself():
    bank = torch.randn(40, 5)
    bank[7] = bank[3]
    _, i = search(bank, bank, 39, leave_out=torch.arange(40))
    assert not bool((i == torch.arange(40)[:, None]).any())
    assert i.sort(dim=1).values.unique(dim=0).shape == (40, 39)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_search_over_one_rank_is_the_search(metric):
    alone = Runtime(torch.device("cpu"), torch.float32)
    bank, queries = torch.randn(40, 5), torch.randn(9, 5)
    of_queries = search_over_ranks(
        bank, queries, 7, leave_one_out=False, options=SearchOptions(metric), runtime=alone
    )
    itself = search_over_ranks(
        bank.numpy(), bank, 7, leave_one_out=True, options=SearchOptions(metric), runtime=alone
    )
    expected = search(bank, queries, 7, metric=metric)
    expected_itself = search(bank, bank, 7, leave_out=torch.arange(40), metric=metric)
    for result, reference in ((of_queries, expected), (itself, expected_itself)):
        assert torch.equal(result[0], reference[0])
        assert torch.equal(result[1], reference[1])


def test_labels_may_be_any_integers_and_absent_on_either_side():
    bank, queries = torch.eye(3), torch.eye(3)
    labels = torch.tensor([-5, 10**12, 7])
    wanted = torch.tensor([-5, 999, 7])
    metrics = knn_accuracies(bank, labels, queries, wanted, [1], [0.07])
    assert metrics["knn/k=1/T=0.07/top1"] == pytest.approx(100 * 2 / 3)


def test_a_small_temperature_does_not_overflow():
    labels = torch.tensor([0, 1])
    scores = score_neighbours(
        torch.tensor([[1.0, 0.9]]), torch.tensor([[0, 1]]), labels, labels[:1], [2], [1e-4]
    )
    assert scores.metrics["knn/k=2/T=0.0001/top1"] == 100
    assert scores.predictions["k=2/T=0.0001"].tolist() == [0]


@pytest.mark.parametrize("k", [0, 5])
def test_impossible_k_is_one_sentence(k):
    with pytest.raises(UserError, match="bank has 4"):
        search(torch.eye(4), torch.eye(4), k)


# Banks of any size, and other ways to vote.


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", ["tensor", "mapped"])
def test_chunks_of_the_bank_do_not_change_the_answer(tmp_path, metric, kind):
    """Also for a bank in half precision on disk."""
    bank, queries = torch.randn(5000, 4).half(), torch.randn(37, 4)
    whole = search(bank, queries, 30, metric=metric)
    file = tmp_path / "bank.npy"
    np.save(file, bank.numpy())
    held = bank if kind == "tensor" else np.load(file, mmap_mode="r")
    parts = search(held, queries, 30, metric=metric, budget=1000 * 4 * 20)
    torch.testing.assert_close(parts[0], whole[0], atol=2e-3 if metric == "euclidean" else 1e-6, rtol=0)
    if metric == "euclidean":
        every = -torch.cdist(queries, bank.float(), compute_mode="donot_use_mm_for_euclid_dist")
    else:
        every = F.normalize(queries) @ F.normalize(bank.float()).T
    torch.testing.assert_close(whole[0], every.sort(dim=1, descending=True).values[:, :30], atol=2e-3, rtol=0)
    torch.testing.assert_close(whole[0], every.gather(1, parts[1]), atol=2e-3, rtol=0)


def test_ties_across_chunks_are_settled_by_index():
    """Unit vectors, whose cosines are 0 and 1 without rounding."""
    bank = torch.eye(4)[torch.randint(4, (5000,), generator=torch.Generator().manual_seed(1))]
    _, i = search(bank, torch.eye(4), 40, budget=1000 * 4 * 20)
    for query in range(4):
        assert i[query].tolist() == bank[:, query].nonzero()[:40, 0].tolist()


def test_leave_one_out_over_chunks():
    bank = torch.randn(3000, 3)
    _, i = search(bank, bank[:50], 7, leave_out=torch.arange(50), budget=3 * 20 * 1100)
    assert torch.equal(i, search(bank, bank[:50], 7, leave_out=torch.arange(50))[1])
    assert not bool((i == torch.arange(50)[:, None]).any())


@pytest.fixture
def tf32():
    """Allowed, as a run on a GPU allows it."""
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, True
    yield products
    products.allow_tf32 = before


def test_the_product_is_in_full_precision_also_on_gpus(monkeypatch, tf32):
    """TF32's ten bits would reorder neighbours; the setting returns afterwards."""
    seen, plain = [], searchers.top
    monkeypatch.setattr(searchers, "top", lambda *a: seen.append(tf32.allow_tf32) or plain(*a))
    search(torch.eye(4), torch.eye(4), 2)
    with pytest.raises(UserError):
        search(torch.eye(4), torch.eye(4), 5)
    assert seen == [False]
    assert tf32.allow_tf32


def test_values_that_are_not_finite_are_refused():
    bank = torch.eye(4)
    bank[2, 1] = float("inf")
    with pytest.raises(UserError, match="not finite"):
        search(bank, torch.eye(4), 1)


def share_of(runtime, bank, queries):
    mine = torch.arange(runtime.rank, len(queries), runtime.world_size)
    parts = search(bank, queries[mine], 5)
    return [collectives.all_gather_rows(part, len(queries), runtime.device) for part in parts]


@pytest.mark.parametrize("count", [2, 7])
def test_ranks_share_the_queries(count):
    bank, queries = torch.randn(40, 6), torch.randn(count, 6)
    expected = search(bank, queries, 5)
    for found in on_ranks(share_of, bank, queries, world_size=3):
        assert torch.equal(found[1], expected[1])
        torch.testing.assert_close(found[0], expected[0])


def test_labels_per_class_are_ranked_by_average_precision():
    bank = torch.eye(3)
    labels = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 1, 1]])
    found = knn_scores(bank, labels, bank[[0, 1, 2]], labels, [1], [0.07])
    assert found.metrics == {"knn/k=1/T=0.07/mAP": pytest.approx(100)}
    assert found.predictions["k=1/T=0.07"].tolist() == labels.tolist()
    assert mean_average_precision(
        np.array([[0.9, 0], [0.8, 0], [0.1, 0]]), np.array([[0, 0], [1, 0], [1, 0]]), rule=steps
    ) == (pytest.approx(100 * (1 / 2 + 2 / 3) / 2))
