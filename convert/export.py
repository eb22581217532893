"""The command line of siamtransfer/programs/export.py."""

from siamtransfer.cli import run
from siamtransfer.programs.export import main

if __name__ == "__main__":
    run(main)
