"""Fit a program to data by SVI: epochs, early stopping, a record of it."""

import logging
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

from ..data.dataset import DataSet
from ..errors import InputError, check_type
from ..programs.batches import match_data
from ..programs.conformance import check_split
from ..programs.protocol import Program
from ..progress import OnProgress, Progress, progress_bar
from ..runs.directory import Run
from ..runtime import derived_seed, isolated, pick_device
from .history import History, validation_score
from .processes import Processes
from .record import recorded
from .settings import Settings
from .shared_state import seed_own
from .state import LR_FACTOR, MAX_DIVERGENCES
from .step import Refit
from .trainer import DivergenceError, Trainer

LOG = logging.getLogger(__name__)

OnEpoch = Callable[[dict[str, float]], Any]
"""Called with the row of each epoch; what returns True ends the fit."""


def fit(
    program: Program,
    data: DataSet,
    settings: Settings | None = None,
    *,
    run: Run | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    on_progress: OnProgress | None = None,
    progress: bool = True,
) -> History:
    """Fit a program by stochastic variational inference, in place.

    Each step is one of :class:`ppl_vae.CompiledSVI` with Adam; after each epoch the validation data
    are scored, and the program ends with the weights that scored best. A loss or gradient that is
    not finite rolls it back; see :class:`ppl_vae.training.trainer.Trainer`.

    Where ``torchrun`` has started several processes, they fit the program together: each calls this
    with the same program, data and settings, and takes its share of every batch. The first keeps
    the run, shows progress and calls ``on_epoch``; see docs/scale.md.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`. It is moved to the device.
        data: What to fit it to.
        settings: How to fit it.
        run: A run directory to keep weights, metrics and checkpoints in.
        resume: Whether to continue from the newest checkpoint of the run, to the same bits as if it
            had never stopped. The program's weights are those of the checkpoint then.
        on_epoch: Called after each epoch with its row; see :class:`History`. The program has the
            weights of that epoch then, and random numbers that it draws do not change the fit. If
            it returns ``True``, the fit stops early. A resumed fit first calls it with the rows of
            the epochs before.
        on_progress: Called with the share of the work that has been done, and a note.
        progress: Whether to show a progress bar on standard error, if there is no ``on_progress``.

    Returns:
        The history of the fit.

    Raises:
        InputError: If program and data do not fit together, or another thread of this process
            fits a program, before any step; if the run cannot be written, is being fitted by
            another process, or is not of this fit; or if the fit diverges three times in a row,
            after the best weights have been restored.

    Example:
        >>> from ppl_vae import load_data
        >>> from ppl_vae.models import LinearGaussian
        >>> data = load_data("digits")
        >>> ppca = LinearGaussian(data.shape, latent_dim=2)
        >>> history = fit(ppca, data, Settings(epochs=2), progress=False)
        >>> history.epochs[1]["elbo"] > history.epochs[0]["elbo"]
        True
    """
    return train(
        program,
        data,
        settings,
        run=run,
        resume=resume,
        on_epoch=on_epoch,
        on_progress=on_progress,
        progress=progress,
    )


