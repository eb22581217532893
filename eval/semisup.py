"""The command line of siamtransfer/programs/semisup.py."""

from siamtransfer.cli import run
from siamtransfer.programs.semisup import main

if __name__ == "__main__":
    run(main)
