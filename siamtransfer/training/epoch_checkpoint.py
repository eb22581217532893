"""The state of an evaluator that trains, kept after every whole epoch, so that it can go on."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write


@dataclass
class EpochFile:
    """One file of tensors, numbers and texts; `identity` says of which training it is."""

    path: Path
    identity: dict[str, str]

    def read(self, *, wanted: bool) -> dict[str, Any] | None:
        """What was written last; None where there is nothing.

        Raises:
            UserError: there is a file and it was not wanted, or it is of another training, or damaged.
        """
        if not self.path.exists():
            return None
        if not wanted:
            raise UserError(
                f"{self.path} holds a training that was begun: go on with --resume, take another --run, or "
                "remove it"
            )
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            there = state["identity"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(f"{self.path} cannot be read: remove it to begin anew") from error
        for key in sorted({*self.identity, *there}):
            if there.get(key) != self.identity.get(key):
                raise UserError(
                    f"{self.path} is of another training: {key} is {there.get(key)} there and "
                    f"{self.identity.get(key)} now"
                )
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replaces the file, whole or not at all."""
        with atomic_write(self.path) as file:
            torch.save({**state, "identity": self.identity}, file)
