"""From an image file's bytes to a square of pixels: the one decoder of all preprocessing.

Pillow decodes (JPEG through libjpeg-turbo, at full size: no draft mode) and resamples. The pixels
depend on the versions of what decodes, which `versions` names, and on nothing else of the machine.
"""

import io
import warnings

import numpy as np
from PIL import Image, features

from lockstep.datasets.survey import Undecodable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
CONVERTED = {
    "RGB": (),
    "L": ("grayscale",),
    "1": ("grayscale",),
    "LA": ("grayscale", "transparent"),
    "P": ("palette",),
    "PA": ("palette", "transparent"),
    "RGBA": ("transparent",),
    "CMYK": ("CMYK",),
}
"""From Pillow's modes to the words in which conversions to RGB are counted."""
DEPTH, COLOUR = 24, 25
"""Where a PNG says how many bits a channel has, and which channels there are."""

BITS = 258
"""The tag of a TIFF that says how many bits each channel has."""

# Pillow reads a picture's density from its EXIF data and warns of damage there; it is not used.
warnings.filterwarnings("ignore", module="PIL")


def square(content: bytes, size: int) -> tuple[np.ndarray, list[str]]:
    """Decode an image, bring its shorter side to `size` and cut out the centre.

    Both at once, with Pillow's antialiased bilinear filter: only the centred square is computed, at
    its exact scale. Grey becomes three equal channels, CMYK is converted by Pillow's formula,
    transparency is dropped, of 16 bits a channel the upper eight are kept (grey of 16 bits Pillow
    does not convert so, and it is refused), of several pictures in a file the first is taken.
    Embedded colour profiles and EXIF orientation are not applied.

    Returns:
        uint8 ``(size, size, 3)``, and what was done that is worth counting.

    Raises:
        Undecodable: says why.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            picture.load()
            notes = _notes(picture, content)
            image = picture if picture.mode == "RGB" else picture.convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise Undecodable(f"is none of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise Undecodable("has far too many pixels") from error
    except (Undecodable, MemoryError):  # a machine's fault is not the file's
        raise
    # For damaged files Pillow raises whatever comes: OSError, SyntaxError, AssertionError, …
    except Exception as error:
        raise Undecodable(str(error) or f"is damaged ({type(error).__name__})") from error
    width, height = image.size
    if (width, height) != (size, size):
        short = min(width, height)
        if short < size:
            notes.append("enlarged")
        left, top = (width - short) / 2, (height - short) / 2
        image = image.resize(
            (size, size),
            Image.Resampling.BILINEAR,
            box=(left, top, left + short, top + short),
            reducing_gap=None,
        )
    # As `np.asarray(image)`, in half the time.
    pixels = np.frombuffer(image.tobytes("raw", "RGB"), np.uint8)
    return pixels.reshape(size, size, 3), notes


def _notes(picture: Image.Image, content: bytes) -> list[str]:
    """Return what becoming RGB of 8 bits a channel changes; refuse what cannot become it."""
    kind = picture.format
    deep = kind == "PNG" and content[DEPTH] == 16
    if kind == "TIFF":
        deep = max(picture.tag_v2.get(BITS, (8,))) > 8  # type: ignore[attr-defined]
    if picture.mode not in CONVERTED:
        what = "is grayscale of 16 bits" if deep else f"has the unknown mode {picture.mode}"
        raise Undecodable(f"{what}; convert it to 8 bits a channel")
    notes = list(CONVERTED[picture.mode])
    if "transparency" in picture.info and "transparent" not in notes:
        notes.append("transparent")
    if getattr(picture, "n_frames", 1) > 1:
        notes.append("several pictures")
    if deep:
        notes.append("16 bits a channel")
        if kind == "PNG" and content[COLOUR] == 4:
            notes.append("grayscale")  # with transparency, which Pillow reads as RGBA
    return [kind, *notes] if kind in FORMATS[1:] else notes


def versions() -> dict[str, str]:
    """Return the versions that the pixels depend on."""
    import PIL

    jpeg = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    number = features.version_feature("libjpeg_turbo") or features.version_codec("jpg")
    found = {"Pillow": PIL.__version__, jpeg: str(number)}
    if features.check_module("webp"):
        found["libwebp"] = str(features.version_module("webp"))
    return found
