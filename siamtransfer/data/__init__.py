"""Sets of images: opened by name, read by index."""

from siamtransfer.data.imageset import ImageSet, UnreadableImage
from siamtransfer.data.labelled import open_labelled
from siamtransfer.data.registry import open_images

__all__ = ["ImageSet", "UnreadableImage", "open_images", "open_labelled"]
