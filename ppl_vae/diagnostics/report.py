"""A diagnosis as one self-contained HTML page, without scripts or requests, for phones too."""

import base64
import html
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray
from matplotlib.figure import Figure

from ..errors import InputError, as_path, check_type, first_line, printable
from ..plots import figures as plots
from ..plots.drawing import png_or_warning
from ..runs.config import WEIGHTS
from ..runs.directory import METRICS, Run
from ..storage.files import replacing
from ..storage.tensors import digest_of, read_tensors
from . import plots as diagnostic_plots
from .calibration import DRAWS
from .diagnosis import Diagnosis
from .remedies import Remedy, possible
from .verdicts import GRADES, Verdict, sentence

DPI = 110


class OlderWeightsWarning(UserWarning):
    """A diagnosis is not of the weights that its run has."""


STYLE = """
:root { --ink: #1d2733; --soft: #5b6875; --line: #dfe4ea; --page: #f6f7f9; --card: #fff; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: .5rem 0 0; font-size: 1.5rem; } h2 { margin: 2rem 0 .5rem; font-size: 1.15rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-left-width: .4rem;
  border-radius: .4rem; padding: .6rem .9rem; margin: .6rem 0; overflow-wrap: anywhere; }
.grade { float: right; margin-left: .6rem; padding: 0 .6rem; border-radius: 1rem; color: #fff;
  font-size: .85rem; font-weight: 600; }
.pass { border-left-color: #2e7d46; } .grade.pass { background: #2e7d46; }
.caution { border-left-color: #b26a00; } .grade.caution { background: #b26a00; }
.fail { border-left-color: #b3261e; } .grade.fail { background: #b3261e; }
.cannot-say { border-left-color: #6b7783; } .grade.cannot-say { background: #6b7783; }
figure { margin: .6rem 0; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; padding: .5rem; overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 20rem; height: auto; }
figcaption { color: var(--soft); font-size: .85rem; }
table { border-collapse: collapse; font-size: .9rem; } td { padding: .15rem .8rem .15rem 0;
  vertical-align: top; overflow-wrap: anywhere; }
"""


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
        >>> from ppl_vae.storage.arviz_io import as_inference_data
        >>> verdict = Verdict("Is q(z|x) calibrated?", "cannot say", "nobody asked")
        >>> nothing = as_inference_data({}, {})
        >>> write_report("a.html", Diagnosis({"calibration": verdict}, nothing, {}))
        >>> "Nobody asked." in Path("a.html").read_text()
        True
    """
    check_type("diagnosis", diagnosis, Diagnosis)
    try:
        page = render(diagnosis, run)
    except InputError:
        raise
    except Exception as error:  # whatever incomplete or malformed groups raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(
            "the diagnosis", f"cannot be shown ({reason})", "diagnose-again"
        ) from error
    with replacing(as_path("file", file)) as (temporary,):
        temporary.write_text(page, encoding="utf-8")


def render(diagnosis: Diagnosis, run: Run | None = None) -> str:
    """The page as text: the verdicts, then what they rest on."""
    groups = {name: diagnosis.inference_data[name] for name in diagnosis.inference_data.groups()}
    title = (
        f"{diagnosis.about.get('program', 'a program')} on {diagnosis.about.get('data', 'data')}"
    )
    grades = [verdict.grade for verdict in diagnosis.verdicts.values()]
    counts = ", ".join(f"{grades.count(g)} {g}" for g in GRADES if g in grades)
    ready = _ready(diagnosis, run)
    if older := _older(diagnosis, run):
        warnings.warn(older, OlderWeightsWarning, stacklevel=2)
    body = [
        f"<h1>How far can q(z|x) be trusted?</h1><p>{escape(title)}: {counts}</p>",
        f'<p class="card caution">{escape(older)}.</p>' if older else "",
        f'<p id="reading"><strong>{escape(diagnosis.reading)}</strong></p>',
        *(_card(key, verdict, ready.get(key, [])) for key, verdict in diagnosis.verdicts.items()),
    ]
    for heading, caption, draw in _figures(groups, run):
        png = png_or_warning(f"{heading!r} of the report", draw, DPI)
        if png is not None:
            body.append(f"<h2>{escape(heading)}</h2>{_picture(heading, caption, png)}")
    about = {name: value for name, value in diagnosis.about.items() if name != "takes"}
    body.append(f"<h2>The diagnosis</h2>{_table(about)}")
    if run is not None:
        fit = {**run.config.arguments, **run.config.settings}
        body.append(f"<h2>The settings of the fit</h2>{_table(fit)}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # The page loads nothing, whatever a name in it says.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _older(diagnosis: Diagnosis, run: Run | None) -> str:
    """That a diagnosis is not of the weights that its run has, if so."""
    judged = diagnosis.about.get("weights")
    if run is None or judged is None or not run.has_weights():
        return ""
    try:
        same = digest_of(read_tensors(run.path / WEIGHTS)[0]) == judged
    except InputError as error:
        return f"Whether these verdicts are of the run's weights is not known: {error}"
    return "" if same else "These verdicts are of older weights than the run has: diagnose it again"


def escape(text: str) -> str:
    """Text without markup, and without characters that command a display."""
    return html.escape(printable(text))


def _ready(diagnosis: Diagnosis, run: Run | None) -> dict[str, list[Remedy]]:
    """The remedies of each question, of the run if there is one."""
    if run is None:
        return diagnosis.remedies
    allowed = possible(diagnosis.remedies, run.config)
    return {q: [r.of(run.path, run.config) for r in found] for q, found in allowed.items()}


def _card(key: str, verdict: Verdict, remedies: list[Remedy]) -> str:
    kind = verdict.grade.replace(" ", "-")
    lines = [
        f'<span class="grade {escape(kind)}">{escape(verdict.grade)}</span>',
        f"<strong>{escape(verdict.question)}</strong><p>{escape(sentence(verdict.meaning))}</p>",
    ]
    if verdict.remedy:
        lines.append(f"<p><em>Try:</em> {escape(verdict.remedy)}.</p>")
    for remedy in remedies:
        words = f"{remedy.changes}; takes {remedy.cost}"
        lines.append(
            f'<p><code>{escape(remedy.command)}</code><br><span class="soft">{escape(words)}</span>'
            "</p>"
        )
    if verdict.statistic_text:
        measured = f"{verdict.statistic}: {verdict.statistic_text}"
        lines.append(
            f'<p class="soft">{escape(measured)} &middot; {escape(verdict.threshold)} &middot; '
            f"{escape(verdict.source)}</p>"
        )
    return f'<section class="card {escape(kind)}" id="{escape(key)}">{"".join(lines)}</section>'


def _check_calibration(calibration: xarray.Dataset) -> None:
    """Refuse ranks out of range: they would be counted in an array as long as the highest."""
    ranks = calibration["rank"].values
    if calibration.attrs["draws"] != DRAWS or ranks.min() < 0 or ranks.max() > DRAWS:
        raise ValueError(f"ranks are not among {DRAWS} draws")


def _figures(
    groups: dict[str, xarray.Dataset], run: Run | None
) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
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


def _training(run: Run) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    if (run.path / METRICS).exists() and (epochs := run.metrics()):
        yield "The fit", "", lambda: plots.training_curves(epochs)


def _latent_map(groups: dict[str, xarray.Dataset]) -> Figure:
    means = torch.tensor(groups["latents"]["mean"].values)
    per_datum = groups["diagnostics"]
    labels = torch.tensor(per_datum["label"].values) if "label" in per_datum else None
    names = json.loads(per_datum.attrs.get("label_names", "[]"))
    return plots.latent_map(means, labels, names)


def _picture(heading: str, caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    shown = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img alt="{escape(heading)}" src="data:image/png;base64,{data}">{shown}</figure>'
    )


def _table(about: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in about.items()
        if value is not None
    )
    return f"<table>{rows}</table>"
