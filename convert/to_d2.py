"""The command line of siamtransfer/programs/to_d2.py."""

from siamtransfer.cli import run
from siamtransfer.programs.to_d2 import main

if __name__ == "__main__":
    run(main)
