"""`python -m siamtransfer` is the command `siamtransfer`."""

from siamtransfer.cli.main import main

if __name__ == "__main__":
    main()
