"""Checks of evaluation on the device: neighbours, FAISS, features in half precision, logistic regression."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.doctor.findings import Finding, check, judged, measured
from siamtransfer.doctor.workbench import GIB, Workbench
from siamtransfer.evaluation.knn.config import SearchBackend
from siamtransfer.evaluation.knn.faiss_search import open_faiss
from siamtransfer.evaluation.knn.search import nearest
from siamtransfer.evaluation.knn.searchers import LocalSearch, SearchOptions
from siamtransfer.evaluation.linear.logistic import LogisticRegression
from siamtransfer.features.extract import Transform, extract

FAISS_LIMIT = 2048  # neighbours that FAISS finds on a GPU; more go to the product
PRODUCT = SearchOptions(backend="product")


class MadeImages:
    """Grey images of 256 pixels, each of one brightness."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> np.ndarray:
        return np.full((256, 256, 3), index % 255, np.uint8)


def bank_and_queries(bench: Workbench) -> tuple[Tensor, Tensor]:
    """float32[N, D] with ties and [Q, D] near some of its rows: 128,000 x 2048 and 10,000, or tiny."""
    rows, count, width = (2000, 100, 32) if bench.tiny else (128_000, 10_000, 2048)
    generator = torch.Generator(device=bench.device).manual_seed(0)
    bank = torch.randn(rows, width, generator=generator, device=bench.device)
    bank[rows // 2 : rows // 2 + 500] = bank[:500]
    chosen = torch.randint(0, rows, (count,), generator=generator, device=bench.device)
    noise = torch.randn(count, width, generator=generator, device=bench.device)
    return bank, bank[chosen] + 0.5 * noise


@check("neighbours", seconds=25, needs="a device")
def check_neighbours(bench: Workbench) -> Iterator[Finding]:
    """The 20 nearest by the product: equal to the CPU's; time and memory."""
    bank, queries = bank_and_queries(bench)
    search = LocalSearch(bank, PRODUCT)
    seconds = bench.seconds(lambda: nearest(search, queries, 20), 1, 1)
    memory = bench.peak(lambda: nearest(search, queries, 20))
    yield measured(
        "neighbours/product_s",
        seconds,
        f"{seconds:.3f} s for {len(queries)} queries in {len(bank)} x {bank.shape[1]}, peak {memory:.2f} GiB",
    )
    few = queries[:64]
    found, expected = nearest(search, few, 20), nearest(LocalSearch(bank.cpu(), PRODUCT), few.cpu(), 20)
    yield compare_neighbours("neighbours/like_the_cpu", found, expected, 0.99)


@check("faiss_search", seconds=25, needs="a device")
def check_faiss_search(bench: Workbench) -> Iterator[Finding]:
    """FAISS gives the product's neighbours, ties included, up to k = 2048 and beyond."""
    bank, queries = bank_and_queries(bench)
    if open_faiss(nn.functional.normalize(bank[:100]), _faiss_if_there(bench), 1) is None:
        yield Finding("faiss_search", "SKIP", "there is no FAISS for this device: kNN uses the product")
        return
    by_product, by_faiss = LocalSearch(bank, PRODUCT), LocalSearch(bank, SearchOptions(backend="faiss"))
    seconds = bench.seconds(lambda: nearest(by_faiss, queries, 20), 1, 1)
    yield measured("faiss_search/s", seconds, f"{seconds:.3f} s; see neighbours/product_s")
    yield compare_neighbours(
        "faiss_search/like_the_product",
        nearest(by_faiss, queries, 20),
        nearest(by_product, queries, 20),
        0.999,
    )
    few = queries[:10]
    for k in (len(bank) - 1,) if bench.tiny else (FAISS_LIMIT, FAISS_LIMIT + 1):
        found, expected = nearest(by_faiss, few, k), nearest(by_product, few, k)
        yield compare_neighbours(f"faiss_search/k={k}", found, expected, 0.999)


def _faiss_if_there(bench: Workbench) -> SearchBackend:
    """auto on a GPU (None without FAISS for GPUs); on the CPU auto is the product, so FAISS is named where it
    is installed."""
    if bench.device.type == "cuda" or importlib.util.find_spec("faiss") is None:
        return "auto"
    return "faiss"


def compare_neighbours(
    name: str, found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], least: float
) -> Finding:
    """PASS where the indices are equal but for a few near ties, and similarities by rounding."""
    same = float((found[1].cpu() == expected[1].cpu()).double().mean())
    worst = float((found[0].cpu().double() - expected[0].cpu().double()).abs().max())
    text = f"{100 * same:.2f} % of indices equal, similarities differ by {worst:.1e}"
    return judged(name, same >= least and worst < 1e-5, text, same)


@check("features", seconds=25, needs="a device")
def check_features(bench: Workbench) -> Iterator[Finding]:
    """Features in the device's precision against float32; images a second."""
    images, workers = MadeImages(64 if bench.tiny else 2048), 0 if bench.tiny else 8
    transform = Transform(32 if bench.tiny else 224, None, (0.5,) * 3, (0.25,) * 3)
    torch.manual_seed(0)
    backbone = build_backbone("resnet18" if bench.tiny else "resnet50").to(bench.device)
    backbone.to(memory_format=torch.channels_last)
    exact = extract(backbone, images, transform, bench.runtime(torch.float32), workers=workers)
    found = extract(backbone, images, transform, bench.runtime(), workers=workers)
    cosine = float(nn.functional.cosine_similarity(exact, found, dim=1).min())
    yield judged("features/half_precision", cosine > 0.99, f"least cosine to float32's {cosine:.5f}", cosine)
    runtime = bench.runtime()
    seconds = bench.seconds(lambda: extract(backbone, images, transform, runtime, workers=workers), 1, 0)
    speed = len(images) / seconds
    yield measured(
        "features/images_per_second", speed, f"{speed:.0f} images/s, the start of workers included"
    )


@check("logistic", seconds=15, needs="a device")
def check_logistic(bench: Workbench) -> Iterator[Finding]:
    """Logistic regression learns a separable problem; memory beyond its features, and time."""
    rows, width, classes = (2000, 32, 5) if bench.tiny else (100_000, 2048, 100)
    generator = torch.Generator(device=bench.device).manual_seed(0)
    features = torch.randn(rows, width, generator=generator, device=bench.device)
    labels = torch.randint(0, classes, (rows,), generator=generator, device=bench.device)
    features[torch.arange(rows, device=bench.device), labels] += 3
    problems: list[LogisticRegression] = []
    memory = bench.peak(lambda: problems.append(LogisticRegression(features, labels, standardise=True)))
    factor = memory * GIB / (features.numel() * features.element_size())
    yield measured("logistic/memory_over_features", factor, f"{factor:.2f} times the features, beside them")
    seconds = bench.seconds(lambda: problems[0].fit(1e-3, max_steps=20), 1, 0)
    yield measured("logistic/fit_s", seconds, f"{seconds:.2f} s for {rows} x {width} and {classes} classes")
    classifier, _ = problems[0].fit(1e-3, max_steps=20)
    share = float(classifier.hits(features[:2000], labels[:2000]).double().mean())
    yield judged("logistic/learns", share > 0.5, f"{100 * share:.1f} % of its training rows", share)
