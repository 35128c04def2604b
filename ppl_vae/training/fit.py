"""Fit a program to data by SVI: epochs, early stopping, checkpoints."""

import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..choices import SplitName
from ..data.dataset import DataSet
from ..errors import InputError, check_type, first_line
from ..programs.conformance import check_program, require_program
from ..programs.protocol import Program
from ..runs.checkpoints import CheckpointWarning
from ..runs.config import software_versions
from ..runs.directory import Run
from ..runtime import isolated, pick_device
from .settings import Settings
from .trainer import STRIKES, Trainer, best_of


@dataclass
class History:
    """What happened in a fit.

    Attributes:
        epochs: One row for each epoch: the validation ``elbo``, ``reconstruction`` and ``kl`` in
            nats per datum, the training ``loss``, rates and times.
        best_epoch: The epoch whose weights the program ends with.
        stopped_early: Whether patience ran out.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False


def fit(
    program: Program,
    data: DataSet,
    settings: Settings | None = None,
    *,
    run: Run | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Fit a program by stochastic variational inference, in place.

    Each step is one of :class:`ppl_vae.CompiledSVI` with Adam; after each epoch the validation data
    are scored, and the weights that scored best are the ones kept. A loss or gradient that is not
    finite makes it go back and lower its rate; see :class:`ppl_vae.training.trainer.Trainer`.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`. It is moved to the device.
        data: What to fit it to.
        settings: How to fit it.
        run: A run directory to keep weights, metrics and checkpoints in.
        resume: Whether to go on from the newest checkpoint of the run, to the same bits as if it
            had never stopped. The program's weights are those of the checkpoint then.
        progress: Whether to show a progress bar on standard error.

    Returns:
        The history of the fit.

    Raises:
        InputError: If program and data do not fit together, before any step; if the run cannot be
            written, is being fitted by another process, or is not of this fit; or if the fit
            diverges three times in a row, after the best weights have been restored.

    Example:
        >>> from ppl_vae import load_data
        >>> from ppl_vae.models import LinearGaussian
        >>> data = load_data("digits")
        >>> ppca = LinearGaussian(data.shape, latent_dim=2)
        >>> history = fit(ppca, data, Settings(epochs=2), progress=False)
        >>> history.epochs[1]["elbo"] > history.epochs[0]["elbo"]
        True
    """
    settings = Settings() if settings is None else settings
    check_type("settings", settings, Settings)
    if run is not None:
        check_type("run", run, Run)
    device = _prepare(program, data, settings)
    fitting, history = Trainer(program, data, settings), History()
    record = _Record(fitting, history, run)
    try:
        with isolated(settings.seed, device), warnings.catch_warnings():
            # Pyro warns of a NaN loss, which is seen to, and of parameters that are frozen.
            warnings.filterwarnings("ignore", "Encountered|.*requires_grad=False", UserWarning)
            record.open(resume)
            with _progress_bar(progress) as bar:
                _run_epochs(fitting, history, bar)
            record.save()
    except FloatingPointError as error:
        record.save()
        raise InputError(
            f"{error}, the last in epoch {len(history.epochs) + 1}, and the weights of epoch "
            f"{history.best_epoch} are kept: look for outliers in the data, or try a "
            f"learning_rate of {settings.learning_rate / 10**STRIKES:g}, a clip_norm of 100, or "
            "more warmup_epochs"
        ) from None
    except BaseException:  # an interrupt, no memory on a GPU, whatever the program raises
        with suppress(InputError):
            record.save()
        raise
    finally:
        fitting.finish()
        record.close()
    return history


def _prepare(program: Program, data: DataSet, settings: Settings) -> torch.device:
    """Refuse what cannot be fitted, and move the program to its device."""
    require_program(program)
    if not isinstance(data, DataSet):
        raise InputError(f"data must be a DataSet, as make_data gives, not {type(data).__name__}")
    device = pick_device(settings.device)
    if settings.batch_size > len(data.train):
        raise InputError(
            f"{data.source}: {len(data.train)} training data are fewer than a batch of "
            f"{settings.batch_size}: lower the batch size"
        )
    program.to(device)
    for split in get_args(SplitName):
        check_program(program, data.fixed(split), getattr(data, split).rows)
    return device


def _run_epochs(fitting: Trainer, history: History, bar: Progress) -> None:
    settings, steps = fitting.settings, fitting.steps_per_epoch
    task = bar.add_task(
        "", total=settings.epochs * steps, completed=fitting.steps, loss="", figures=""
    )
    fitting.on_look = lambda count, loss: bar.update(task, advance=count, loss=f"loss {loss:.2f}")
    fitting.svi.gradients.on_compile = lambda begins: bar.update(
        task, figures="compiling the step, once" if begins else ""
    )
    for epoch in range(len(history.epochs) + 1, settings.epochs + 1):
        if history.stopped_early:
            break
        bar.update(task, description=f"epoch {epoch}/{settings.epochs}")
        row = {"epoch": epoch, **fitting.epoch()}
        history.epochs.append(row)
        if fitting.update_best(row.get(fitting.criterion, row["reconstruction"])):
            history.best_epoch = epoch
        if settings.patience and epoch - history.best_epoch >= settings.patience:
            history.stopped_early = True
        fitting.keep()
        bar.update(task, figures=_figures(row))


