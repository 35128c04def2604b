"""Folders of images, whose sub-folders are classes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory, regular_size
from .reading import Reading

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
# Pillow goes by content: a file of any name may be PostScript, which it passes to Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
GREY_MODES, COLOUR_MODES = {"1", "L", "LA"}, {"P", "RGB", "RGBA", "CMYK", "YCbCr"}


def read_images(folder: Path, reading: Reading | None = None) -> dict[str, Any]:
    """``x`` of shape (N, channels, height, width), in bytes, and ``labels`` of a folder of images.

    Labels are the names of sub-folders; ``None`` if all images are in one.

    Raises:
        InputError: If there are no images, one cannot be read, their shapes or modes differ, or
            they do not fit into memory.
    """
    from rich.console import Console
    from rich.progress import track

    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise InputError(folder, "holds no images", f"give files of {', '.join(sorted(SUFFIXES))}")
    images: list[np.ndarray] = []
    for file in track(
        files,
        "reading images",
        console=Console(stderr=True),
        transient=True,
        disable=len(files) < 1000,
    ):
        image = _read_image(file)
        if images and image.shape != images[0].shape:
            raise InputError(
                file,
                f"has shape {image.shape}, but {files[0]} has {images[0].shape}",
                "crop or resize images to one size, and convert them to one mode",
            )
        if not images:
            refuse_beyond_memory(2 * len(files) * image.nbytes, folder, "take fewer images")
        images.append(image)
    classes = [str(file.parent.relative_to(folder)) for file in files]
    stack = np.stack(images)
    stack = stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)
    return {"x": stack, "labels": classes if len(set(classes)) > 1 else None}


def _read_image(file: Path) -> np.ndarray:
    """A byte image of shape (height, width) or (height, width, 3)."""
    from PIL import Image

    regular_size(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                if image.mode not in GREY_MODES | COLOUR_MODES:
                    raise InputError(
                        file, f"has mode {image.mode}", "convert it to 8-bit grey or RGB"
                    )
                return np.asarray(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(file, "claims more pixels than is safe to open", "resize it") from None
    except Exception as error:  # whatever a broken file makes Pillow raise
        raise InputError(
            file,
            f"is truncated, or not an image ({first_line(error)})",
            "save it again, or remove it",
        ) from None
