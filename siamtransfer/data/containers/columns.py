"""Images and labels in Arrow columns, as parquet files and Hugging Face data sets hold them.

The image column is a struct of `bytes` and `path`, as Hugging Face writes it, or binary. The label column is
of integers or of text; class names come from Hugging Face's description of the columns where there is one.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from siamtransfer.data.containers.label_texts import name_labels, number_labels
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "picture")
LABEL_NAMES = ("label", "labels", "class", "cls", "target", "fine_label")


@dataclass(frozen=True)
class Columns:
    """Where the images and the labels of a table are.

    Attributes:
        image: the column of the images.
        nested: whether it is a struct of `bytes` and `path`.
        has_path: whether it has a `path`.
        label: the column of the labels, None without any.
        classes: the names of the classes that the table's description gives; empty where it gives none.
    """

    image: str
    nested: bool
    has_path: bool
    label: str | None
    classes: tuple[str, ...]

    @property
    def bytes_column(self) -> str:
        """The path of the column of bytes in a parquet file."""
        return f"{self.image}.bytes" if self.nested else self.image

    @property
    def light_columns(self) -> list[str]:
        """The columns that are read when the set is opened: all but the images."""
        names = [f"{self.image}.path"] if self.has_path else []
        return names + ([self.label] if self.label is not None else [])


def import_pyarrow() -> None:
    """Raises UserError where pyarrow is not installed."""
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise UserError(
            "parquet files and Hugging Face data sets are read by pyarrow, which is not installed; "
            "install it with pip install 'siamtransfer[parquet]'"
        ) from error


def find_columns(schema: pa.Schema, features: Mapping[str, Any] | None, where: str) -> Columns:
    """The columns of images and labels of a schema; `features` is Hugging Face's description of them, by
    default the one in the schema.

    Raises:
        UserError: there is no image column, or several might be it; a label column of a wrong type.
    """
    features = _features_of(schema) if features is None else features
    image = _image_column(schema, features, where)
    kind = schema.field(image).type
    nested = _is_image_struct(kind)
    has_path = nested and kind.get_field_index("path") >= 0
    label = _label_column(schema, features, where)
    names = _kind(features, label).get("names") if label is not None else None
    return Columns(image, nested, has_path, label, tuple(str(name) for name in names or ()))


def labels_of(column: pa.ChunkedArray, columns: Columns, where: str) -> tuple[np.ndarray | None, list[str]]:
    """int64[N] and the class names of a column of labels; (None, []) where every label is -1, as Hugging Face
    writes a split without labels.

    Raises:
        UserError: a label is missing, negative or not among the class names.
    """
    import pyarrow as pa

    if column.null_count:
        raise UserError(
            f"{column.null_count} of the {len(column)} rows of {printable(where)} have no "
            f"{printable(columns.label or '')}; give each row one, or take the column out"
        )
    if pa.types.is_integer(column.type):
        values = column.to_numpy()
        if (values == -1).all():
            say(f"remark: every label of {printable(where)} is -1, so the set has no labels")
            return None, []
        return number_labels(values, columns.classes, where)
    return name_labels(np.array(column.to_pylist(), dtype=str), columns.classes, where)


def _features_of(schema: pa.Schema) -> Mapping[str, Any]:
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(text)["info"]["features"] if text else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(features: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Hugging Face's description of a column; empty for one of lists or one that it does not name."""
    kind = features.get(name)
    return kind if isinstance(kind, dict) else {}


def _image_column(schema: pa.Schema, features: Mapping[str, Any], where: str) -> str:
    found = [name for name in schema.names if _kind(features, name).get("_type") == "Image"]
    if not found:
        found = [field.name for field in schema if _holds_images(field.type)]
    if not found:
        raise UserError(
            f"{printable(where)} has no column of images (a struct of bytes and path, or binary) among "
            f"{printable(first_few(schema.names))}; store the bytes of the image files in a column image"
        )
    column = found[0] if len(found) == 1 else next((name for name in IMAGE_NAMES if name in found), None)
    if column is None:
        raise UserError(
            f"{printable(where)} has several columns that may be the images ({printable(first_few(found))}); "
            "name one of them image"
        )
    kind = schema.field(column).type
    if not _holds_images(kind):
        raise UserError(
            f"the column {printable(column)} of {printable(where)} is {kind}; images are a struct of bytes "
            "and path, or binary"
        )
    return column


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(_is_image_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_image_struct(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field(kind.get_field_index("bytes")).type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _label_column(schema: pa.Schema, features: Mapping[str, Any], where: str) -> str | None:
    import pyarrow as pa

    named = [name for name in schema.names if _kind(features, name).get("_type") == "ClassLabel"]
    column = next((name for name in LABEL_NAMES if name in schema.names), None)
    if column is None and named:
        if len(named) > 1:
            raise UserError(
                f"{printable(where)} has several columns of labels ({printable(first_few(named))}); name one "
                "of them label"
            )
        column = named[0]
    if column is None:
        return None
    kind = schema.field(column).type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column
    raise UserError(
        f"the column {printable(column)} of {printable(where)} is {kind}; labels are integers or text"
    )
