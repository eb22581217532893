"""The command `siamtransfer`: every program under one name, the shipped configurations, shell completion."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

from siamtransfer.cli.completion import SHELLS, completion_script
from siamtransfer.cli.entry import USER_ERROR, run
from siamtransfer.cli.shipped import header_line, shipped_configs
from siamtransfer.utils.errors import UserError
from siamtransfer.version import __version__

PROGRAMS = {
    "pretrain": "pretrain a backbone without labels",
    "launch": "start a program on all GPUs, or as a Slurm job",
    "knn": "score a backbone by its nearest neighbours",
    "linear": "score it by a linear classifier on frozen features",
    "fewshot": "score it with a few labels of each class",
    "semisup": "fine-tune it with 1 %, 10 % or all labels",
    "svm": "score it on VOC07 classification by linear SVMs",
    "robustness": "score one head on corrupted and other test sets",
    "invariance": "follow its features through transformed images",
    "outside": "tell unknown images from known ones; is it calibrated",
    "diagnose": "measure collapse, rank, spectrum, clusters",
    "gradients": "show what a method's gradient is made of",
    "attention": "show what a network looks at, and score it",
    "segmentation": "probe its patches for semantic segmentation",
    "retrieval": "search images with it: revisited Oxford and Paris",
    "copies": "find the originals of copies with it: Copydays",
    "video": "follow objects through videos by its features",
    "depth": "probe its patches for depth in metres",
    "suite": "measure many backbones on many tasks, and rank them",
    "compare": "compare two records, sample by sample",
    "rank": "rank backbones by their records, in groups",
    "report": "make one page of records that opens anywhere",
    "track": "send records to TensorBoard, W&B or MLflow",
    "features": "write features to an .npz for any other tool",
    "neighbours": "show the images of a folder that are most like one",
    "map": "lay the images of a set out on a plane, with neighbours",
    "curate": "find copies and outliers in a folder, choose a coreset",
    "embed": "write features of any images as a table",
    "predict": "label images from a few labels, or say unknown",
    "detection": "fine-tune a detector from it, and score that",
    "pack": "pack images into tar shards",
    "identify": "say what a checkpoint file is",
    "inspect": "say what is in a folder of images",
    "doctor": "check this machine, with --gpu what its GPU computes",
    "to-d2": "convert a backbone for Detectron2, with proof",
    "to-torchvision": "convert a backbone to torchvision's or timm's names",
    "export": "write a backbone for timm, the Hub, ONNX or torch.export",
}
"""Program to what it does; the module of `to-d2` is siamtransfer/programs/to_d2.py."""

USAGE = """usage: siamtransfer PROGRAM [--option VALUE ...]
       siamtransfer PROGRAM --help

Pretrain Siamese networks, and find out how well a backbone transfers.

Programs:
{programs}

  configs [WORD]    list the shipped configurations (whose names hold WORD); --config NAME reads one
  completion SHELL  print the completion script of {shells}: source <(siamtransfer completion bash)
  --version         print the version"""


def program(name: str) -> Any:
    """The `main` of a program, a cli.Command.

    Raises:
        UserError: there is no such program; names the nearest.
    """
    import difflib

    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"there is no program {name!r}{hint}; siamtransfer --help lists them")
    return importlib.import_module(f"siamtransfer.programs.{name.replace('-', '_')}").main


def main() -> NoReturn:
    """The console script."""
    run(lambda: _answer(sys.argv[1:]))


def _answer(words: list[str]) -> dict[str, Any] | None:
    """What the words ask for.

    Raises:
        SystemExit: there are none, which is a mistake.
    """
    if words and words[0] == "--version":
        print(f"siamtransfer {__version__}")
        return None
    if words and words[0] not in ("--help", "-h", "help"):
        return _do(words[0], words[1:])
    rows = [f"  {name:16}  {what}" for name, what in PROGRAMS.items()]
    print(USAGE.format(programs="\n".join(rows), shells=", ".join(SHELLS)))
    if not words:
        sys.exit(USER_ERROR)
    return None


def _do(name: str, words: list[str]) -> dict[str, Any] | None:
    if name == "configs":
        list_configs(words[0] if words else "")
        return None
    if name == "completion":
        if len(words) != 1 or words[0] not in SHELLS:
            raise UserError(f"siamtransfer completion needs a shell: {', '.join(SHELLS)}")
        print(completion_script(words[0], {name: program(name).flags() for name in PROGRAMS}))
        return None
    record: dict[str, Any] | None = program(name)(words)
    return record


def list_configs(word: str) -> None:
    """Prints the shipped configurations whose names hold `word`, with the line that says what each is."""
    configs = {name: file for name, file in shipped_configs().items() if word in name}
    if not configs:
        raise UserError(f"no shipped configuration's name holds {word!r}; siamtransfer configs lists all")
    width = max(map(len, configs))
    for name, file in configs.items():
        print(f"{name:{width}}  {header_line(file)}")
