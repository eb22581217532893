"""The command line of siamtransfer/programs/diagnose.py."""

from siamtransfer.cli import run
from siamtransfer.programs.diagnose import main

if __name__ == "__main__":
    run(main)
