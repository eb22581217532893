"""From what is known of a network to its reading: each fact from the first source that states it.

The sources in their order: what the file holds and what lies beside it (both `stated`), the user's flags,
what the format fixes. What remains is assumed, or refused where two readings are both common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.names import POSITIONS, RESNETS, STEMS, TIMM
from siamtransfer.checkpoints.channel_facts import (
    ORDER_OF_DATA,
    RGB_CHANNELS,
    assumed_normalisation,
    fit_channels,
)
from siamtransfer.checkpoints.file_format import Format
from siamtransfer.checkpoints.normalisation import CIFAR10, CLIP, IMAGENET, Normalisation, parse_normalisation
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.reading import ASSUMED, Fact, Reading, describe_value, flag_of
from siamtransfer.utils.errors import UserError


class AmbiguousReading(UserError):
    """Two readings of a file are both common, and nothing says which it is."""


Facts = dict[str, Fact[Any]]
"""Facts by the names of Reading's attributes, and `architecture`, a name of `build_backbone`."""


def facts_from(source: str, values: Mapping[str, Any]) -> Facts:
    """Several facts of one source."""
    return {name: Fact(value, source) for name, value in values.items()}


def facts_of_user(options: ReadingOptions | None) -> Facts:
    """What the flags say.

    Raises:
        UserError: a flag's value is not understood.
    """
    if options is None:
        return {}
    facts: Facts = {}
    for name in ("channels", "stride_in_1x1", "stem", "output_stride", "heads", "positions", "architecture"):
        value = getattr(options, name)
        if value is not None:
            facts[name] = Fact(value, flag_of(name))
    if options.normalisation is not None:
        facts["normalisation"] = Fact(parse_normalisation(options.normalisation), flag_of("normalisation"))
    if options.channels not in (None, "rgb", "bgr"):
        raise UserError(f"--channels is rgb or bgr, not {options.channels!r}")
    if options.positions not in (None, *POSITIONS):
        raise UserError(f"--positions {options.positions!r} is unknown; take {', '.join(POSITIONS)}")
    if options.stem is not None and options.stem not in STEMS:
        raise UserError(f"--stem {options.stem!r} is unknown; take {', '.join(STEMS)}")
    return facts


def facts_of_own(architecture: Architecture, normalisation: Normalisation, source: str) -> Facts:
    """All facts of a network that is known completely."""
    values: dict[str, Any] = {"normalisation": normalisation, "channels": "rgb"}
    if architecture.stem is not None:
        values |= {"stem": architecture.stem, "output_stride": architecture.output_stride}
        if RESNETS[architecture.name].bottleneck:
            values["stride_in_1x1"] = architecture.stride_in_1x1
    elif architecture.attention_heads is not None:
        values["heads"] = architecture.attention_heads
        if has_positions(architecture):
            values["positions"] = architecture.positions or POSITIONS[0]
    return facts_from(source, values)


def without_architecture(user: Facts, architecture: Architecture) -> Facts:
    """The user's facts about a file whose network is known.

    Raises:
        UserError: the user names another network.
    """
    named = user.get("architecture")
    names = {architecture.name, architecture.name.removeprefix(TIMM), TIMM + architecture.name}
    if named is not None and named.value not in names:
        raise UserError(f"--architecture says {named.value}, and the network is {architecture.name}")
    return {name: fact for name, fact in user.items() if name != "architecture"}


def join(first: Facts, second: Facts) -> Facts:
    """Both, the first one's where both state a fact; an assumption gives way.

    Raises:
        UserError: they contradict each other; the rest of a sentence that begins with the file's name.
    """
    first = {name: fact for name, fact in first.items() if not fact.assumed or name not in second}
    for name, fact in second.items():
        if name in first and not fact.assumed and not _same(first[name].value, fact.value):
            raise UserError(
                f"is contradicted: {first[name].source} says {describe_value(name, first[name].value)}, and "
                f"{fact.source} says {describe_value(name, fact.value)}"
            )
    return second | first


def kind_of(architecture: Architecture) -> str:
    """`7x7` or `3x3`, a ResNet by the kernel of its stem; `vit`; `other`."""
    if architecture.stem is not None:
        kernel = STEMS[architecture.stem].kernel
        return f"{kernel}x{kernel}"
    return "vit" if architecture.attention_heads is not None else "other"


def has_positions(architecture: Architecture) -> bool:
    """Whether it is a plain ViT whose position embeddings can be interpolated in several ways."""
    return kind_of(architecture) == "vit" and "pos_embed" in architecture.shapes()


