"""The command line of siamtransfer/programs/attention.py."""

from siamtransfer.cli import run
from siamtransfer.programs.attention import main

if __name__ == "__main__":
    run(main)
