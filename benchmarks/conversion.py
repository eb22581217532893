"""Time and memory of a conversion of a ResNet-50 to Detectron2, without those of the imports.

    python -m benchmarks.conversion

Two files are converted, each in a process of its own: a plain state_dict, and MoCo's complete training state
with a second encoder, queue and optimiser. The numerical proof, which imports Detectron2, is left out. The
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
    """Measures both files and prints the results."""
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name, content in (("plain", plain_state_dict()), ("moco", moco_checkpoint())):
            path = Path(folder) / f"{name}.pth"
            torch.save(content, path)
            del content
            command = [sys.executable, "-m", "benchmarks.conversion", str(path)]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, memory = map(float, process.stdout.splitlines()[-1].split())
            size = path.stat().st_size
            say(f"{name:6} {size / 1e6:6.0f} MB  {seconds:5.2f} s  {memory / 1e6:6.0f} MB of memory")
            results[name] = {"file_bytes": size, "seconds": seconds, "bytes": memory}
    print(to_json({"task": "benchmark/conversion", "metrics": results}))


def plain_state_dict() -> dict[str, Any]:
    """A ResNet-50 under torchvision's names."""
    return read_backbone("random:resnet50").state


def moco_checkpoint() -> dict[str, Any]:
    """A training state as MoCo's official code saves it."""
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


def measure_conversion(path: str) -> None:
    """Prints the seconds and bytes of one conversion, measured after the imports."""
    from siamtransfer.detection.detectron2 import convert

    convert.is_installed = lambda: False
    memory, start = peak_memory(), time.perf_counter()
    convert.to_detectron2(path, f"{path}.pkl")
    print(time.perf_counter() - start, peak_memory() - memory)


def peak_memory() -> int:
    """The peak memory of this process in bytes (Linux; that of getrusage would count the parent's too)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    measure_conversion(sys.argv[1]) if len(sys.argv) > 1 else main()
