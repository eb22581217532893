"""The command line of siamtransfer/programs/segmentation.py."""

from siamtransfer.cli import run
from siamtransfer.programs.segmentation import main

if __name__ == "__main__":
    run(main)
