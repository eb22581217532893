"""A map of images: similar ones lie close together, and each knows its neighbours."""

from siamtransfer.image_map.image_map import ImageMap, is_image_map

__all__ = ["ImageMap", "is_image_map"]
