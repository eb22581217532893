"""The message of a UserError is one sentence, wherever it was raised."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader, Dataset

from siamtransfer.utils.errors import UserError

SENTENCE = "the file a: b is broken: mend it"


class Broken(Dataset[int]):
    """A data set none of whose entries can be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise ValueError("odd")
        except ValueError as error:
            raise UserError(SENTENCE) from error


@pytest.mark.fault
@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_process_passes_the_sentence_only(workers: int) -> None:
    with pytest.raises(UserError) as caught:
        list(DataLoader(Broken(), num_workers=workers))
    assert str(caught.value) == SENTENCE


def test_a_message_that_begins_like_pytorchs_is_kept() -> None:
    assert str(UserError("Caught in a net")) == "Caught in a net"
