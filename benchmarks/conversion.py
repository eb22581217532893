"""Time and memory of convert/to_d2.py for a ResNet-50, beyond what importing costs.

    python -m benchmarks.conversion

Two files are converted, each in a process of its own: a plain state_dict, and MoCo's whole training state
with its second encoder, queue and optimiser. The numerical proof, which imports Detectron2, is left out. The
last line is one JSON document.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name, content in (("plain", plain()), ("moco", moco())):
            path = Path(folder) / f"{name}.pth"
            torch.save(content, path)
            del content
            command = [sys.executable, "-m", "benchmarks.conversion", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, memory = map(float, done.stdout.splitlines()[-1].split())
            size = path.stat().st_size
            say(f"{name:6} {size / 1e6:6.0f} MB  {seconds:5.2f} s  {memory / 1e6:6.0f} MB of memory")
            results[name] = {"file_bytes": size, "seconds": seconds, "bytes": memory}
    print(to_json({"task": "benchmark/conversion", "metrics": results}))


def plain() -> dict[str, Any]:
    return read_backbone("random:resnet50").state


def moco() -> dict[str, Any]:
    query, key = (read_backbone(f"random:resnet50:seed={seed}").state for seed in (0, 1))
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": {
            **{f"module.encoder_q.{name}": tensor for name, tensor in query.items()},
            **{f"module.encoder_k.{name}": tensor for name, tensor in key.items()},
            "module.queue": torch.randn(128, 65536),
        },
        "optimizer": {"state": {n: {"momentum_buffer": t.clone()} for n, t in enumerate(query.values())}},
    }


def convert(path: str) -> None:
    """Prints seconds and bytes of one conversion, measured from after the imports."""
    from siamtransfer.detection.detectron2 import convert as to_d2_convert
    from siamtransfer.programs import to_d2

    to_d2_convert.is_installed = lambda: False
    before, began = peak(), time.perf_counter()
    to_d2.main([path, f"{path}.pkl"])
    print(time.perf_counter() - began, peak() - before)


def peak() -> int:
    """The most memory that this process has held, in bytes (Linux; getrusage's would count the parent's
    too)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    convert(sys.argv[1]) if len(sys.argv) > 1 else main()