def train(
    program: Program,
    data: DataSet,
    settings: Settings | None,
    refit: Refit | None = None,
    *,
    run: Run | None,
    resume: bool,
    on_epoch: OnEpoch | None,
    on_progress: OnProgress | None,
    progress: bool,
) -> History:
    """:func:`fit`; with ``refit``, of the guide's parameters alone."""
    settings = Settings() if settings is None else settings
    check_type("settings", settings, Settings)
    if run is not None:
        check_type("run", run, Run)
    trainer, history = _prepare(program, data, settings, refit), History()
    words = type(program).__name__, data.source, trainer.device, trainer.schedule.steps
    LOG.debug("fitting %s to %s on %s in %d steps", *words)
    bar: AbstractContextManager[OnProgress | None] = nullcontext(on_progress)
    if on_progress is None and progress and trainer.processes.is_first:
        bar = progress_bar()
    # Not the draws of the fit before, from the same seed.
    seed = settings.seed if refit is None else derived_seed(settings.seed, "refit")
    try:
        with isolated(seed, trainer.device, fits=True), warnings.catch_warnings(), bar as shown:
            # Pyro warns of a NaN loss, which is seen to, and of parameters that are frozen.
            warnings.filterwarnings("ignore", "Encountered|.*requires_grad=False", UserWarning)
            seed_own(trainer.processes, seed, trainer.device)
            with recorded(trainer, history, run, data, resume):
                _run_epochs(trainer, history, on_epoch, shown)
    except DivergenceError as error:
        raise InputError(
            type(program).__name__,
            f"diverged {MAX_DIVERGENCES} times in a row, the last time in epoch "
            f"{len(history.epochs) + 1} ({error}); it has the weights of epoch "
            f"{history.best_epoch}",
            "look for outliers in the data, or try a learning rate of "
            f"{settings.learning_rate * LR_FACTOR**MAX_DIVERGENCES:g}, a bound of 100 on the norm "
            "of the gradient, or more epochs of warm-up",
        ) from None
    finally:
        program.load_state_dict(trainer.best)
    return history


def _prepare(program: Program, data: DataSet, settings: Settings, refit: Refit | None) -> Trainer:
    """Refuse what cannot be fitted, and move the program to its device."""
    data, processes = match_data(program, data), Processes.launched()
    device = pick_device(processes.device_name(settings.device))
    program.to(device)
    check_split(program, data, "train")
    check_split(program, data, "test")
    trainer = Trainer(program, data, settings, refit, processes)  # checks the validation data
    processes.join()
    return trainer


def _run_epochs(
    trainer: Trainer, history: History, on_epoch: OnEpoch | None, on_progress: OnProgress | None
) -> None:
    settings, steps = trainer.settings, len(trainer.batches)
    progress = Progress(on_progress, trainer.schedule.steps)
    progress.advance(trainer.counters.steps)
    trainer.svi_step.svi.gradients.on_progress = progress.advance
    call = partial(_call, trainer, on_epoch or (lambda row: None))
    if trainer.refit is not None and not trainer.counters.steps:
        with suppress(FloatingPointError):  # the guide that there is counts among the best
            trainer.update_best(trainer.validation())
    for row in history.epochs:  # of a fit that is resumed
        call(row)
    score = ""
    while len(history.epochs) < settings.epochs and not history.stopped_early:
        epoch = len(history.epochs) + 1
        words = f"epoch {epoch}/{settings.epochs}"
        row = trainer.epoch(_part(progress, steps, f"{words}: {{}}{score}"))
        history.epochs.append({"epoch": epoch, **row})
        if trainer.update_best(row):
            history.best_epoch = epoch
            LOG.debug("epoch %d has the best weights so far", epoch)
        if settings.patience and epoch - history.best_epoch >= settings.patience:
            history.stopped_early = True
        trainer.snapshot()
        score = f", {validation_score(row)}"
        progress.advance(0, words + score)
        if call(history.epochs[-1]) and not history.stopped_early:
            history.stopped_early = True
            trainer.snapshot()
    progress.finish()


def _call(trainer: Trainer, on_epoch: OnEpoch, row: dict[str, float]) -> bool:
    """Call a callback whose random numbers are not those of the fit; say whether it ends it."""
    answer = False
    if trainer.processes.is_first:
        with isolated(derived_seed(trainer.settings.seed, "on_epoch"), trainer.device):
            answer = on_epoch(dict(row)) is True
    return trainer.processes.said_by_first(answer)


def _part(progress: Progress, steps: int, words: str) -> Progress:
    """The progress of an epoch, whose notes are told in other words."""

    def tell(share: float, note: str) -> None:
        progress.advance(share * steps, words.format(note))

    return Progress(tell, steps)
