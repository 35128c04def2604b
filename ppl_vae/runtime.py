"""Devices, seeds, and code that leaves the random state as it was."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from zlib import crc32

import numpy as np
import pyro
import torch

from .errors import InputError, first_line

MAX_SEED = 2**63 - 1


def pick_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` into a device.

    ``"auto"`` is the first CUDA device if there is one, else the CPU.

    Raises:
        InputError: If this machine does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # fails on the device meta, which holds no values
    except Exception as error:  # torch raises many kinds, and explains at length
        reason = first_line(error).partition(". ")[0]
        raise InputError(
            "device", f"{name!r} cannot be used here ({reason})", "another-device"
        ) from None
    return device


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose, such as the order of the data; seeds of two purposes differ.

    Generators with the same seed give the same numbers: if data and draws shared one, the noise in
    z would be that in x.

    Raises:
        InputError: If the seed is not in 0 ... 2^63 - 1.

    Example:
        >>> derived_seed(0, "data") == derived_seed(0, "weights")
        False
    """
    sequence = np.random.SeedSequence([check_seed(seed), crc32(purpose.encode())])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_seed(seed: int) -> int:
    """Return the seed, as Python's own type.

    Raises:
        InputError: If it is not an integer in 0 ... 2^63 - 1.
    """
    is_integer = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not is_integer or not 0 <= seed <= MAX_SEED:
        raise InputError("seed", f"must be an integer in 0 ... 2^63 - 1, got {seed!r}")
    return int(seed)


class _Turn:
    """Whose turn it is to use what all threads of a process share."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.owner: tuple[int, int] | None = None  # process and thread
        self.depth = self.fits = 0

    @contextmanager
    def taken(self, fits: bool) -> Iterator[None]:
        """Wait until no other thread has it; where a thread fits, which may take hours, refuse."""
        me = (os.getpid(), threading.get_ident())
        with self.changed:
            while self.owner not in (None, me):
                if self.owner is not None and self.owner[0] != me[0]:
                    self.depth = self.fits = 0  # a fork has this thread alone
                    break
                if self.fits:
                    raise InputError(
                        "this process",
                        "fits a program in another thread, and Pyro's parameters and torch's "
                        "random numbers are the same for all threads",
                        "wait until that fit ends, or use another process",
                    )
                self.changed.wait()
            self.owner, self.depth, self.fits = me, self.depth + 1, self.fits + fits
        try:
            yield
        finally:
            with self.changed:
                self.depth, self.fits = self.depth - 1, self.fits - fits
                if not self.depth:
                    self.owner = None
                    self.changed.notify_all()


_TURN = _Turn()


@contextmanager
def isolated(
    seed: int, device: torch.device | None = None, *, fits: bool = False
) -> Iterator[None]:
    """Run Pyro code, then restore torch's random state and Pyro's parameter store.

    Inside, torch's generators are seeded, the parameter store is empty, and Pyro's validation,
    which costs more than the arithmetic of a small step, is off.

    All of that belongs to the process. Another thread that comes here waits meanwhile, or is
    refused while this one fits, so that none computes with the numbers of another.

    Arguments:
        seed: The seed of torch's global generators.
        device: A device whose generator is seeded and restored too, beside the CPU's.
        fits: Whether it is a whole fit that runs.

    Raises:
        InputError: If the seed is not in 0 ... 2^63 - 1, or another thread fits a program.
    """
    seed = check_seed(seed)
    cuda = [device] if device is not None and device.type == "cuda" else []
    with (
        _TURN.taken(fits),
        torch.random.fork_rng(devices=cuda),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
    ):
        # Not torch.manual_seed, which would seed the generators of all devices.
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield
