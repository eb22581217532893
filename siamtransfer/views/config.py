"""The section `views` of a configuration: a recipe by name, and what differs from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from siamtransfer.utils.errors import UserError
from siamtransfer.views.mix_spec import MixKind, mix_of
from siamtransfer.views.recipes import recipe
from siamtransfer.views.view_spec import Interpolation, Recipe


@dataclass
class ViewsConfig:
    """How an image becomes views: a recipe, and settings that replace its own; null keeps the recipe's."""

    recipe: str = "simsiam"
    """A recipe by name: simsiam, moco-v1, simclr, byol, swav, cifar-simsiam, grey, …"""
    size: int | None = None
    """Side in pixels of the global views; local views shrink or grow in proportion."""
    scale: list[float] | None = None
    """Smallest and largest fraction of the image's area that a global view covers, such as [0.2, 1]."""
    ratio: list[float] | None = None
    """Narrowest and widest crop, width / height."""
    interpolation: Interpolation | None = None
    """bilinear or bicubic."""
    flip_p: float | None = None
    """Probability of a horizontal flip."""
    jitter: list[float] | None = None
    """Strengths of brightness, contrast, saturation and hue (hue at most 0.5); 0 leaves one out."""
    jitter_p: float | None = None
    """Probability of the colour jitter."""
    grey_p: float | None = None
    """Probability of losing all colour."""
    grey_first: bool | None = None
    """Lose the colour before the jitter instead of after it."""
    blur_p: float | None = None
    """Probability of a Gaussian blur."""
    blur_sigma: list[float] | None = None
    """Smallest and largest sigma of the blur, in pixels of the view."""
    solarize_p: float | None = None
    """Probability of solarization."""
    solarize_threshold: int | None = None
    """Grey levels (of 255) from here upwards are inverted by solarization."""
    mean: list[float] | None = None
    """Normalisation: mean of each channel, for values from 0 to 1; null: the recipe's, or, of images of other
    than three channels, measured."""
    std: list[float] | None = None
    """Normalisation: standard deviation of each channel."""
    mix: MixKind | None = None
    """Mix every view with the same view of another image: cutmix pastes a box, mixup blends all pixels. The
    method then learns from mixed views, whose target is the mixture, by area, of the targets of both images;
    null: views of one image."""
    mix_alpha: float | None = None
    """The share of the image itself comes from Beta(alpha, alpha); null: 1, any share alike."""
    mix_p: float | None = None
    """Probability that a view is mixed; null: 1."""
    per_view: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of single views, such as {1: {blur_p: 1}, local: {scale: [0.05, 0.3], size: 64}}. Keys are 1,
    2, … in the order of the views, global or local."""

    def __post_init__(self) -> None:
        # YAML reads 1 as an integer; saved configurations have text as keys.
        self.per_view = {str(view): changes for view, changes in self.per_view.items()}

    def build(self) -> Recipe:
        """The recipe with these settings.

        Raises:
            UserError: no such recipe, view or setting, or a value out of its range; names the key.
        """
        settings = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        mix = mix_of(settings.pop("mix"), settings.pop("mix_alpha"), settings.pop("mix_p"))
        return dataclasses.replace(recipe(settings.pop("recipe"), **settings), mix=mix)

    @classmethod
    def from_dict(cls, section: Mapping[str, Any]) -> ViewsConfig:
        """The section of a saved configuration; keys that an older version did not have take their defaults.

        Raises:
            UserError: a key is unknown, being of a newer version.
        """
        unknown = sorted(set(section) - {entry.name for entry in dataclasses.fields(cls)})
        if unknown:
            raise UserError(
                f"the saved configuration has the unknown key views.{unknown[0]}; a newer version wrote it"
            )
        return cls(**section)
