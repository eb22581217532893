"""Looks for native code that crashes, hangs or gives wrong numbers on this CPU.

    make native-sweep
    python -m benchmarks.native_sweep --seed 3 --count 2000      other and more convolutions

Cases are convolutions, steps of networks, boxes, matrices and searches. They run in forks of this process,
at most twenty seconds each. A crash costs its case alone and is named by its signal; a new fork goes on after
it. Memory that a library reads unwritten is full of NaN (`leave_nan`). Convolutions are those of
`build_backbone` (sound_convolutions.py), compared with double precision; with `--plain` they are torch's own,
which shows whether the faults of oneDNN are still there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.backbones.sound_convolutions import with_sound_convolutions

faiss: Any = None
with contextlib.suppress(ImportError):
    faiss = importlib.import_module("faiss")

Case = Callable[[], str]
"""Says what is wrong, or ""."""
SECONDS = 20
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of a norm
KNOWN = {"roi_align nan": "SIGSEGV", "roi_align inf": "SIGSEGV"}
"""Faults of torchvision 0.29 that no program of ours meets: the proposals of torchvision's and Detectron2's
detectors are filtered, and boxes of annotations are checked when they are read."""
NETWORKS = ("resnet18", "resnet50", "timm:test_vit", "timm:test_convnext", "timm:test_efficientnet")


def leave_nan() -> None:
    """Frees memory of many sizes that is full of NaN."""
    blocks = [torch.full((2**power * part,), float("nan")) for power in range(8, 19) for part in (2, 3)]
    del blocks


def convolution(
    settings: dict[str, Any], layout: torch.memory_format, dtype: torch.dtype, plain: bool
) -> str:
    """Output and gradients of a convolution against double precision."""
    size, batch = settings["size"], settings["batch"]
    keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    layer = nn.Sequential(nn.Conv2d(**{key: settings[key] for key in keys}, bias=False))
    layer = (layer if plain else with_sound_convolutions(layer)).to(memory_format=layout)
    x = torch.randn(batch, settings["in_channels"], size, size).contiguous(memory_format=layout)
    w = layer[0].weight
    assert isinstance(w, Tensor)
    x64, w64 = (t.detach().double().contiguous().requires_grad_() for t in (x, w))
    steps = {key: settings[key] for key in ("stride", "padding", "dilation", "groups")}
    y64 = F.conv2d(x64, w64, **steps)
    up = torch.randn(y64.shape)
    exact = [y64.detach(), *torch.autograd.grad(y64, (x64, w64), up.double())]
    leave_nan()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        y = layer(x.requires_grad_())
    found = [y.detach(), *torch.autograd.grad(y, (x, w), up.to(y.dtype).contiguous(memory_format=layout))]
    for name, a, b in zip(("output", "gradient of x", "gradient of w"), found, exact, strict=True):
        error = float((a.double() - b).norm() / b.norm().clamp(min=1e-9))
        if not error < TOLERANCE[dtype]:
            return f"{name} is {error:.2g} of its norm away"
    return ""


def network(name: str, width: int | None, size: int, layout: torch.memory_format, dtype: torch.dtype) -> str:
    """A step of a network has finite gradients."""
    choices: Any = {} if width is None else {"width": width}
    model = build_backbone(name, **choices).to(memory_format=layout)
    x = torch.randn(2, 3, size, size).contiguous(memory_format=layout)
    leave_nan()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        h = model(x)
    h.float().square().mean().backward()
    bad = [key for key, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return f"the gradient of {bad[0]} is not finite" if bad or not h.isfinite().all() else ""


def boxes(kind: str, value: float) -> str:
    """torchvision's operators on a box with one odd coordinate: an answer or an exception, no crash."""
    found = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, value, 4.0], [2.0, 2.0, 2.0, 2.0]])
    maps = torch.ones(1, 2, 8, 8, requires_grad=True)
    match kind:
        case "nms":
            ops.nms(found, torch.tensor([0.5, value, 0.1]), 0.5)
        case "batched_nms":
            ops.batched_nms(found, torch.rand(3), torch.tensor([0, 1, 2]), 0.5)
        case "roi_align":
            ops.roi_align(maps, [found], 3, sampling_ratio=2).sum().backward()
        case "roi_align of no stated samples":
            ops.roi_align(maps, [found.clamp(-1e4, 1e4)], 3).sum().backward()
        case "roi_pool":
            ops.roi_pool(maps, [found], 3).sum().backward()
    return ""


def decomposition(kind: str, rows: int, columns: int, value: float) -> str:
    """LAPACK and scikit-learn's searches on a matrix with one odd number or no rows."""
    x = torch.randn(rows, columns)
    x[:1, :1] = value
    square = x.T @ x
    match kind:
        case "eigh":
            torch.linalg.eigh(square)
        case "cholesky":
            torch.linalg.cholesky_ex(square)
        case "svd":
            torch.linalg.svdvals(x)
        case "lstsq":
            torch.linalg.lstsq(x, x[:, :1])
        case "faiss":
            if faiss is None:
                return ""
            index = faiss.IndexFlatIP(columns)
            if rows:
                index.add(x.numpy())
                index.search(x.numpy(), rows + 5)
    return ""


