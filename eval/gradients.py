"""The command line of siamtransfer/programs/gradients.py."""

from siamtransfer.cli import run
from siamtransfer.programs.gradients import main

if __name__ == "__main__":
    run(main)
