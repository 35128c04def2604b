"""What a run directory keeps of a fit: checkpoints, the best weights, metrics."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

import torch

from ..data.dataset import DataSet
from ..errors import InputError, first_line
from ..runs.checkpoints import CheckpointWarning
from ..runs.config import software_versions
from ..runs.directory import Run
from ..signals import first_waits
from ..storage.memory import tell_lack_of_memory
from .history import History
from .shared_state import send_state
from .state import State
from .trainer import Trainer


@contextmanager
def recorded(
    trainer: Trainer, history: History, run: Run | None, data: DataSet, resume: bool
) -> Iterator[None]:
    """Keep a fit in a run directory, whatever ends it; without a run, keep nothing.

    Arguments:
        trainer: Restored first, if ``resume``.
        history: Restored with it.
        run: The run directory.
        data: What the run's config says it is fitted to.
        resume: Whether to continue from the newest checkpoint.

    Of several processes, the first keeps the record, and the others begin as it does.

    Raises:
        InputError: If the directory cannot be written, is not of this fit, or is being fitted.
    """
    if run is None or not trainer.processes.is_first:
        if resume and trainer.processes.is_first:
            raise InputError("run", "must be given to resume a fit", "open it with Run.open")
        _begin(trainer, history)
        yield
        return
    record = _Record(trainer, history, run, data)
    try:
        record.open(resume)
        if not _begin(trainer, history):
            record.save()
        yield
        record.save()
    except BaseException:  # divergence, an interrupt, no memory on a GPU, whatever is raised
        with first_waits(), suppress(InputError):  # one signal may follow another error
            record.save()
        raise
    finally:
        run.close()


def _begin(trainer: Trainer, history: History) -> bool:
    """Begin, or continue, as the first process does; say whether it continues."""
    processes = trainer.processes
    state = send_state(processes, trainer.last)
    if state is None:
        processes.copy_first([*trainer.program.state_dict().values()])
        trainer.best = trainer.tensors.weights()
    elif not processes.is_first:
        trainer.restore(state)
    vars(history).update(processes.said_by_first(vars(history)))
    if state is None:
        trainer.snapshot()
    return state is not None


class _Record:
    def __init__(self, trainer: Trainer, history: History, run: Run, data: DataSet) -> None:
        self.trainer, self.history, self.run = trainer, history, run
        self.checkpoints = run.checkpoints
        self.identity: dict[str, Any] = {
            "of": run.config.identity,
            "settings": asdict(trainer.settings),
            "data": data.digest,
            "device": trainer.device.type,
            "refit": None if trainer.refit is None else trainer.refit.on,
            "machine": {**_machine(trainer.device), "processes": trainer.processes.count},
        }
        # A state, and the history that led to it: in memory, and on the disk.
        self.kept: tuple[State, dict[str, Any]] | None = None
        self.saved: Any = None

    def open(self, resume: bool) -> None:
        """Make the run directory, or continue from its newest checkpoint."""
        if not resume:
            self.run.require_free()  # told before anything else, as Run.create does
        self._match_config()
        if resume:
            self.run.resume()
            if (found := self.checkpoints.newest()) is not None:
                self._restore(*found)
            elif self.trainer.refit is not None:  # the program's model may be any other
                raise InputError(
                    self.run.path,
                    "has no checkpoint to continue from",
                    "train the guide again, from its parent",
                )
            elif self.run.has_weights():
                raise InputError(
                    self.run.path, "has weights, but no checkpoint to continue from", "fit-again"
                )
        else:
            self.run.start()
        self.trainer.on_snapshot = self._keep

    def _match_config(self) -> None:
        """See that the config says what is fitted to what, and how."""
        run = self.run
        if not run.config.settings:
            run.config = replace(run.config, settings=self.identity["settings"])
        if (on := self.identity["refit"]) is not None and "on" not in run.config.parent:
            run.config = replace(run.config, parent={**run.config.parent, "on": on})
        digest = run.config.data.get("digest", self.identity["data"])
        said_on = run.config.parent.get("on")
        for name, said in (("settings", run.config.settings), ("data", digest), ("refit", said_on)):
            if said != self.identity[name]:
                raise InputError(
                    run.path,
                    f"has a config that says {_difference(name, said, self.identity)}",
                    "make the config with Config.of, of what is fitted",
                )

    def _restore(self, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        try:
            self._require_same(about)
            self.trainer.restore(State(tensors, about["state"]))
            vars(self.history).update(vars(History.restored(about["history"])))
        except InputError:
            raise
        except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            tell_lack_of_memory(error, self.run.path)
            reason = first_line(error)
            raise InputError(
                self.run.path, f"has a checkpoint that is not of this fit ({reason})", "fit-again"
            ) from None
        self._keep_in_memory()

    def _require_same(self, about: dict[str, Any]) -> None:
        extended = about["settings"]
        if extended.get("epochs") in self.run.config.epochs_before:
            extended = {**extended, "epochs": self.identity["settings"]["epochs"]}
        begun = {"refit": None, **about, "settings": extended}
        for name in ("of", "settings", "data", "device", "refit"):
            if begun[name] != self.identity[name]:
                raise InputError(
                    self.run.path,
                    f"was begun with {_difference(name, begun[name], self.identity)}",
                    "continue with the same, or fit again",
                )
        for name, value in self.identity["machine"].items():
            before = {"processes": 1, **about["machine"]}.get(name)
            if before != value:
                warnings.warn(
                    f"{self.run.path} continues, but not to the same bits: {name} was "
                    f"{before}, and is {value} now",
                    CheckpointWarning,
                    stacklevel=2,
                )

    def _keep_in_memory(self) -> None:
        # In one assignment, for an interrupt may come between any two.
        assert self.trainer.last is not None
        self.kept = (self.trainer.last, asdict(self.history))

    def _keep(self) -> None:
        self._keep_in_memory()
        if self.checkpoints.is_due():
            self.save()

    def save(self) -> None:
        """Write what was kept last, if that is not on the disk."""
        if self.kept is None or self.kept is self.saved:
            return
        self.run.require_place()
        state, history = kept = self.kept
        about = {**self.identity, "state": state.plain, "history": history}

        def write_rest() -> None:
            self.run.save_weights(state.part("best"))
            self.run.log(history["epochs"])

        try:
            self.checkpoints.write(state.plain["steps"], state.tensors, about, write_rest)
        except InputError as error:
            raise InputError(
                error.culprit,
                error.problem,
                "then-resume",
                first=error.remedy,
                run=str(self.run.path),
            ) from None
        self.saved = kept


def _machine(device: torch.device) -> dict[str, Any]:
    """What the last bits of a fit depend on, beside the fit."""
    on_gpu = device.type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else "none",
        "precision of products": torch.get_float32_matmul_precision(),
        **software_versions(),
    }


def _difference(name: str, before: Any, identity: dict[str, Any]) -> str:
    now = identity[name]
    if name == "data":
        return "other data"
    if name == "refit":
        kinds = [
            f"a guide trained on {on}" if on else "model and guide trained" for on in (before, now)
        ]
        return f"{kinds[0]}, not {kinds[1]}"
    if isinstance(before, dict):
        for key in now:
            if before.get(key) != now[key]:
                return f"{key} {before.get(key)!r}, not {now[key]!r}"
    return f"{name} {before!r}, not {now!r}"
