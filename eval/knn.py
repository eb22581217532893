"""The command line of siamtransfer/programs/knn.py."""

from siamtransfer.cli import run
from siamtransfer.programs.knn import main

if __name__ == "__main__":
    run(main)
