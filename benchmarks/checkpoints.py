"""Time and memory of reading a checkpoint: what `identify` does, and a backbone with its weights.

    python -m benchmarks.checkpoints [--network vit_large_patch16_224] [--dtype float32]

Writes random weights of a network of timm as a state_dict (torch.save), as safetensors, and as a training
state with Adam's moments, and reads each in a process of its own. Seconds are those of the CPU after torch,
timm and torchvision are imported; memory is what the peak of the process (ru_maxrss) rises by, over the
file's size. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import peak
from siamtransfer.utils.log import print_messages, say
from siamtransfer.utils.strict_json import to_json

WORK = ("identify", "load")
FILES = ("weights.pth", "weights.safetensors", "training.pth")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="vit_large_patch16_224")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--folder", help="where the files go for the time of the benchmark")
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "WORK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(to_json(measure(Path(args.measure[0]), args.measure[1])))
        return
    print_messages()
    metrics: dict[str, float] = {}
    for name in FILES:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            file = Path(folder) / name
            run_python("-c", WRITER, str(file), args.network, args.dtype)
            for work in WORK:
                found = json.loads(run_python("-m", "benchmarks.checkpoints", "--measure", str(file), work))
                metrics |= {f"{name} {work} {what}": value for what, value in found.items()}
                say(
                    f"{name:20} {found['GiB']:6.2f} GiB  {work:9} {found['seconds']:6.2f} s  "
                    f"{found['memory']:5.2f} of the file"
                )
    print(to_json({"task": "benchmark/checkpoints", "metrics": metrics, "protocol": vars(args)}))


WRITER = """
import sys, safetensors.torch, timm, torch
file, network, dtype = sys.argv[1:]
torch.manual_seed(0)
state = timm.create_model(network).to(getattr(torch, dtype)).state_dict()
if file.endswith("safetensors"):
    safetensors.torch.save_file(state, file)
elif "training" in file:
    moments = {n: {"exp_avg": t.clone(), "exp_avg_sq": t.clone()} for n, t in state.items()}
    torch.save({"model": state, "optimizer": {"state": moments}}, file)
else:
    torch.save(state, file)
"""


def run_python(*words: str) -> str:
    """What a process of Python prints."""
    freed = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}  # goes back to the system at once
    command = [sys.executable, *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=freed).stdout


def measure(file: Path, work: str) -> dict[str, Any]:
    """Seconds of the CPU and the rise of the peak for one reading."""
    import timm  # noqa: F401
    import torchvision  # noqa: F401

    from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
    from siamtransfer.utils.files import digest_of_file

    torch.set_num_threads(1)
    before, started, waited = peak(), time.process_time(), time.perf_counter()
    if work == "load":
        load_backbone(file)
    else:
        read_backbone(file)
        digest_of_file(file)
    size = file.stat().st_size
    return {
        "seconds": time.process_time() - started,
        "wall seconds": time.perf_counter() - waited,
        "memory": (peak() - before) / size,
        "GiB": size / 2**30,
    }


if __name__ == "__main__":
    main()
