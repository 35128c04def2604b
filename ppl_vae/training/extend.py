"""Let a fit go on for more epochs than it began with."""

from dataclasses import replace
from pathlib import Path

from ..errors import InputError, check_int
from ..runs.directory import Run


def extend(path: str | Path, epochs: int) -> Run:
    r"""Let the fit of a run go on for more epochs, when it is resumed.

    The learning rate follows a cosine that ends with the last epoch, so a longer fit has higher
    rates from the first. What was done stays; the rest is done at the rates that the longer fit has
    from there. After 20 epochs of 20, the rate rises from 0 to a half of the highest for 40, a
    warm restart (Loshchilov & Hutter 2017). This is not the same as 40 epochs from scratch. Warm-up
    of rate and KL are counted in epochs, and have their places in the longer fit. The best weights
    so far stay, unless later ones score better.

    Arguments:
        path: The run directory.
        epochs: How many epochs there are to be in all.

    Returns:
        The run, to be resumed by :func:`ppl_vae.fit`, or :func:`ppl_vae.refit_guide` where its
        guide alone was trained, with the settings of its config.

    Raises:
        InputError: If there are to be no more epochs than before; if patience, or ``on_epoch``,
            has ended the fit; or if there is no checkpoint to continue from.

    Example:
        >>> extend("runs/none", 40)
        Traceback (most recent call last):
        ppl_vae.errors.InputError: runs/none is not a run, for it has no config.json: make one ...
    """
    run, epochs = Run.open(path), check_int("epochs", epochs)
    before = run.config.settings.get("epochs")
    if not isinstance(before, int):
        raise InputError(run.path, "does not say how it was fitted", "fit-again")
    if epochs <= before:
        raise InputError(
            "epochs", f"must be more than the {before} of {run.path}, got {epochs}", "raise it"
        )
    run.resume()
    try:
        found = run.checkpoints.newest()
        if found is None:
            raise InputError(run.path, "has no checkpoint to continue from", "fit-again")
        history = found[1].get("history")
        if isinstance(history, dict) and history.get("stopped_early"):
            raise InputError(
                run.path,
                "was stopped early, and more epochs would not go on",
                "fit again with more patience",
            )
        config, counts = run.config, [*run.config.epochs_before, before]
        settings = {**config.settings, "epochs": epochs}
        run.config = replace(config, settings=settings, epochs_before=counts)
        run.config.write(run.path)
    finally:
        run.close()
    return run
