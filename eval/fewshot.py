"""The command line of siamtransfer/programs/fewshot.py."""

from siamtransfer.cli import run
from siamtransfer.programs.fewshot import main

if __name__ == "__main__":
    run(main)
