"""The command line of siamtransfer/programs/retrieval.py."""

from siamtransfer.cli import run
from siamtransfer.programs.retrieval import main

if __name__ == "__main__":
    run(main)
