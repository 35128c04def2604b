"""One image file: what it must not hold, and its pixels as bytes."""

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import regular_size, tell_lack_of_memory
from .reading import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

# Files of these names must be images; others are, if they begin as one.
SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".webp", ".pgm", ".ppm", ".pbm", ".pnm"),
}
# Pillow goes by content: a file of any name may be PostScript, which it passes to Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
GREY_MODES, COLOUR_MODES = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"}
DEEP = re.compile(r";(12|16[BLNS]|32|64)")  # raw modes of more than 8 bits: BMP's ;16 has 5 or 6
TRANSPARENT, EMBEDDED = "transparent", "embedded"


def is_image(file: Path) -> bool:
    """Whether a regular file begins as an image of one of the formats that are read."""
    from PIL import Image

    try:
        regular_size(file)
        with _safely(), Image.open(file, formats=FORMATS):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True  # which reading it refuses
    except Exception as error:  # whatever a file that is none makes Pillow raise
        tell_lack_of_memory(error, file)
        return False


def read_image(file: Path, reading: Reading, seen: Counter[str]) -> np.ndarray:
    """The pixels of an image, upright as its EXIF says, laid on white where it is transparent.

    Arguments:
        file: The file, of any name.
        reading: Height and width to ``resize`` it to, whatever its proportions; and whether colours
            are to become ``grey`` (ITU-R BT.601).
        seen: Counts what images had that their pixels do not: :data:`TRANSPARENT` parts, or
            :data:`EMBEDDED` further pictures such as a phone's previews.

    Returns:
        Bytes of shape (height, width), or (height, width, 3) of an image with colours.

    Raises:
        InputError: If it is no image, is torn, holds several pages or frames, has more than 8 bits
            a channel, or claims more pixels than is safe.
    """
    from PIL import Image

    regular_size(file)
    try:
        with _safely(), Image.open(file, formats=FORMATS) as image:
            _refuse_pages(image, file, seen)
            _refuse_deep(image, file)
            return _pixels(image, reading, seen)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(file, "claims more pixels than is safe to open", "resize it") from None
    except Exception as error:  # whatever a broken file makes Pillow raise
        tell_lack_of_memory(error, file)
        raise InputError(
            file,
            f"is truncated, or not an image ({first_line(error)})",
            "save it again, or remove it",
        ) from None


def _safely() -> warnings.catch_warnings:
    from PIL import Image

    return warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)


def _refuse_pages(image: "Image", file: Path, seen: Counter[str]) -> None:
    """Refuse stacks and animations: whether pages are data, slices or channels is not in the file,
    and those of one stack would be training and test data both."""
    count = getattr(image, "n_frames", 1)
    if count == 1:
        return
    if image.format == "MPO":  # a camera's JPEG, whose further pictures are of the same view
        seen[EMBEDDED] += 1
        return
    raise InputError(
        file,
        f"holds {count} pages or frames, not one image",
        "save each as a file of its own, or all as an .npy array of shape (N, channels, height, "
        "width)",
    )


def _refuse_deep(image: "Image", file: Path) -> None:
    """Refuse what has no bytes, or would lose some of its bits on the way to them."""
    deep = False
    for codec, _, _, raw in getattr(image, "tile", ()):  # what its decoder is told
        given: Any = [raw] if isinstance(raw, str) else raw or ()
        deep |= any(isinstance(word, str) and bool(DEEP.search(word)) for word in given)
        # The netpbm decoder is told the highest value.
        deep |= codec.startswith("ppm") and any(isinstance(v, int) and v > 255 for v in given)
    if deep or image.mode not in GREY_MODES | COLOUR_MODES:
        words = f"has mode {image.mode}" + (" of more than 8 bits a channel" if deep else "")
        raise InputError(
            file,
            f"{words}, and images are read in 8 bits",
            "convert it to 8-bit grey or RGB; or, to keep its values, save all as an .npy array of "
            "shape (N, height, width) of floating-point numbers, in [0, 1] for grey values",
        )


def _pixels(image: "Image", reading: Reading, seen: Counter[str]) -> np.ndarray:
    from PIL import Image, ImageOps

    mode = "L" if reading.grey or image.mode in GREY_MODES else "RGB"
    upright = ImageOps.exif_transpose(image)
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = upright.convert("RGBA")
        upright = with_alpha.convert("RGB")
        if np.asarray(with_alpha)[..., 3].min() < 255:
            seen[TRANSPARENT] += 1
            white = Image.new("RGBA", with_alpha.size, "white")
            upright = Image.alpha_composite(white, with_alpha)
    upright = upright.convert(mode)
    if reading.resize is not None:
        upright = upright.resize(reading.resize[::-1], Image.Resampling.BICUBIC)
    return np.asarray(upright)
