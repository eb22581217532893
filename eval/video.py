"""The command line of siamtransfer/programs/video.py."""

from siamtransfer.cli import run
from siamtransfer.programs.video import main

if __name__ == "__main__":
    run(main)
