"""Folders of images, whose sub-folders are classes, or splits that hold classes."""

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..choices import SplitName
from ..errors import InputError
from ..progress import is_quiet
from ..storage.memory import refuse_beyond_memory
from .inspection import DataWarning
from .pixels import EMBEDDED, SUFFIXES, TRANSPARENT, is_image, read_image
from .reading import Reading

SPLITS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What systems put beside images: thumbnails, copies and settings. So are names with a dot in front.
OF_SYSTEMS = {"__MACOSX", "@eaDir", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"}
LISTED = 5  # suffixes that are named


def read_images(folder: Path, reading: Reading | None = None) -> dict[str, Any]:
    """The arguments for :func:`ppl_vae.make_data` in a folder of images.

    Links are followed. Hidden files and folders are left out, and so is what systems put beside
    images; other files, if they are no images, with a warning that counts them. Folders called
    ``train``, and ``validation`` or ``test``, are splits.

    Arguments:
        folder: The folder.
        reading: Whether to ``resize`` images, and to make them ``grey``.

    Returns:
        ``x`` of shape (N, channels, height, width), in bytes, and ``labels``, the names of
        sub-folders, ``None`` if there are none; and of splits ``validation`` and ``test``, pairs of
        the two.

    Raises:
        InputError: If there are no images, one cannot be read, their shapes or modes differ, there
            are splits and others beside them, or they do not fit into memory.
    """
    splits = _splits(folder, _find(folder))
    files = [file for _, part in splits.values() for file in part]
    stack = _read(folder, files, reading or Reading())
    classes = [_class_of(file, root) for root, part in splits.values() for file in part]
    if len(set(classes)) == 1:
        classes = [None] * len(files)
    parts, start = dict[SplitName, tuple[np.ndarray, list[str | None]]](), 0
    for name, (_, part) in splits.items():
        rows = slice(start, start := start + len(part))
        parts[name] = (stack[rows], classes[rows])
    _tell_of_classes(folder, {name: part[1] for name, part in parts.items()})
    _tell_of_copies(folder, {name: part[0] for name, part in parts.items()})
    given: dict[str, Any] = {
        name: (x, labels if any(labels) else None) for name, (x, labels) in parts.items()
    }
    x, labels = given.pop("train")
    return {"x": x, "labels": labels, **given}


def _class_of(file: Path, root: Path) -> str | None:
    """The folder of an image below the root; ``None`` if it lies in the root itself. Bytes that are
    no text are written as escapes."""
    name = os.fsencode(file.parent.relative_to(root)).decode("utf-8", "backslashreplace")
    return None if name == "." else name


def _find(folder: Path) -> list[Path]:
    """All images in a folder, and in those within and linked to, in order."""
    images, others = [], Counter[str]()
    for file in _walk(folder):
        suffix = file.suffix.lower()
        if suffix in SUFFIXES or is_image(file):
            images.append(file)
        else:
            others[suffix or "without a suffix"] += 1
    first = others.most_common(LISTED)
    listed = ", ".join(f"{count} {suffix}" for suffix, count in first)
    if rest := others.total() - sum(count for _, count in first):
        listed += f", {rest} others"
    if not images:
        problem = "holds no images" + (f" that can be read, but {listed}" if others else "")
        raise InputError(folder, problem, "give PNG or JPEG files, in it or its sub-folders")
    if others:
        _warn(f"{folder}: left out, since they are no images: {listed}")
    return sorted(images)


def _walk(folder: Path) -> list[Path]:
    """All files that are not hidden; those of a folder once, however many links lead there."""
    files: list[Path] = []
    pending, links, seen = [folder], list[Path](), set[Path]()
    top = folder.resolve()
    while pending or links:
        place = pending.pop() if pending else links.pop()  # what is no link comes first
        real = place.resolve()
        if real in seen or (real != top and top.is_relative_to(real)):
            _warn(f"{place}: left out, since the folder that it links to is read already")
            continue
        seen.add(real)
        try:
            names = sorted(os.listdir(place), reverse=True)
        except OSError as error:
            reason = error.strerror or "unknown error"
            raise InputError(place, f"cannot be read ({reason})", "make it readable") from None
        for path in (place / name for name in names):
            if path.name.startswith(".") or path.name in OF_SYSTEMS:
                continue
            if not os.path.isdir(path):  # Path.is_dir raises where links are a loop
                files.append(path)
            elif path.suffix.lower() in SUFFIXES:
                raise InputError(path, "is a folder with the name of an image", "rename it")
            else:
                (links if path.is_symlink() else pending).append(path)
    return files


def _splits(folder: Path, files: list[Path]) -> dict[SplitName, tuple[Path, list[Path]]]:
    """The images of each split, with the folder that its classes lie in; all, where there is one.

    A lone folder ``test`` or ``train`` among others may be a class: of vehicles, say.
    """
    root, tops = folder, _by_folder(folder, files)
    while len(tops) == 1 and "" not in tops:  # a folder around all others is no class
        root = root / next(iter(tops))
        tops = _by_folder(root, files)
    named = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    names = ", ".join(named)
    if len(named) < 2:
        _refuse_inner(root, files)
        return {"train": (root, files)}
    if "train" not in named.values():
        problem = f"has the folders {names}, but none of training data"
        raise InputError(root, problem, "call it train, or give the path of one of them")
    if len({*named.values()}) < len(named):
        raise InputError(root, f"has the folders {names}, two of one split", "merge them")
    if stray := tops.keys() - named.keys():
        where = f"the folder {min(stray)}" if min(stray) else "no folder"
        problem = f"has images in {where}, beside the splits {names}"
        raise InputError(root, problem, "move them into one of the splits, or rename those")
    order = sorted(named, key=lambda top: ("train", "validation", "test").index(named[top]))
    return {named[top]: (root / top, tops[top]) for top in order}


def _by_folder(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Files by the folder in the root that they lie in, however deep; "" in the root itself."""
    tops: dict[str, list[Path]] = {}
    for file in files:
        inside = file.relative_to(root).parts[:-1]
        tops.setdefault(inside[0] if inside else "", []).append(file)
    return tops


def _refuse_inner(root: Path, files: list[Path]) -> None:
    """Refuse classes that hold splits, which must be the other way round."""
    inner = {part.lower() for file in files for part in file.relative_to(root).parts[1:-1]}
    kinds = {SPLITS[name] for name in inner & SPLITS.keys()}
    if "train" in kinds and len(kinds) > 1:
        raise InputError(
            root,
            "has folders called train and test inside others",
            "let splits hold classes, as in train/cats, or rename those folders",
        )


def _read(folder: Path, files: list[Path], reading: Reading) -> np.ndarray:
    """The pixels of all files, of shape (N, channels, height, width)."""
    from rich.console import Console
    from rich.progress import track

    first, seen = np.empty(0), Counter[str]()
    console, hidden = Console(stderr=True), is_quiet() or len(files) < 1000
    tracked = track(files, "reading images", console=console, transient=True, disable=hidden)
    for place, file in enumerate(tracked):
        image = read_image(file, reading, seen)
        if place == 0:
            first = image
            refuse_beyond_memory(2 * len(files) * image.nbytes, folder, "take fewer images")
            height, width, *channels = image.shape
            stack = np.empty((len(files), *(channels or [1]), height, width), image.dtype)
        if image.shape != first.shape:
            _refuse_other(file, image, files[0], first)
        stack[place] = image if image.ndim == 2 else image.transpose(2, 0, 1)
    if count := seen[TRANSPARENT]:
        _warn(f"{folder}: {count} of {len(files)} images have transparent parts, laid on white")
    if count := seen[EMBEDDED]:
        words = f"{count} of {len(files)} images have further pictures embedded (previews or depth)"
        _warn(f"{folder}: {words}, which are left out")
    return stack


def _refuse_other(file: Path, image: np.ndarray, first: Path, like: np.ndarray) -> NoReturn:
    if image.ndim != like.ndim:
        kinds = ("has colours", "is grey") if image.ndim == 3 else ("is grey", "has colours")
        raise InputError(file, f"{kinds[0]}, but {first} {kinds[1]}", "make-grey")
    problem = f"has {image.shape[0]}x{image.shape[1]} pixels, but {first} has "
    raise InputError(file, f"{problem}{like.shape[0]}x{like.shape[1]}", "resize")


def _tell_of_classes(folder: Path, labels: Mapping[SplitName, Sequence[str | None]]) -> None:
    """Say which images have no class, and which class not all splits have."""
    known = {name: {c for c in classes if c} for name, classes in labels.items() if any(classes)}
    if not known:
        return
    if count := sum(classes.count(None) for classes in labels.values()):
        _warn(f"{folder}: {count} images lie in no folder of a class, and have no label")
    common = set.intersection(*known.values())
    if lone := sorted(set.union(*known.values()) - common):
        where = ", ".join(name for name, classes in known.items() if lone[0] in classes)
        more = f" (and {len(lone) - 1} more are not in all)" if len(lone) > 1 else ""
        _warn(f"{folder}: the class {lone[0]} is in {where} only{more}")


def _tell_of_copies(folder: Path, parts: dict[SplitName, np.ndarray]) -> None:
    """Say how many images are exact copies: of training images, or, unsplit, of one another."""
    digests = {
        name: [blake2b(image.tobytes(), digest_size=16).digest() for image in x]
        for name, x in parts.items()
    }
    known = set(digests["train"])
    for name in (name for name in digests if name != "train"):
        if count := sum(digest in known for digest in digests[name]):
            words = f"{count} of {len(digests[name])} images of {name} are exact copies of images"
            _warn(f"{folder}: {words} of train, so that its figures are too good")
    if len(digests) == 1 and (count := len(digests["train"]) - len(known)):
        words = f"{count} of {len(digests['train'])} images are exact copies of others"
        _warn(f"{folder}: {words}, so that some may be training and test data both")


def _warn(words: str) -> None:
    warnings.warn(words, DataWarning, stacklevel=4)
