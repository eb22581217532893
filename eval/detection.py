"""The command line of siamtransfer/programs/detection.py."""

from siamtransfer.cli import run
from siamtransfer.programs.detection import main

if __name__ == "__main__":
    run(main)
