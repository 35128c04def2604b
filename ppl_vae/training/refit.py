"""Train the guide of a program while its model stays as it is, to the bit."""

from typing import get_args

from ..choices import GuideData
from ..data.batch import Batch
from ..data.dataset import DataSet
from ..errors import InputError, check_type
from ..programs.batches import match_data
from ..programs.conformance import check_program
from ..programs.generative import PROBED, Parts, inherit
from ..programs.protocol import Program, device_of, dtype_of, require_program
from ..progress import OnProgress
from ..runs.directory import Run
from .fit import OnEpoch, train
from .history import History
from .settings import Settings
from .step import Refit

OF_THE_ELBO = ("objective", "particles", "kl_warmup_epochs", "free_bits")


def refit_guide(
    program: Program,
    data: DataSet,
    settings: Settings | None = None,
    *,
    on: GuideData = "data",
    parent: Program | None = None,
    run: Run | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    on_progress: OnProgress | None = None,
    progress: bool = True,
) -> History:
    r"""Train the guide alone, in place: p(x, z) stays as it is, to the bit.

    On the data, the objective is that of :func:`ppl_vae.fit`: it lowers KL(q(z|x) || p(z|x)) for
    the training data, and prefers guides that are too narrow. On simulations, each step draws as
    many pairs (z, x) from the model as a batch has rows, and raises log q(z | x) (the sleep phase
    of Hinton et al. 1995; neural posterior estimation, Papamakarios & Murray 2016). This lowers
    KL(p(z|x) || q(z|x)) for data that the model makes. Its minimum over all guides is the
    posterior, which is calibrated; over a family, a guide that covers. It says nothing of data that
    the model does not make. On both, it is the sum of the two.

    What belongs to the model is found by running it: every parameter and buffer that log p(x, z)
    reads. Layers that only the guide runs are trained in their own mode; all others, dropout and
    batch normalization among them, are in evaluation mode. The program ends with the guide that
    scored best on held-out data: by the validation ELBO (or the bound of ``iw`` and ``dreg``), by
    the mean of log q(z | x) over simulations that are not trained on, or by the sum of the two. The
    guide that there was before the first step is among those compared.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`. It is moved to the device.
        data: The data. Simulations have their shape, and are given their covariates.
        settings: How to train. Simulations take no ``objective``, ``particles``,
            ``kl_warmup_epochs`` or ``free_bits``, which belong to the ELBO.
        on: What to train on: ``"data"``, ``"simulations"`` or ``"both"``.
        parent: A program whose model ``program`` is to have, with another guide, such as a richer
            family. Its model is copied, and of its guide what has the same name and shape; the
            rest starts as ``program`` has it. It is not needed to resume.
        run: A run directory to keep the refit in; its config may name the run of the parent, see
            :meth:`ppl_vae.Config.of`.
        resume: Whether to continue from the newest checkpoint of the run, to the same bits.
        on_epoch: As for :func:`ppl_vae.fit`.
        on_progress: As for :func:`ppl_vae.fit`.
        progress: As for :func:`ppl_vae.fit`.

    Returns:
        The history; on simulations and both, its rows have ``log_q`` too, in nats per datum.

    Raises:
        InputError: As :func:`ppl_vae.fit` does; if model and guide share a parameter, the guide
            has none of its own, or the model changes as it runs; if the parent has another model;
            or if a guide that is a point mass, or does not know its density at values that it has
            not drawn, is to be trained on simulations.

    Example:
        >>> from ppl_vae import load_data
        >>> from ppl_vae.models import LinearGaussian
        >>> data = load_data("digits")
        >>> ppca = LinearGaussian(data.shape, latent_dim=2)
        >>> loading = ppca.loading.clone()
        >>> history = refit_guide(ppca, data, Settings(epochs=2), on="simulations", progress=False)
        >>> history.epochs[1]["log_q"] > history.epochs[0]["log_q"]
        True
        >>> bool((ppca.loading == loading).all())
        True
    """
    settings = Settings() if settings is None else settings
    check_type("settings", settings, Settings)
    _check(on, settings)
    # The run's config says what the data were before labels became a covariate.
    batch = match_data(program, data).batch("validation").rows(slice(PROBED))
    if parent is None:
        check_program(program, batch)
    else:
        _take_model(program, parent, batch)
    parts = Parts.of(program, batch)
    parts.require_apart(program)
    parts.require_still(program, batch)
    with parts.frozen(program):
        return train(
            program,
            data,
            settings,
            Refit(on, parts.trained),
            run=run,
            resume=resume,
            on_epoch=on_epoch,
            on_progress=on_progress,
            progress=progress,
        )


def _take_model(program: Program, parent: Program, batch: Batch) -> None:
    """Give a program the model of its parent, or leave it as it was."""
    check_program(parent, batch)
    require_program(program)
    before = device_of(program), dtype_of(program)
    try:
        program.to(device_of(parent), dtype_of(parent))
        check_program(program, batch)
        inherit(program, parent, batch)
    except InputError:
        program.to(*before)
        raise


def _check(on: GuideData, settings: Settings) -> None:
    if on not in get_args(GuideData):
        raise InputError("on", f"must be one of {', '.join(get_args(GuideData))}, got {on!r}")
    if on == "simulations":
        for name in OF_THE_ELBO:
            given, default = getattr(settings, name), getattr(Settings, name)
            if given != default:
                raise InputError(
                    name,
                    f"is {given!r}, but the guide is trained on simulations, without the ELBO",
                    "leave it out, or train on both",
                )
