"""Names and choices of backbones that a configuration needs; imports no torch."""

from __future__ import annotations

from typing import Literal

Stem = Literal["imagenet", "small", "small-pad2"]
"""The first layers of a ResNet: a 7x7 convolution of stride 2 and max-pooling; a 3x3 convolution of stride 1
for images of about 32 pixels; the same with solo-learn's padding of 2."""

FULL_WIDTH = 64
"""Channels of the published ResNets' stem."""

TIMM = "timm:"
"""The prefix that means timm's model of a name, also where torchvision has a model of that name."""
