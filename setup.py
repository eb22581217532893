"""The packages of the wheel: siamtransfer/, and configs/ as siamtransfer/configs.

There --config NAME finds them. Everything else is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["siamtransfer*"]), "siamtransfer.configs"],
    package_dir={"siamtransfer": "siamtransfer", "siamtransfer.configs": "configs"},
)