class _Record:
    """What a run directory keeps of a fit; without a run, nothing."""

    def __init__(self, fitting: Trainer, history: History, run: Run | None) -> None:
        self.fitting, self.history, self.run = fitting, history, run
        self.checkpoints = None if run is None else run.checkpoints
        self.kept: Any = None  # a state, and the history that led to it
        self.saved: Any = None

    def open(self, resume: bool) -> None:
        """Make the run directory, or go on from its newest checkpoint."""
        if self.run is None or self.checkpoints is None:
            if resume:
                raise InputError("there is nothing to resume: give a run, as Run.open does")
            return
        self.about: dict[str, Any] = {
            "of": self.run.config.identity,
            "settings": asdict(self.fitting.settings),
            "data": self.fitting.data.digest,
            "device": self.fitting.device.type,
            "machine": _machine(self.fitting.device),
        }
        if not resume:
            self.run.require_free()  # told before anything else, as Run.create does
        self._match_config(self.run)
        if resume:
            self.run.resume()
            if (found := self.checkpoints.newest()) is not None:
                self._restore(*found)
            elif self.run.has_weights():
                raise InputError(
                    f"{self.run.path} has weights, but no checkpoint to go on from: fit anew with "
                    "--overwrite"
                )
        else:
            self.run.start()
        self.fitting.on_snapshot = self._keep
        if self.kept is None:
            self.fitting.keep()
            self.save()

    def _match_config(self, run: Run) -> None:
        """See that the config says what is fitted to what, and how."""
        if not run.config.settings:
            run.config = replace(run.config, settings=self.about["settings"])
        for name, said in (("settings", run.config.settings), ("data", run.config.data)):
            said = said.get("digest", self.about["data"]) if name == "data" else said
            if said != self.about[name]:
                raise InputError(
                    f"the config of {run.path} says {_difference(name, said, self.about)}: make it "
                    "with Config.of, of what is fitted"
                )

    def _restore(self, tensors: Any, about: dict[str, Any]) -> None:
        assert self.run is not None
        try:
            self._require_same(about)
            self.fitting.restore((tensors, about["state"]))
            vars(self.history).update(vars(_as_history(about["history"])))
        except InputError:
            raise
        except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self.run.path}: its checkpoint is not of this fit ({first_line(error)}): fit "
                "anew with --overwrite"
            ) from None
        self.kept = (self.fitting.kept, about["history"])

    def _require_same(self, about: dict[str, Any]) -> None:
        assert self.run is not None
        for name in ("of", "settings", "data", "device"):
            if about[name] != self.about[name]:
                raise InputError(
                    f"{self.run.path} was begun with {_difference(name, about[name], self.about)}: "
                    "go on with the same, or fit anew with --overwrite"
                )
        for name, value in self.about["machine"].items():
            if about["machine"].get(name) != value:
                warnings.warn(
                    f"{self.run.path} goes on, but not to the same bits: {name} was "
                    f"{about['machine'].get(name)}, and is {value} now",
                    CheckpointWarning,
                    stacklevel=2,
                )

    def _keep(self) -> None:
        # In one assignment, for an interrupt may come between any two.
        self.kept = (self.fitting.kept, asdict(self.history))
        if self.checkpoints is not None and self.checkpoints.is_due():
            self.save()

    def save(self) -> None:
        """Write what was kept last, if that is not on the disk."""
        if self.run is None or self.checkpoints is None or self.kept is self.saved:
            return
        (tensors, state), history = kept = self.kept
        about = {**self.about, "state": state, "history": history}
        try:
            self.checkpoints.write(state["steps"], tensors, about, then=self._save_rest)
        except InputError as error:
            raise InputError(f"{error}; then ppl-vae train --resume {self.run.path}") from None
        self.saved = kept

    def _save_rest(self) -> None:
        assert self.run is not None
        (tensors, _), history = self.kept
        self.run.save_weights(best_of(tensors))
        self.run.log(history["epochs"])

    def close(self) -> None:
        """Let others fit into the directory."""
        if self.run is not None:
            self.run.close()


def _as_history(fields: dict[str, Any]) -> History:
    history = History(**fields)
    for number, row in enumerate(history.epochs, start=1):
        whole = row.keys() >= {"epoch", "reconstruction", "seconds"} and row["epoch"] == number
        if not whole or not {*map(type, row.values())} <= {int, float}:
            raise ValueError(f"its row of epoch {number} is {row}")
    if type(history.best_epoch) is not int or type(history.stopped_early) is not bool:
        raise TypeError("it does not say which epoch was best")
    return history


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


def _difference(name: str, then: Any, now: dict[str, Any]) -> str:
    if name == "data":
        return "other data"
    if isinstance(then, dict) and isinstance(now[name], dict):
        for key in now[name]:
            if then.get(key) != now[name][key]:
                return f"{key} {then.get(key)!r}, not {now[name][key]!r}"
    return f"{name} {then!r}, not {now[name]!r}"


def _figures(row: dict[str, float]) -> str:
    if "elbo" not in row:
        return f"validation reconstruction {row['reconstruction']:.2f} nats"
    return f"validation ELBO {row['elbo']:.2f} = {row['reconstruction']:.2f} - {row['kl']:.2f} nats"


def _progress_bar(visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(compact=True),
        TextColumn("left  {task.fields[loss]}  {task.fields[figures]}"),
        console=Console(stderr=True),
        disable=not visible,
    )
