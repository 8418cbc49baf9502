"""uploaded bytes -> a picture that is known to be one -> a frame of the asked size"""

import io
import re
import warnings

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from aiprod_components.errors import InvalidMediaError
from aiprod_components.values import Picture

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_SIDE = 8192
MAX_PIXELS = 7680 * 4320  # an 8K frame
MAX_PIXELS_TOGETHER = 2 * MAX_PIXELS  # of all pictures of a body
MAX_BYTES = 20_000_000


class PictureChecker:
    """Decodes the uploads of one body, to know that they are whole: the same bytes once, and not too much in all."""

    def __init__(self) -> None:
        self._checked: dict[bytes, Picture] = {}
        self._pixels = 0

    def check(self, data: bytes, *, field: str) -> Picture:
        """Raises InvalidMediaError naming the field and what is accepted."""
        if data not in self._checked:
            image = _decode(data, field=field, most=MAX_PIXELS_TOGETHER - self._pixels)
            self._pixels += image.width * image.height
            self._checked[data] = Picture(data)
        return self._checked[data]


def read_picture(picture: Picture, *, height: int, width: int) -> UInt8[Tensor, "1 1 H W 3"]:
    """Turns the picture upright, crops its middle to the frame's aspect and resizes it (Lanczos). What is transparent becomes white."""
    fitted = ImageOps.fit(_decode(picture.data, field="image"), (width, height), method=Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted))[None, None]


def _decode(data: bytes, *, field: str, most: int = MAX_PIXELS) -> Image.Image:
    """The picture upright, in RGB; refused before any pixel is decoded if it has more than `most`."""
    if len(data) > MAX_BYTES:
        raise InvalidMediaError(f"{field} must be at most {MAX_BYTES} bytes, got {len(data)}", field=field)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures first; the size is checked below, before any pixel is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
            raise _too_large(field, f"{image.width}x{image.height}")
        if image.width * image.height > most:
            raise InvalidMediaError(
                f"{field}: a request's pictures must have at most {MAX_PIXELS_TOGETHER} pixels together; make them smaller", field=field
            )
        return _as_rgb(ImageOps.exif_transpose(image))
    except InvalidMediaError:
        raise
    except UnidentifiedImageError as error:
        raise InvalidMediaError(f"{field} is not a picture; send one of {', '.join(FORMATS)}", field=field) from error
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+ pixels", str(error))  # Pillow does not say its sides
        raise _too_large(field, pixels[0] if pixels else "many more") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over in a damaged file
        raise InvalidMediaError(f"{field} is a damaged picture ({error}); save it again as PNG or JPEG", field=field) from error


def _too_large(field: str, size: str) -> InvalidMediaError:
    limits = f"at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all"
    return InvalidMediaError(f"{field} must be {limits}, got {size}; make it smaller", field=field)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow's own conversion would cut off at 255
        return Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
