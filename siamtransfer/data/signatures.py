"""What the content of a file is that is no image: for the sentence which says why it is not read."""

from __future__ import annotations

_STARTS = {
    b"version https://git-lfs": "a pointer of Git LFS, whose file `git lfs pull` fetches",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript drawing",
    b"8BPS": "a document of Photoshop",
    b"gimp xcf": "a document of GIMP",
    b"\x00\x00\x01\x00": "an icon",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM)",
    b"FUJIFILMCCD-RAW": "a camera's raw file",
    b"v/1\x01": "an OpenEXR image",
    b"SIMPLE  =": "a FITS file",
    b"\x93NUMPY": "an .npy array",
}
_BRANDS = {b"crx ": "a camera's raw file", b"qt  ": "a video"}
_VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"M4V ", b"3gp")
_TEXT = 64  # bytes of which all are those of text


def kind_of_content(data: bytes) -> str | None:
    """What a file is by its first bytes, with an article; None where that is not known."""
    known = next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)
    if known is not None:
        return known
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return _BRANDS.get(brand) or ("a video" if brand.startswith(_VIDEO_BRANDS) else None)
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, such as a download that failed leaves"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "an SVG drawing, to be rendered to PNG first"
    head = data[:_TEXT]
    if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "text"
    return "nothing but zeros" if not any(data) else None
