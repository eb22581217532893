"""The command line of siamtransfer/programs/depth.py."""

from siamtransfer.cli import run
from siamtransfer.programs.depth import main

if __name__ == "__main__":
    run(main)
