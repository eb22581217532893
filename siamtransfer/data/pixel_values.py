"""Files whose pixels are numbers, not colours: masks, depth maps."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from siamtransfer.data.decode import FORMATS
from siamtransfer.data.effort import require_bounded
from siamtransfer.data.image_file import read_file
from siamtransfer.data.pixel_form import PixelForm
from siamtransfer.data.pnm import quick_pnm
from siamtransfer.data.sizes import allowed, refused_by_pillow, require_size
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable


def read_pixel_values(
    path: str,
    what: str,
    values_of: Callable[[Image.Image, bytes, str], np.ndarray],
    max_pixels: int | None = None,
) -> np.ndarray:
    """What `values_of` makes of the opened image, of the bytes of its file, and of its path as text.
    `max_pixels` is the limit of the set, see `PixelForm`.

    Raises:
        UserError: the file cannot be read or decoded; `what` says what it should be, as "mask". Those of
            `values_of` pass unchanged.
    """
    where = printable(path)
    try:
        data = read_file(path, where, PixelForm(max_pixels=max_pixels))
        require_bounded(data, where, max_pixels)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with allowed(max_pixels), Image.open(io.BytesIO(quick_pnm(data)), formats=FORMATS) as image:
                require_size((image.height, image.width), where, max_pixels)
                return values_of(image, data, where)
    except UnreadableImage as error:
        raise UserError(f"cannot read the {what} {where}: {error.why}") from error
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        why = refused_by_pillow(error, where, max_pixels).why
        raise UserError(f"cannot read the {what} {where}: {why}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"cannot read the {what} {where}: it is no image; save {what}s as PNG") from error
    except Exception as error:  # Pillow's readers raise errors of many types for damaged files
        known = error.strerror if isinstance(error, OSError) else None
        reason = known or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read the {what} {where}: {reason}; mend the file") from error
