"""Where compiled kernels are kept from one process to the next."""

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from torch._inductor.runtime.cache_dir_utils import default_cache_dir

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def kept() -> Iterator[dict[str, bool]]:
    """Let Inductor keep what it compiles in the user's own cache folder, and find it there.

    Its own place is a folder of ``/tmp`` whose name others can guess, and it runs what it finds. A
    place that the user has named in ``TORCHINDUCTOR_CACHE_DIR`` stays.

    Yields:
        Settings of Inductor: headers, which always go to its own place, are compiled each time
        where that is not the user's.

    Example:
        >>> with kept() as settings:
        ...     sorted(settings)
        ['cpp_cache_precompile_headers']
    """
    own, before = Path(default_cache_dir()), os.environ.get(VARIABLE)  # torch sets it at import
    with suppress(OSError):
        own.mkdir(mode=0o700)
    settings = {"cpp_cache_precompile_headers": is_private(own)}
    if before is not None and Path(before) != own:
        yield settings
        return
    os.environ[VARIABLE] = str(cache_folder())
    try:
        yield settings
    finally:
        os.environ[VARIABLE] = str(own)


@cache
def cache_folder() -> Path:
    """``ppl-vae/kernels`` in the cache folder of the user, or one that ends with this process."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "ppl-vae" / "kernels"
    with suppress(OSError):
        Path(base).mkdir(parents=True, exist_ok=True)
        for place in (folder.parent, folder):  # of parents, mkdir leaves the mode to the umask
            place.mkdir(mode=0o700, exist_ok=True)
    if is_private(folder):
        return folder
    own = tempfile.mkdtemp(prefix="ppl-vae-kernels-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return Path(own)


def is_private(folder: Path) -> bool:
    """Whether nobody else can write into a folder, or put another in its place.

    Example:
        >>> with tempfile.TemporaryDirectory() as name:
        ...     private = is_private(Path(name))
        ...     os.chmod(name, 0o777)
        ...     private, is_private(Path(name))
        (True, False)
    """
    try:
        found, above = folder.lstat(), folder.parent.stat()
    except OSError:
        return False
    others = stat.S_IWGRP | stat.S_IWOTH
    kept_apart = not above.st_mode & others or above.st_mode & stat.S_ISVTX
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    is_ours = stat.S_ISDIR(found.st_mode) and own and not found.st_mode & others
    return bool(is_ours and kept_apart and os.access(folder, os.W_OK))
