"""The command line of siamtransfer/programs/svm.py."""

from siamtransfer.cli import run
from siamtransfer.programs.svm import main

if __name__ == "__main__":
    run(main)
