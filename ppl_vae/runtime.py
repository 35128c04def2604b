"""The device and the random state of a call, both given back as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch

from .errors import InputError

MAX_SEED = 2**63 - 1


def pick_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` into a device.

    ``"auto"`` takes the first CUDA device, where there is one.

    Raises:
        InputError: If there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"device {name!r} cannot be used here ({reason}): try --device cpu"
        ) from None
    return device


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
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed must be in 0 ... 2^63 - 1, got {seed}")
    cuda = [device] if device is not None and device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
    ):
        torch.manual_seed(seed)
        yield
