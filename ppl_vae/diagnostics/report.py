"""A diagnosis as one self-contained HTML page, without scripts or requests, for phones too."""

import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import xarray
from matplotlib.figure import Figure

from ..errors import InputError, check_type
from ..plots import figures as plots
from ..runs.config import WEIGHTS
from ..runs.directory import METRICS, Run
from ..storage.tensors import digest_of, read_tensors
from . import plots as diagnostic_plots
from .calibration import DRAWS
from .diagnosis import Diagnosis
from .pages import Show, fill, pictures, write_page
from .remedies import Remedy, possible
from .verdicts import GRADES


class OlderWeightsWarning(UserWarning):
    """A diagnosis is not of the weights that its run has."""


PICTURES: list[tuple[str, str, str, Callable[[xarray.Dataset], Figure]]] = [
    (
        "diagnostics",
        "Pareto k-hat of each data point",
        "Above the line, averages over draws are unreliable however many draws one can afford.",
        diagnostic_plots.k_hats,
    ),
    (
        "calibration",
        "Ranks of the true latents, on simulated data",
        "Left: the ECDF of ranks, with simultaneous bands. Right: how often regions of q(z|x) "
        "hold the true value.",
        diagnostic_plots.rank_bands,
    ),
    (
        "gaps",
        "The gap between ELBO and log p(x)",
        "The approximation gap is left by the best guide of the family for each data point; "
        "the amortization gap is what that guide gains over the encoder.",
        diagnostic_plots.gap_decomposition,
    ),
    (
        "nuts",
        "The guide and NUTS",
        "Draws from p(z|x) by NUTS and from q(z|x), in the two units with the narrowest posterior.",
        diagnostic_plots.nuts_overlay,
    ),
    (
        "latents",
        "Latent units",
        "A unit whose KL is near zero is not used.",
        diagnostic_plots.unit_activity,
    ),
    (
        "generation",
        "Draws from the model and test data",
        "Distributions over data points. PIT: the rank of each test value among prior "
        "predictive draws.",
        diagnostic_plots.predictive_checks,
    ),
    (
        "certificate",
        "The divergence between guide and posterior",
        "Each simulated data point adds the log weight of its true z, less that of draws of "
        "the guide; the mean is the Jeffreys divergence.",
        diagnostic_plots.contributions,
    ),
    (
        "local",
        "Where the guide is off",
        "Errors of the guide's mean and scale, averaged over neighbouring simulations; the "
        "worst region is circled.",
        diagnostic_plots.local_shifts,
    ),
    (
        "misspecification",
        "Observed and simulated data",
        "Distances in the guide's means and the log evidence. Far to the right are data that "
        "the model does not make.",
        diagnostic_plots.likeness,
    ),
    (
        "posterior_sbc",
        "Calibration around the observed data",
        "Places of the draw that made new data, among draws for the observed data, with "
        "simultaneous bands.",
        diagnostic_plots.places,
    ),
]
"""Group, heading, caption and figure."""


def write_report(file: str | Path, diagnosis: Diagnosis, run: Run | None = None) -> None:
    """Write a diagnosis as one self-contained HTML page.

    A picture that cannot be drawn is left out, with a ``PictureWarning``.

    Arguments:
        file: A path that ends in ``.html``.
        diagnosis: What :func:`ppl_vae.diagnose` found.
        run: The run of the program, if any: its training curves and settings are shown too.

    Raises:
        InputError: If the page cannot be written, or the diagnosis lacks arrays that it shows.

    Example:
        >>> from ppl_vae.diagnostics.verdicts import Verdict
        >>> from ppl_vae.storage.arviz_io import as_inference_data
        >>> verdict = Verdict("Is q(z|x) calibrated?", "cannot say", "nobody asked")
        >>> nothing = as_inference_data({}, {})
        >>> write_report("a.html", Diagnosis({"calibration": verdict}, nothing, {}))
        >>> "Nobody asked." in Path("a.html").read_text()
        True
    """
    check_type("diagnosis", diagnosis, Diagnosis)
    write_page(file, partial(render, diagnosis, run), "the diagnosis")


def render(diagnosis: Diagnosis, run: Run | None = None) -> str:
    """The page as text: the verdicts, then what they rest on."""
    groups = {name: diagnosis.inference_data[name] for name in diagnosis.inference_data.groups()}
    title = (
        f"{diagnosis.about.get('program', 'a program')} on {diagnosis.about.get('data', 'data')}"
    )
    grades = [verdict.grade for verdict in diagnosis.verdicts.values()]
    counts = ", ".join(f"{grades.count(g)} {g}" for g in GRADES if g in grades)
    if older := older_weights(diagnosis, run):
        warnings.warn(older, OlderWeightsWarning, stacklevel=2)
    return fill(
        "report.html",
        title=title,
        counts=counts,
        older=older,
        reading=diagnosis.reading,
        verdicts=diagnosis.verdicts,
        remedies=_ready(diagnosis, run),
        pictures=pictures(_figures(groups, run), "the report"),
        about={name: value for name, value in diagnosis.about.items() if name != "takes"},
        fit={} if run is None else {**run.config.arguments, **run.config.settings},
    )


def older_weights(diagnosis: Diagnosis, run: Run | None) -> str:
    """That a diagnosis is not of the weights that its run has, if so."""
    judged = diagnosis.about.get("weights")
    if run is None or judged is None or not run.has_weights():
        return ""
    try:
        same = digest_of(read_tensors(run.path / WEIGHTS)[0]) == judged
    except InputError as error:
        return f"Whether these verdicts are of the run's weights is not known: {error}"
    return "" if same else "These verdicts are of older weights than the run has: diagnose it again"


def _ready(diagnosis: Diagnosis, run: Run | None) -> dict[str, list[Remedy]]:
    """The remedies of each question, of the run if there is one."""
    if run is None:
        return diagnosis.remedies
    allowed = possible(diagnosis.remedies, run.config)
    return {q: [r.of(run.path, run.config) for r in found] for q, found in allowed.items()}


def _check_calibration(calibration: xarray.Dataset) -> None:
    """Refuse ranks out of range: they would be counted in an array as long as the highest."""
    ranks = calibration["rank"].values
    if calibration.attrs["draws"] != DRAWS or ranks.min() < 0 or ranks.max() > DRAWS:
        raise ValueError(f"ranks are not among {DRAWS} draws")


def _figures(groups: dict[str, xarray.Dataset], run: Run | None) -> Iterator[Show]:
    """Heading, caption and what draws the figure, of all groups that there are."""
    if "calibration" in groups:
        _check_calibration(groups["calibration"])
    if run is not None:
        yield from _training(run)
    for heading, show in diagnostic_plots.shown_data(groups).items():
        yield heading, "", show
    for name, heading, caption, draw in PICTURES:
        if name in groups and (name != "diagnostics" or "k_hat" in groups[name]):
            yield heading, caption, partial(draw, groups[name])
    if "latents" in groups:
        yield "Latent map", "Means of q(z|x) of the test data.", lambda: _latent_map(groups)


def _training(run: Run) -> Iterator[Show]:
    if (run.path / METRICS).exists() and (epochs := run.metrics()):
        yield "The fit", "", lambda: plots.training_curves(epochs)


def _latent_map(groups: dict[str, xarray.Dataset]) -> Figure:
    means = torch.tensor(groups["latents"]["mean"].values)
    per_datum = groups["diagnostics"]
    labels = torch.tensor(per_datum["label"].values) if "label" in per_datum else None
    names = json.loads(per_datum.attrs.get("label_names", "[]"))
    return plots.latent_map(means, labels, names)
