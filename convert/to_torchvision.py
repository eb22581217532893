"""The command line of siamtransfer/programs/to_torchvision.py."""

from siamtransfer.cli import run
from siamtransfer.programs.to_torchvision import main

if __name__ == "__main__":
    run(main)
