"""From an image file's bytes to a square of pixels: the one decoder of all preprocessing.

Pillow decodes (JPEG through libjpeg-turbo, at full size: no draft mode) and resamples. The pixels
depend on the versions of the two, which `versions` names, and on nothing else of the machine.
"""

import io
import warnings

import numpy as np
from PIL import Image, features

from lockstep.datasets.survey import Undecodable

FORMATS = ("JPEG", "PNG")
CONVERTED = {"L": "grayscale", "1": "grayscale", "LA": "grayscale", "CMYK": "CMYK"}
"""From Pillow's modes to the words in which conversions to RGB are counted."""
OTHERS = {"P": "palette", "RGBA": "transparent", "PA": "palette"}

# Pillow reads a picture's density from its EXIF data and warns of damage there; it is not used.
warnings.filterwarnings("ignore", module="PIL")


def square(content: bytes, size: int) -> tuple[np.ndarray, list[str]]:
    """Decode an image, bring its shorter side to `size` and cut out the centre.

    Both at once, with Pillow's antialiased bilinear filter: only the centred square is computed, at
    its exact scale. Grey becomes three equal channels, CMYK is converted by Pillow's formula,
    transparency is dropped. Embedded colour profiles and EXIF orientation are not applied.

    Returns:
        uint8 ``(size, size, 3)``, and what was done that is worth counting.

    Raises:
        Undecodable: says why.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            picture.load()
            notes = [] if picture.format != "PNG" else ["PNG"]
            if picture.mode != "RGB":
                kind = (CONVERTED | OTHERS).get(picture.mode)
                if kind is None:
                    raise Undecodable(f"has the unknown mode {picture.mode}")
                notes.append(kind)
            image = picture if picture.mode == "RGB" else picture.convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise Undecodable("is neither JPEG nor PNG") from error
    except Image.DecompressionBombError as error:
        raise Undecodable("has far too many pixels") from error
    # Pillow's plugins raise all of these for damaged files.
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError) as error:
        raise Undecodable(str(error)) from error
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


def versions() -> dict[str, str]:
    """Return the versions that the pixels depend on."""
    import PIL

    jpeg = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    number = features.version_feature("libjpeg_turbo") or features.version_codec("jpg")
    return {"Pillow": PIL.__version__, jpeg: str(number)}
