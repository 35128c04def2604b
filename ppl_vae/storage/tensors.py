"""Files of tensors and plain data, with a checksum over both: opening one never runs code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from ..errors import InputError, first_line
from .files import replacing
from .memory import refuse_beyond_memory

HEADING = "sha256, about"


class TornError(InputError):
    """What a file holds is not what was written."""


def write_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors, and what they are about, whole or not at all.

    Arguments:
        file: A path that ends in ``.safetensors``.
        tensors: By name, of any shapes and types.
        about: Plain data, as JSON has it.

    Raises:
        InputError: If the file cannot be written; then what was there is still there.

    Example:
        >>> write_tensors(Path("a.safetensors"), {"ones": torch.ones(2)}, {"step": 3})
        >>> read_tensors(Path("a.safetensors"))
        ({'ones': tensor([1., 1.])}, {'step': 3})
    """
    # Copies, for tensors that share memory have no place of their own in a file.
    plain = {name: _plain(tensor) for name, tensor in tensors.items()}
    text = json.dumps(about)
    # One entry, for several would come in any order, and the same fit is to give the same bytes.
    metadata = {HEADING: f"{_checksum(plain, text)} {text}"}
    with replacing(file) as (temporary,):
        temporary.write_bytes(save(plain, metadata))


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote, on the CPU.

    Raises:
        TornError: If the file is missing, torn or altered.
        InputError: If it cannot be read, or there is no memory for it.
    """
    if not file.is_file():
        raise TornError(f"{file} is missing, or no file")
    refuse_beyond_memory(2 * file.stat().st_size, str(file), "free some")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): try again") from None
    try:
        with safe_open(file, "pt") as opened:
            checksum, _, text = (opened.metadata() or {}).get(HEADING, "").partition(" ")
        tensors = load(content)
        if checksum != _checksum(tensors, text):
            raise ValueError("its checksum is not that of its contents")
        return tensors, json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError, RuntimeError) as error:
        raise TornError(f"{file} is torn, or was altered ({first_line(error)})") from None


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _checksum(tensors: Mapping[str, Tensor], about: str) -> str:
    sha = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
