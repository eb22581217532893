"""Whether a file is a TGA image, which Pillow reads.

TGA has no signature at its beginning, so its header has to make sense as a whole. Version 2 has one at its
end. (Truevision TGA File Format Specification, version 2.0.)
"""

from __future__ import annotations

import struct

from PIL import TgaImagePlugin

_END = b"TRUEVISION-XFILE.\0"
_HEADER = struct.Struct("<BBBHHBHHHHBB")
_BITS = {
    1: (8, 16),
    2: (15, 16, 24, 32),
    3: (1, 8, 16),
}  # a pixel, by the kind of image: palette, colours, grey
_PACKED = 8  # added to the kind where pixels are run-length encoded

FORMAT = TgaImagePlugin.TgaImageFile.format


def is_tga(data: bytes) -> bool:
    """Whether a file's content is that of a TGA image. One without run-length encoding has to be whole."""
    if len(data) < _HEADER.size:
        return False
    fields = _HEADER.unpack_from(data)
    comment, palette, kind, _, entries, entry_bits, _, _, width, height, bits, flags = fields
    plain = kind & ~_PACKED
    if palette > 1 or bits not in _BITS.get(plain, ()) or not width or not height or flags & 0xC0:
        return False
    if (plain == 1) != (palette == 1 and entry_bits in (15, 16, 24, 32) and entries > 0):
        return False
    if data.endswith(_END):
        return True
    pixels = height * (-(-width // 8) if bits == 1 else width * -(-bits // 8))
    before = _HEADER.size + comment + entries * -(-entry_bits // 8) * palette
    return len(data) > before and (kind & _PACKED > 0 or len(data) >= before + pixels)
