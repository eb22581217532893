"""The options of the robustness evaluator. This module imports neither torch nor NumPy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.evaluation.linear.config import STRENGTHS
from siamtransfer.evaluation.named_folders import require_distinct, split_word
from siamtransfer.utils.checks import above, at_least, changed
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import refuse_record

HeadKind = Literal["linear", "knn"]
CLEAN, CORRUPTED = "clean", "corrupted"
"""The names, in a record, of the test split and of its corrupted versions."""
PUBLISHED = "imagenet-c"
"""The set of corrupted images that others made."""
COUNTED = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""What `all` means: the corruptions of ImageNet-C but frost, which takes photographs of frost."""
OF_HEAD: dict[HeadKind, tuple[str, ...]] = {
    "linear": ("strengths", "standardise"),
    "knn": ("k", "temperature"),
}
"""Options that one head alone has."""
EXTRA = ("speckle_noise", "gaussian_blur", "saturate")
"""Further ones, which the authors keep to validate with."""


@dataclass
class RobustnessConfig(OneCheckpointConfig):
    """The robustness evaluator's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (
        *(name for name in EvaluationConfig.common if not name.endswith("_features")),
        "shifted",
        "corruptions",
        "severities",
        "head",
    )

    shifted: list[str] = field(default_factory=list)
    """Further test sets of the classes of train, as NAME=FOLDER. imagenet-v2, imagenet-r, imagenet-a,
    imagenet-sketch and imagenet-c are opened as published; any other name is yours, for class folders."""
    corruptions: list[str] | None = None
    """Corruptions of the test images: names such as fog, all (the 14 of ImageNet-C that need no photographs),
    or none; null: all where no --shifted is given, else none."""
    severities: list[int] = field(default_factory=lambda: [1, 3, 5])
    """How strong, from 1 to 5; of imagenet-c, too."""
    head: HeadKind = "linear"
    """What is fitted to train, once: linear (as `linear --protocol logistic`) or knn."""
    strengths: list[float] = field(default_factory=lambda: list(STRENGTHS))
    """linear: values of scikit-learn's C."""
    standardise: bool = False
    """linear: give every feature unit deviation first."""
    k: int = 20
    """knn: number of neighbours."""
    temperature: float = 0.07
    """knn: temperature of the vote."""
    absent_classes: Literal["published", "masked", "kept"] = "published"
    """Whether a class of train that a test set lacks can be predicted there; published: as the set's authors
    do, masked for imagenet-r and imagenet-a, kept for the others."""
    cache_corrupted: bool = False
    """Keep the features of corrupted images in the cache, too."""
    seed: int = 0
    """Decides the corruptions' chance, the held-out part of train, and what becomes a test split where there
    is none."""

    @property
    def corruption_names(self) -> list[str]:
        """The corruptions that are asked for, each once."""
        stated = self.corruptions
        if stated is None:
            stated = ["none"] if self.shifted else ["all"]
        return {"none": [], "all": list(COUNTED)}.get(" ".join(stated), list(stated))

    @property
    def shifted_folders(self) -> dict[str, str]:
        """The folder of each further test set by its name."""
        return dict(self._pair(word) for word in self.shifted)

    @property
    def set_names(self) -> list[str]:
        """The names of all that gets a record beside the first."""
        return [*([CORRUPTED] if self.corruption_names else []), *self.shifted_folders]

    def check(self) -> None:
        if self.feature_files:
            raise UserError(
                "robustness is measured on images: give a checkpoint and a set instead of feature files"
            )
        if self.checkpoint is None:
            raise UserError("give a checkpoint, or a baseline: random:NAME, torchvision:NAME, pixels")
        super().check()
        self._check_sets()
        if min(self.severities, default=0) < 1 or max(self.severities) > 5:
            raise UserError("--severities are whole numbers from 1 to 5")
        if len(set(self.severities)) < len(self.severities):
            raise UserError("--severities names one severity twice")
        if min(self.strengths, default=0) <= 0:
            raise UserError("--strengths must be above 0")
        at_least("--k", self.k, 1)
        above("--temperature", self.temperature, 0)
        self._refuse_options_of_nothing()
        at_least("--seed", self.seed, 0)
        refuse_record(self.record, self.set_names)

    def _refuse_options_of_nothing(self) -> None:
        """Refuses what changes nothing: options of the other head, of a cache where nothing is kept, or of
        sets or corruptions where there are none."""
        for head, options in OF_HEAD.items():
            useless = changed(self, *options) if head != self.head else []
            if useless:
                raise UserError(
                    f"--{useless[0]} is of --head {head}, and the head is {self.head}: leave it out, or add "
                    f"--head {head}"
                )
        if changed(self, "absent_classes") and not self.shifted:
            raise UserError(
                "--absent-classes is about the sets of --shifted, and none is named: leave it out"
            )
        if self.cache_corrupted and self.cache == "none":
            raise UserError("--cache-corrupted keeps features, and --cache none keeps none: leave one out")
        if self.corruption_names:
            return
        if self.cache_corrupted:
            raise UserError(
                "--cache-corrupted keeps features of corrupted images, and none are made: leave it out"
            )
        if changed(self, "severities") and PUBLISHED not in self.shifted_folders:
            raise UserError(
                f"--severities is of corruptions and of {PUBLISHED}, and neither is measured: leave it out, "
                "or name corruptions with --corruptions"
            )

    def _check_sets(self) -> None:
        """Refuses names of corruptions and sets that mean nothing."""
        known = (*COUNTED, *EXTRA)
        for name in self.corruption_names:
            if name not in known:
                raise UserError(self._unknown_corruption(name, known))
        stated = self.corruptions
        if stated is not None and (not stated or len(set(stated)) < len(stated)):
            raise UserError("--corruptions names none, or one twice: give all, none, or names once each")
        names = [self._pair(word)[0] for word in self.shifted]
        require_distinct("--shifted", names, (CLEAN, CORRUPTED))
        if not self.set_names:
            raise UserError(
                "there is nothing to measure but the test split: name a set with --shifted NAME=FOLDER, or "
                "leave --corruptions none out"
            )

    @staticmethod
    def _unknown_corruption(name: str, known: tuple[str, ...]) -> str:
        if name in ("all", "none"):
            return f"--corruptions {name} stands alone, without names beside it"
        if name == "frost":
            return (
                "--corruptions frost lays photographs of frost over images, which this package has not; "
                "ImageNet-C itself, --shifted imagenet-c=FOLDER, has it"
            )
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"--corruptions has no {name}{hint} (there are {', '.join(known)}, or all, or none)"

    @staticmethod
    def _pair(word: str) -> tuple[str, str]:
        name, folder = split_word("--shifted", word)
        if folder is None:
            raise UserError(f"--shifted {word} names no folder: say --shifted {word}=FOLDER")
        return name, folder
