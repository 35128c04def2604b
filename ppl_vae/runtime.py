"""The device and the random state of a call, both given back as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from zlib import crc32

import numpy as np
import pyro
import torch

from .errors import InputError

MAX_SEED = 2**63 - 1


def pick_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` into a device.

    ``"auto"`` takes the first CUDA device, where there is one.

    Raises:
        InputError: If there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # which a device without values, meta, has not
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"device {name!r} cannot be used here ({reason}): try --device cpu"
        ) from None
    return device


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose, such as the order of the data, whose stream is independent of others.

    Two generators that start from the same number give the same numbers: were data and draws to
    share a seed, the noise in z would follow the noise in x.

    Raises:
        InputError: If the seed is not in 0 ... 2^63 - 1.

    Example:
        >>> derived_seed(0, "data") == derived_seed(0, "weights")
        False
    """
    sequence = np.random.SeedSequence([check_seed(seed), crc32(purpose.encode())])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_seed(seed: int) -> int:
    """Return the seed.

    Raises:
        InputError: If it is not in 0 ... 2^63 - 1.
    """
    whole = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed must be in 0 ... 2^63 - 1, got {seed!r}")
    return int(seed)


@contextmanager
def isolated(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run Pyro code that leaves no trace: random state and parameter store come back untouched.

    Inside, torch's generators start from ``seed``, Pyro's parameter store is empty, and its
    validation, which costs more than the arithmetic of a small step, is off.

    Arguments:
        seed: Where torch's global generators start.
        device: The device whose generator is used, beside the CPU's.

    Raises:
        InputError: If the seed is not in 0 ... 2^63 - 1.
    """
    seed = check_seed(seed)
    cuda = [device] if device is not None and device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
    ):
        # Not torch.manual_seed, which seeds the generators of all devices.
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield
