"""Small DICOM files."""

from __future__ import annotations

import io

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def dicom(
    values: np.ndarray, bits: int, *, kind: str = "MONOCHROME2", frames: int | None = None, **tags: object
) -> bytes:
    """An uncompressed DICOM file of values [H,W] or [frames,H,W], of integers; `tags` in place of others."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, "1.2.3"
    file.Rows, file.Columns = values.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, kind
    file.BitsAllocated, file.BitsStored, file.HighBit = values.dtype.itemsize * 8, bits, bits - 1
    file.PixelRepresentation = int(np.issubdtype(values.dtype, np.signedinteger))
    if frames is not None:
        file.NumberOfFrames = frames
    file.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
