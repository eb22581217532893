"""The command line of siamtransfer/programs/linear.py."""

from siamtransfer.cli import run
from siamtransfer.programs.linear import main

if __name__ == "__main__":
    run(main)