def resolve(
    form: Format, architecture: Architecture, stated: Facts, user: Facts, *, fixed: Facts | None = None
) -> tuple[Architecture, Reading]:
    """The architecture and the reading of a network.

    Args:
        form: the format that explains the file.
        architecture: what names and shapes of the tensors suggest.
        stated: what the file or what lies beside it states, or suggests: those facts are assumed.
        user: what the user's flags say.
        fixed: what the format fixes, beyond `form.fixes`.

    Raises:
        AmbiguousReading: two readings are both common, and nothing says which.
        UserError: a flag contradicts what is stated or does not apply to the network. Both are the rest of a
            sentence that begins with the file's name.
    """
    channels = architecture.in_channels
    stated, user = fit_channels(channels, stated, user)
    for facts in (stated, user):
        _refuse_foreign(architecture, facts, strict=facts is user)
    guessed = {name: fact for name, fact in stated.items() if fact.assumed}
    stated = {name: fact for name, fact in stated.items() if not fact.assumed}
    _refuse_contradictions(stated, user)
    kind = kind_of(architecture)
    by_format = facts_from(f"the format {form.name}", form.fixes.get(kind, {}))
    if "heads" in by_format and by_format["heads"].value is None:
        by_format["heads"] = Fact(architecture.attention_heads, by_format["heads"].source)
    if "positions" in by_format and "reg_token" in architecture.shapes():
        # DINOv2's networks with registers are antialiased, in Meta's code and in transformers.
        by_format["positions"] = Fact(POSITIONS[0], by_format["positions"].source)
    if channels != RGB_CHANNELS:  # the formats' are of RGB images
        by_format.pop("normalisation", None)
        guessed.pop("normalisation", None)
    known = guessed | by_format | (fixed or {}) | user | stated
    _refuse_ambiguous(form, architecture, kind, known)
    defaults: dict[str, Any] = {"normalisation": IMAGENET, "channels": "rgb"}
    if form.name.startswith("solo-learn") and kind == "3x3":
        defaults["normalisation"] = CIFAR10  # or CIFAR-100's; no other set has this stem there
    if form.name == "open-clip":
        defaults["normalisation"] = CLIP  # of most; some have Inception's, a half
    if channels != RGB_CHANNELS:
        defaults["normalisation"] = assumed_normalisation(channels)
        known["channels"] = ORDER_OF_DATA
    if kind in ("7x7", "3x3"):
        defaults |= {"stem": architecture.stem, "output_stride": architecture.output_stride}
        if RESNETS[architecture.name].bottleneck:
            defaults["stride_in_1x1"] = False
    if kind == "vit":
        defaults["heads"] = architecture.attention_heads
        if has_positions(architecture):
            defaults["positions"] = architecture.positions or POSITIONS[0]
    complete: Any = {name: known.get(name, Fact(value, ASSUMED)) for name, value in defaults.items()}
    reading = Reading(**complete, preprocessing=known.get("preprocessing"), notes=form.notes)
    return _with_reading(architecture, reading), reading


def _with_reading(architecture: Architecture, reading: Reading) -> Architecture:
    values = {name: fact.value for name, fact in reading.facts.items()}
    stated = ("stem", "output_stride", "stride_in_1x1")
    chosen: Any = {name: values[name] for name in stated if name in values}
    if "positions" in values:
        chosen["positions"] = None if values["positions"] == POSITIONS[0] else values["positions"]
    architecture = architecture._replace(**chosen)
    return architecture.with_heads(values["heads"]) if "heads" in values else architecture


def _refuse_foreign(architecture: Architecture, facts: Facts, *, strict: bool) -> None:
    """Refuses facts that this network cannot have; drops those that a settings file states for any network
    unless `strict`."""
    kind = kind_of(architecture)
    resnet = kind in ("7x7", "3x3")
    bottleneck = resnet and RESNETS[architecture.name].bottleneck
    applies = {"stem": resnet, "output_stride": resnet, "stride_in_1x1": bottleneck, "heads": kind == "vit"}
    applies["positions"] = has_positions(architecture)
    for name, possible in applies.items():
        if name in facts and not possible:
            if strict:
                raise UserError(f"holds {architecture.name}, to which {facts[name].source} does not apply")
            del facts[name]
    if "stem" in facts and f"{STEMS[facts['stem'].value].kernel}x" != kind[:2]:
        fact = facts["stem"]
        raise UserError(
            f"has a first convolution of {kind}, and {fact.source} says {describe_value('stem', fact.value)}"
        )


def _refuse_contradictions(stated: Facts, user: Facts) -> None:
    for name, fact in user.items():
        if name in stated and not _same(stated[name].value, fact.value):
            known = stated[name]
            raise UserError(
                f"has {describe_value(name, known.value)}, as {known.source} says, and {fact.source} says "
                f"{describe_value(name, fact.value)}: leave {fact.source} out"
            )


def _refuse_ambiguous(form: Format, architecture: Architecture, kind: str, known: Facts) -> None:
    """Refuses what is common in two readings that give different numbers."""
    if form.name == "detectron2":
        needed = ["normalisation", "channels"]
        needed += ["stride_in_1x1"] if RESNETS[architecture.name].bottleneck else []
        if any(name not in known for name in needed):
            raise AmbiguousReading(
                "is a Detectron2 file, and nothing in or beside it says whether its network is MSRA's (BGR, "
                "std 1, stride in the 1x1 convolutions) or torchvision's: put its config.yaml beside it, or "
                "say --normalisation caffe --channels bgr --stride-in-1x1, or "
                "--normalisation imagenet --channels rgb --no-stride-in-1x1"
            )
    if kind == "vit" and "heads" not in known and _is_vit_small(architecture):
        raise AmbiguousReading(
            "holds a ViT-S, and nothing says whether it has 6 attention heads (DINO's, DeiT's, timm's) or 12 "
            "(MoCo v3's): say --heads 6 or --heads 12"
        )
    if kind == "3x3" and form.headed and "stem" not in known:
        raise AmbiguousReading(
            "holds a ResNet with a 3x3 stem beside heads, and nothing says whether the stem pads by 1 "
            "(as usual) or by 2 (solo-learn's): say --stem small or --stem small-pad2"
        )


def _is_vit_small(architecture: Architecture) -> bool:
    return re.fullmatch(r"timm:vit_small_patch\d+_\d+", architecture.name) is not None


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Normalisation) and isinstance(second, Normalisation):
        if len(first.mean) != len(second.mean):
            return False
        pairs = zip((*first.mean, *first.std), (*second.mean, *second.std), strict=True)
        return all(abs(a - b) < 1e-4 for a, b in pairs)
    return bool(first == second)
