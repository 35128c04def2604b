"""Fits from the command line: what is told of each epoch, and what an interrupt leaves."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from ..errors import shell_word
from ..signals import handled
from .epoch_log import EpochLog
from .terminal import LOG


def fit_or_stop(
    run: Any,
    program: Any,
    dataset: Any,
    settings: Any,
    *,
    on: Any = None,
    parent: Any = None,
    tensorboard: bool = False,
    resume: bool = False,
) -> Any:
    """Fit, all or the guide alone, as given or as the run's config says; an interrupt tells how to
    go on. Of several processes, all but the first leave the run and what is told to that one.

    Returns:
        The history of the fit.
    """
    from ..training.fit import fit
    from ..training.processes import Processes
    from ..training.refit import refit_guide

    if not Processes.launched().is_first:
        LOG.setLevel(logging.ERROR)  # what goes wrong here alone, nobody else says
        return fit(program, dataset, settings, resume=resume)
    on = on or run.config.parent.get("on")
    with handled(_interrupt), _on_epoch(run, settings.epochs, tensorboard) as on_epoch:
        try:
            if on is None:
                return fit(program, dataset, settings, run=run, resume=resume, on_epoch=on_epoch)
            return refit_guide(
                program,
                dataset,
                settings,
                on=on,
                parent=parent,
                run=run,
                resume=resume,
                on_epoch=on_epoch,
            )
        except KeyboardInterrupt:
            words = "nothing was written"
            if run.has_weights():
                words = (
                    f"{run.path} holds the best weights up to here; continue with: ppl-vae train "
                    f"--resume {shell_word(run.path)}"
                )
            raise KeyboardInterrupt(f"interrupted: {words}") from None


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _on_epoch(
    run: Any, epochs: int, tensorboard: bool
) -> Iterator[Callable[[dict[str, float]], None]]:
    """What the fit tells of each epoch: TensorBoard, and a line where there is no progress bar."""
    from .terminal import Console

    tell: list[Callable[[dict[str, float]], None]] = []
    with ExitStack() as stack:
        if tensorboard:
            from ..training.tensorboard import TensorBoard

            tell.append(stack.enter_context(TensorBoard(run.events)))
        if not Console(stderr=True).is_terminal:
            tell.append(EpochLog(epochs))

        def on_epoch(row: dict[str, float]) -> None:
            for called in tell:
                called(row)

        yield on_epoch
