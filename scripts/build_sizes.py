#!/usr/bin/env python3
"""Rebuilds siamtransfer/backbones/sizes.json.xz, the sizes of the networks in the catalogue, which nearest.py
reads.

Every network is built on torch's device "meta". Run it after scripts/build_catalogue.py.

    python scripts/build_sizes.py             writes the file, about four minutes of one core
    python scripts/build_sizes.py --check 20  compares every 20th network with the file instead
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.catalogue import load_catalogue
from siamtransfer.backbones.nearest import FILE, load_sizes, pack_sizes, size_of
from siamtransfer.cli import run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

SIZES = Path(__file__).resolve().parent.parent / "siamtransfer" / "backbones" / FILE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", type=int, metavar="N", help="compare every Nth network with the file")
    options = parser.parse_args()
    names = [groups[0][0] for groups in load_catalogue().exact.values()]
    if options.check is None:
        sizes = {name: size_of(Architecture(name).shapes()) for name in tqdm(names, unit="", disable=None)}
        with atomic_write(SIZES) as file:
            file.write(pack_sizes(sizes))
        say(f"{SIZES}: {len(sizes)} networks, {SIZES.stat().st_size} bytes")
        return
    known = load_sizes()
    wrong = [
        name for name in names[:: options.check] if known.get(name) != size_of(Architecture(name).shapes())
    ]
    if wrong:
        raise UserError(f"{SIZES.name} has not the sizes of {', '.join(wrong)} as they are built here")
    say("the file has the sizes of these networks as they are built here")


if __name__ == "__main__":
    run(main)
