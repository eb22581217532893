"""Pretrains a backbone: the command line of siamtransfer/programs/pretrain.py."""

from siamtransfer.cli import run
from siamtransfer.programs.pretrain import main

if __name__ == "__main__":
    run(main)
