"""uploaded bytes of a picture -> its pixels, upright, in RGB

Runs in the sandbox: no torch, no NumPy, and nothing imported on the way.
"""

import io
import re
import warnings

from PIL import Image, ImageColor, ImageOps, ImagePalette, MpoImagePlugin, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from aiprod_components.errors import InvalidMediaError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_SIDE = 8192
MAX_PIXELS = 7680 * 4320  # an 8K frame
MAX_PIXELS_TOGETHER = 2 * MAX_PIXELS  # of all pictures of a body
MAX_BYTES = 20_000_000
MAX_SCANS = 100  # of a JPEG, each of which goes over all its pixels; a progressive one has ten

JPEG_START = b"\xff\xd8"
# What follows FF in a JPEG where something begins that says its length; not in pixels, and not in a marker of two bytes.
SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
SCAN, END = b"\xda", b"\xd9"

# Pillow imports its parts when it meets what they read, which is too late in the sandbox: nothing can be opened there any more.
Image.preinit()  # PNG and JPEG
PARTS = (ImageColor, ImagePalette, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin)


def decode_picture(data: bytes, *, field: str, most: int = MAX_PIXELS) -> Image.Image:
    """Refused before any pixel is decoded if it has more than `most`. Raises InvalidMediaError, or MemoryError at the sandbox's limit."""
    if len(data) > MAX_BYTES:
        raise InvalidMediaError(f"{field} must be at most {MAX_BYTES} bytes, got {len(data)}", field=field)
    if data.startswith(JPEG_START) and (count := _scans(data)) > MAX_SCANS:
        raise InvalidMediaError(f"{field} must have at most {MAX_SCANS} scans, got {count}; save it again as PNG or JPEG", field=field)
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
    except (InvalidMediaError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InvalidMediaError(f"{field} is not a picture; send one of {', '.join(FORMATS)}", field=field) from error
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+ pixels", str(error))  # Pillow does not say its sides
        raise _too_large(field, pixels[0] if pixels else "many more") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over in a damaged file
        raise InvalidMediaError(f"{field} is a damaged picture ({error}); save it again as PNG or JPEG", field=field) from error


def fit_picture(image: Image.Image, *, height: int, width: int) -> Image.Image:
    """Crops the middle to the frame's aspect and resizes it (Lanczos)."""
    return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)


def _scans(data: bytes) -> int:
    """Of a JPEG, up to its end; behind that cameras put what they like."""
    count, at = 0, len(JPEG_START)
    while (segment := SEGMENT.search(data, at)) and segment[1] != END:
        count += segment[1] == SCAN
        at = segment.end() + int.from_bytes(data[segment.end() : segment.end() + 2])
    return count


def _too_large(field: str, size: str) -> InvalidMediaError:
    limits = f"at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all"
    return InvalidMediaError(f"{field} must be {limits}, got {size}; make it smaller", field=field)


def _as_rgb(image: Image.Image) -> Image.Image:
    """What is transparent becomes white."""
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow's own conversion would cut off at 255
        # 1 / 257 is not exact: a thousandth keeps its multiples whole, and is less than the distance to the next.
        return image.convert("I").point(lambda level: level * (1 / 257) + 0.001).convert("L").convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
