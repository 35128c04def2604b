"""Files of tensors and metadata, with a checksum over both; reading one never runs code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import InputError, first_line
from .files import replacing
from .memory import refuse_beyond_memory

HEADING = "sha256, about"


class TornError(InputError):
    """The contents of a file are not what was written."""


def write_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and metadata, whole or not at all.

    Arguments:
        file: A path that ends in ``.safetensors``.
        tensors: By name, of any shapes and types.
        about: The metadata, of types that JSON has.

    Raises:
        InputError: If the file cannot be written; an older one is then still there.

    Example:
        >>> write_tensors(Path("a.safetensors"), {"ones": torch.ones(2)}, {"step": 3})
        >>> read_tensors(Path("a.safetensors"))
        ({'ones': tensor([1., 1.])}, {'step': 3})
    """
    # Copies, since safetensors refuses tensors that share memory.
    plain = {name: _plain(tensor) for name, tensor in tensors.items()}
    text = json.dumps(about)
    # One entry: the order of several is random, and the same fit should give the same bytes.
    metadata = {HEADING: f"{_checksum(plain, text)} {text}"}
    with replacing(file) as (temporary,):
        temporary.write_bytes(save(plain, metadata))


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote, on the CPU.

    Raises:
        TornError: If the file is missing, torn or altered.
        InputError: If it cannot be read, or does not fit into memory.
    """
    if not file.is_file():
        raise TornError(file, "is missing, or not a file")
    refuse_beyond_memory(2 * file.stat().st_size, file, "free some memory")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "try again") from None
    try:
        tensors = load(content)  # which checks the form
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        checksum, _, text = metadata.get(HEADING, "").partition(" ")
        if checksum != _checksum(tensors, text):
            raise ValueError("its checksum is not that of its contents")
        return tensors, json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError, RuntimeError) as error:
        raise TornError(file, f"is torn, or was altered ({first_line(error)})") from None


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _checksum(tensors: Mapping[str, Tensor], about: str) -> str:
    sha = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
