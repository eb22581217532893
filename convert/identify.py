"""The command line of siamtransfer/programs/identify.py."""

from siamtransfer.cli import run
from siamtransfer.programs.identify import main

if __name__ == "__main__":
    run(main)
