"""The command line of siamtransfer/programs/compare.py."""

from siamtransfer.cli import run
from siamtransfer.programs.compare import main

if __name__ == "__main__":
    run(main)