def convolutions(draw: random.Random, count: int, plain: bool) -> list[tuple[str, Case]]:
    """Random convolutions, half of them with a stride and a kernel of one or on a map of few pixels."""
    cases: list[tuple[str, Case]] = []
    while len(cases) < count:
        kernel, groups = draw.choice((1, 1, 2, 3, 3, 5, 7)), draw.choice((1, 1, 1, 2, 4))
        settings = {
            "in_channels": draw.randint(1, 40) * groups,
            "out_channels": draw.randint(1, 40) * groups,
            "kernel_size": kernel,
            "stride": draw.choice((1, 2, 2, 3, 4)),
            "padding": draw.choice((0, kernel // 2)),
            "dilation": draw.choice((1, 1, 1, 2)),
            "groups": groups,
            "size": draw.choice((1, 2, 3, 4, 5, 7, 8, 14, 28, 56)),
            "batch": draw.choice((1, 2, 3, 8)),
        }
        if settings["size"] + 2 * settings["padding"] < settings["dilation"] * (kernel - 1) + 1:
            continue
        layout = draw.choice((torch.channels_last, torch.contiguous_format))
        dtype = draw.choice((torch.float32, torch.bfloat16))
        name = f"{settings} {layout} {dtype}"
        cases.append((name, partial(convolution, settings, layout, dtype, plain)))
    return cases


def networks() -> list[tuple[str, Case]]:
    """ResNets of many widths and small networks of other families, in both layouts and precisions."""
    found = [("resnet18", width, size) for width in (1, 3, 8, 12, 16) for size in (16, 32, 64, 224)]
    found += [("resnet50", width, size) for width in (2, 8) for size in (16, 64)]
    wholes = [(name, None, size) for name in NETWORKS[2:] for size in (160,)]
    return [
        (
            f"{name} width {width} size {size} {layout} {dtype}",
            partial(network, name, width, size, layout, dtype),
        )
        for name, width, size in [*found, *wholes]
        for layout in (torch.channels_last, torch.contiguous_format)
        for dtype in (torch.float32, torch.bfloat16)
    ]


def native_inputs() -> list[tuple[str, Case]]:
    """Odd boxes and matrices."""
    odd = (float("nan"), float("inf"), float("-inf"), 1e9, 1e38, -1e9, 0.0)
    kinds = ("nms", "batched_nms", "roi_align", "roi_align of no stated samples", "roi_pool")
    cases: list[tuple[str, Case]] = [(f"{kind} {v}", partial(boxes, kind, v)) for kind in kinds for v in odd]
    for kind in ("eigh", "cholesky", "svd", "lstsq", "faiss"):
        for rows, columns in ((0, 4), (1, 1), (1, 4), (7, 3), (3, 7)):
            cases += [
                (f"{kind} {rows}x{columns} {v}", partial(decomposition, kind, rows, columns, v))
                for v in odd[:4]
            ]
    return cases


def sweep(cases: Sequence[tuple[str, Case]]) -> dict[str, str]:
    """What is wrong with each case that is not right; an exception is right, a signal is not."""
    wrong: dict[str, str] = {}
    at = 0
    while at < len(cases):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _answer(cases[at:], writing)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as answers:
            for line in answers:
                said = json.loads(line)
                if said:
                    wrong[cases[at][0]] = said
                at += 1
        _, status = os.waitpid(child, 0)
        if at < len(cases):
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            wrong[cases[at][0]] = signal.Signals(number).name if number else "the process ended"
            at += 1
    return wrong


def _answer(cases: Sequence[tuple[str, Case]], writing: int) -> None:
    """Runs the cases and writes a line for each; does not return."""
    for number, (_, case) in enumerate(cases):
        torch.manual_seed(number)
        signal.alarm(SECONDS)
        try:
            said = case()
        except (RuntimeError, ValueError, TypeError, AssertionError):  # an exception is an answer
            said = ""
        os.write(writing, (json.dumps(said) + "\n").encode())
    os._exit(0)


def main() -> None:
    """Runs all groups and prints a table; exits with 1 where a case is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000, help="random convolutions")
    parser.add_argument("--plain", action="store_true", help="torch's own convolutions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    groups = {
        "convolutions": convolutions(random.Random(options.seed), options.count, options.plain),
        "networks": networks(),
        "boxes, matrices, search": native_inputs(),
    }
    counts: Counter[str] = Counter()
    print("| group | cases | wrong | seconds |\n|---|---|---|---|")
    for name, cases in groups.items():
        began = time.monotonic()
        wrong = {case: said for case, said in sweep(cases).items() if KNOWN.get(case) != said}
        counts.update(cases=len(cases), wrong=len(wrong))
        print(f"| {name} | {len(cases)} | {len(wrong)} | {time.monotonic() - began:.0f} |", flush=True)
        for case, said in wrong.items():
            print(f"  {case}: {said}", flush=True)
    print(json.dumps({"torch": torch.__version__, "seed": options.seed, **counts}))
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
