"""Commands on many data points, which the processes that ``torchrun`` started share."""

from collections.abc import Callable
from typing import Any, TypeVar

import typer

from ..data.batch import Batch
from ..errors import InputError
from ..runtime import derived_seed
from ..training.processes import Processes

Found = TypeVar("Found")


def by_shares(batch: Batch, seed: int, work: Callable[[Batch, slice, int], Found]) -> list[Found]:
    """What processes find of their shares of the data, in order. All but the first end here.

    Arguments:
        batch: All data points, the same in each process.
        seed: That of the first process, and of a single one; the others have seeds of their own.
        work: Called with this process's data points, their place, and its seed.

    Raises:
        InputError: As ``work`` does, in any of them; or if another process ended.
        typer.Exit: In all but the first.
    """
    processes = Processes.launched().join()
    rank, count = processes.rank, processes.count
    first, last = (batch.size * place // count for place in (rank, rank + 1))
    place, own = slice(first, last), seed if rank == 0 else derived_seed(seed, f"process {rank}")
    found: Found | InputError | None = None
    try:
        if first < last:
            found = work(batch.rows(place), place, own)
    except InputError as error:  # which the first alone can tell
        found = error
    parts = gathered(processes, found)
    for part in parts:
        if isinstance(part, InputError):
            raise part
    return parts


def how_many() -> dict[str, int]:
    """How many processes share the work, for results, whose draws depend on it; if there are more
    than one."""
    count = Processes.launched().count
    return {"processes": count} if count > 1 else {}


def gathered(processes: Processes, found: Any) -> list[Any]:
    """What processes found, but for ``None``. All but the first end here.

    Raises:
        InputError: If another process ended.
        typer.Exit: In all but the first.
    """
    parts = processes.at_first(found)
    if not processes.is_first:
        raise typer.Exit
    return [part for part in parts if part is not None]
