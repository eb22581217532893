"""A small map of images without a network."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from siamtransfer.image_map.image_map import ImageMap, Thumbnails

COLOURS = ((200, 30, 30), (30, 160, 60), (40, 60, 200))


def small_map(seed: int = 0, images: int = 6, **changed: Any) -> ImageMap:
    """`images` plain squares of 8 pixels in three colours, their classes, at random places; `changed`
    replaces fields."""
    generator = np.random.default_rng(seed)
    positions = generator.random((images, 2)).astype(np.float32)
    distances = ((positions[:, None] - positions[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    neighbours = np.argsort(distances, axis=1)[:, :2].astype(np.int32)
    labels = np.arange(images) % 3
    columns = int(np.ceil(np.sqrt(images)))
    sheet = np.zeros((-(-images // columns) * 8, columns * 8, 3), np.uint8)
    for image in range(images):
        row, column = divmod(image, columns)
        sheet[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = COLOURS[labels[image]]
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="WebP", lossless=True)
    fields: dict[str, Any] = {
        "positions": positions,
        "labels": labels,
        "neighbours": neighbours,
        "similarities": np.sort(generator.random((images, 2)).astype(np.float32))[:, ::-1],
        "typicality": generator.random(images).astype(np.float32),
        "indices": np.arange(images),
        "thumbnails": Thumbnails((file.getvalue(),), 8, columns, 4096),
        "class_names": ("red", "green", "blue"),
        "names": tuple(f"{('red', 'green', 'blue')[label]}/{n:03}.png" for n, label in enumerate(labels)),
        "facts": {
            "backbone": {"backbone": "runs/a/checkpoint.pth", "weights_digest": "0" * 64, "branch": "model"},
            "set": {"name": "squares", "split": "test", "fingerprint": "f" * 64, "images": images},
            "features": {"layers": "output", "precision": "float32"},
            "layout": {"method": "tsne", "seed": seed, "variance_share": 0.5},
            "quality": {"neighbours_kept": 100.0, "trustworthiness": 99.0},
        },
    }
    return ImageMap(**fields | changed)
