"""The command line of siamtransfer/programs/copies.py."""

from siamtransfer.cli import run
from siamtransfer.programs.copies import main

if __name__ == "__main__":
    run(main)
