"""What each process of a fit has for itself in a state, and how all begin with the same."""

from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..runtime import derived_seed
from .processes import Processes
from .state import State, random_states, set_random_states


def gather_states(
    processes: Processes, device: torch.device, shapes: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Random states, and what the engine has compiled, of all processes.

    Returns:
        Tensors and plain data as :class:`State` has them; those of the first process are named as
        those of a single one.
    """
    states = random_states(device)
    tensors = {
        _name(name, rank): other
        for name, state in states.items()
        for rank, other in enumerate(processes.each(state))
    }
    engine, *others = processes.said_by_each(shapes.state())
    return tensors, {"engine": engine} | ({"engines of others": others} if others else {})


def restore_states(
    processes: Processes, state: State, device: torch.device, shapes: Any, seed: int
) -> None:
    """Continue with what this process had. One more than there were begins to draw here.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: If they are not such states.
    """
    engines = [state.plain["engine"], *state.plain.get("engines of others", [])]
    if processes.rank >= len(engines):
        shapes.restore(engines[0])
        seed_own(processes, seed, device, state.plain["steps"])
        return
    shapes.restore(engines[processes.rank])
    names = {name: _name(name, processes.rank) for name in random_states(device)}
    set_random_states({name: state.tensors[own] for name, own in names.items()}, device)


def seed_own(processes: Processes, seed: int, device: torch.device, steps: int = 0) -> None:
    """Seed torch's global generators, from which latents are drawn: of each process its own.

    The first has those of a single process.
    """
    if processes.is_first:
        return
    own = derived_seed(seed, f"process {processes.rank} from step {steps}")
    torch.default_generator.manual_seed(own)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(own)


def send_state(processes: Processes, state: State | None) -> State | None:
    """The state that the first process has; ``None`` if it has none."""
    if processes.count == 1 or not processes.said_by_first(state is not None):
        return state
    mine = state or State({}, {})  # which nobody reads but of the first
    tensors = processes.sent_by_first(safetensors.torch.save(mine.tensors))
    return State(safetensors.torch.load(tensors), processes.said_by_first(mine.plain))


def score_together(
    processes: Processes, cause: str, validation: Callable[[], dict[str, float]]
) -> tuple[dict[str, float], str]:
    """The score that the first process has, or why there is none.

    Scores may differ in rounding, and what follows from them is decided once.

    Arguments:
        processes: All of which come here.
        cause: Why nothing can be scored, the same in all of them.
        validation: Scores the validation data, or raises ``FloatingPointError``.
    """
    row: dict[str, float] = {}
    if not cause:
        try:
            row = validation()
        except FloatingPointError as error:
            cause = str(error)
    if processes.all(not cause):
        return processes.said_by_first(row), ""
    return {}, cause or "another process could not score the validation data"


def _name(name: str, rank: int) -> str:
    return name.replace("random/", f"random/process {rank}/", 1) if rank else name
