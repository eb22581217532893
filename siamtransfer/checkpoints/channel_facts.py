"""What is known of a network for images of other than three channels.

The usual normalisations are of RGB images, and so are most that code bases and configurations state. For
other images only one with a number for each channel counts; a value that all channels share is that for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siamtransfer.checkpoints.normalisation import HALF, Normalisation
from siamtransfer.checkpoints.reading import Fact
from siamtransfer.utils.errors import UserError

RGB_CHANNELS = 3
ORDER_OF_DATA: Fact[Any] = Fact("rgb", "the order of the channels, which is that of the data")


def spread(normalisation: Normalisation, channels: int) -> Normalisation | None:
    """The normalisation for so many channels: itself, or the one value that it has for all; None where it has
    neither."""
    if len(normalisation.mean) == channels:
        return normalisation
    if len(set(normalisation.mean)) == len(set(normalisation.std)) == 1:
        return Normalisation(normalisation.mean[:1] * channels, normalisation.std[:1] * channels)
    return None


def assumed_normalisation(channels: int) -> Normalisation:
    """That of a network of which nothing is stated: values from -1 to 1."""
    return Normalisation(HALF.mean[:1] * channels, HALF.std[:1] * channels)


def fit_channels(
    channels: int, stated: Mapping[str, Fact[Any]], user: Mapping[str, Fact[Any]]
) -> tuple[dict[str, Fact[Any]], dict[str, Fact[Any]]]:
    """Both kinds of facts with a normalisation for so many channels, and without an order of the channels.

    Raises:
        UserError: a flag has another number of values, or the only normalisation that is stated has; the rest
            of a sentence that begins with the file's name.
    """
    new_stated, new_user = dict(stated), dict(user)
    if channels == RGB_CHANNELS:
        for facts in (new_stated, new_user):
            _require(facts, channels)
        return new_stated, new_user
    for facts in (new_stated, new_user):
        order = facts.pop("channels", None)
        if order is not None and order.value == "bgr":
            raise UserError(
                f"holds a network for images of {channels} channels, and {order.source} says the order BGR, "
                "which is one of three channels"
            )
    fact = new_stated.get("normalisation")
    if fact is not None and spread(fact.value, channels) is None and "normalisation" in user:
        del new_stated["normalisation"]
    for facts in (new_user, new_stated):
        _require(facts, channels)
    return new_stated, new_user


def _require(facts: dict[str, Fact[Any]], channels: int) -> None:
    """Replaces the normalisation among the facts by that for so many channels.

    Raises:
        UserError: it is one for another number.
    """
    fact = facts.get("normalisation")
    if fact is None:
        return
    fitting = spread(fact.value, channels)
    if fitting is None:
        given = len(fact.value.mean)
        raise UserError(
            f"holds a network for images of {channels} channel{'s' * (channels != 1)}, and {fact.source} "
            f"gives a mean and std of {given}: say --normalisation with {channels} numbers of both, as "
            f"{','.join(['0.5'] * channels)}/{','.join(['0.25'] * channels)}"
        )
    facts["normalisation"] = Fact(fitting, fact.source)
