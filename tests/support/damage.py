"""Random damages to the bytes of a file, the same ones every time."""

from __future__ import annotations

import random
from collections.abc import Iterator

DAMAGES = 200


def damages(content: bytes, another: bytes | None, *, seed: int = 0, count: int = DAMAGES) -> Iterator[bytes]:
    """`count` damaged copies of `content`: flipped bits, a changed byte, a lost or doubled one, a cut end, a
    zeroed block, two swapped blocks; and, where it is given, `another` file of the kind in its place."""
    generator = random.Random(seed)
    made = 0
    if another is not None and another != content:
        yield another
        made = 1
    while made < count:
        damaged = _damage(bytearray(content), generator)
        if damaged != content:
            yield damaged
            made += 1


def _damage(content: bytearray, generator: random.Random) -> bytes:
    length = len(content)
    at = generator.randrange(length)
    size = generator.randint(1, max(1, min(512, length // 4)))
    match generator.randrange(8):
        case 0 | 1:
            for _ in range(generator.choice([1, 1, 1, 2, 8])):
                content[generator.randrange(length)] ^= 1 << generator.randrange(8)
        case 2:
            content[at] = generator.randrange(256)
        case 3:
            del content[at]
        case 4:
            content.insert(at, content[at])
        case 5:
            del content[at:]
        case 6:
            end = min(length, at + size)
            content[at:end] = bytes(end - at)
        case 7:
            other = generator.randrange(length)
            first, second = sorted((min(at, length - size), min(other, length - size)))
            if first + size <= second:
                one, two = content[first : first + size], content[second : second + size]
                content[first : first + size], content[second : second + size] = two, one
    return bytes(content)
