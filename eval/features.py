"""The command line of siamtransfer/programs/features.py."""

from siamtransfer.cli import run
from siamtransfer.programs.features import main

if __name__ == "__main__":
    run(main)
