"""log p(x) = F + KL over training: does F rise because the model improves, or the guide?"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import DataSet
from ..evidence.annealing import Annealing
from ..evidence.scores import Estimate
from ..inference.estimate import estimate
from ..models import VAE
from ..progress import OnProgress, Progress
from ..training.fit import fit
from ..training.processes import Processes
from ..training.settings import Settings as FitSettings
from ..training.step import choose_engine
from .fits import build
from .outcome import Claim, Outcome, Table, cells, verdict

MEANINGS = {
    "epoch": "passes over the training data",
    "log_p": "log p(x), a lower bound by annealing from the guide, or by its draws if that is "
    "tighter; nats per test datum",
    "elbo": "F = E_q[log p(x|z)] - KL(q(z|x) || p(z)), nats per test datum",
    "kl_to_posterior": "KL(q(z|x) || p(z|x)) = log p(x) - F, nats per test datum",
    "reconstruction": "E_q[log p(x|z)], nats per test datum",
    "kl": "KL(q(z|x) || p(z)), nats per test datum",
    "slack": "upper less lower bound on log p(x) of data drawn from the model, by bidirectional "
    "annealing: what log_p may fall short by, nats per datum",
}
CHANGES = {
    "epochs": "from which epoch to which",
    "elbo": "rise of F, nats per test datum, paired by datum",
    "log_p": "rise of log p(x): the model's share of it",
    "kl_to_posterior": "rise of KL(q(z|x) || p(z|x)): minus the guide's share of it",
}
IDENTITIES = {"kl": ("reconstruction", "elbo"), "kl_to_posterior": ("log_p", "elbo")}

LONGER = 50  # the schedule than the fit, so that the rate is constant to a thousandth


@dataclass(frozen=True)
class Settings:
    """How much to do.

    Attributes:
        epochs: After which epochs to measure.
        latent_dim: Units of the VAE.
        hidden: Widths of its layers.
        learning_rate: Adam's, constant.
        data_points: Test data to measure on.
        draws: Draws from the guide for each of them.
        chains: Annealed chains for each of them.
        temperatures: Steps of each chain.
    """

    epochs: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    latent_dim: int = 50
    hidden: tuple[int, ...] = (500, 500)
    learning_rate: float = 1e-3
    data_points: int = 100
    draws: int = 1000
    chains: int = 8
    temperatures: int = 60


QUICK = Settings(
    epochs=(1, 4, 16),
    latent_dim=5,
    hidden=(100,),
    learning_rate=3e-3,
    data_points=40,
    draws=200,
    chains=8,
    temperatures=25,
)


def run(data: DataSet, settings: Settings, seed: int, on_progress: OnProgress) -> Outcome:
    """Fit a VAE, and take log p(x) apart after some of its epochs, on the same test data.

    Arguments:
        data: Data that are binarized whenever they are read.
        settings: How much to do.
        seed: Seed of everything random.
        on_progress: Called with the share of the work done.
    """
    vae = build(VAE, data, seed, settings.latent_dim, settings.hidden)
    annealing = Annealing(settings.chains, settings.temperatures, start="guide")
    x = data.fixed("test", seed)[: settings.data_points]
    found: dict[int, dict[str, Tensor]] = {}
    rows: list[dict[str, float]] = []
    progress, last = Progress(on_progress), max(settings.epochs)

    def measure(row: dict[str, float]) -> bool:
        epoch = int(row["epoch"])
        progress.advance(0.5 / last, f"epoch {epoch} of {last} done")
        if epoch in settings.epochs:
            progress.advance(0, f"annealing after epoch {epoch}")
            found[epoch], slack = _measure(vae, x, settings.draws, annealing, seed)
            rows.append(_row(epoch, found[epoch], slack))
            progress.advance(0.5 / len(settings.epochs))
        return epoch == last

    fit(vae, data, _constant_rate(settings, data, seed), on_epoch=measure, progress=False)
    tables = {
        "epochs": Table(pd.DataFrame(rows), MEANINGS, IDENTITIES),
        "changes": Table(
            pd.DataFrame([_change(found, *span) for span in _spans(settings.epochs)]),
            CHANGES,
            {"kl_to_posterior": ("log_p", "elbo")},
        ),
    }
    return Outcome(_claims(found, rows), tables, lambda: _draw(tables["epochs"].rows))


def _constant_rate(settings: Settings, data: DataSet, seed: int) -> FitSettings:
    """How to fit at a constant learning rate: at the start of a schedule, before it falls.

    A rate that falls to 0 would let the guide catch up in the end, whatever it does until then.
    """
    last = max(settings.epochs)
    how = FitSettings(
        epochs=last * LONGER, learning_rate=settings.learning_rate, warmup_epochs=0, seed=seed
    )
    steps = last * math.ceil(len(data.train) / how.batch_size)
    return replace(how, engine=choose_engine(how, data, steps, Processes()))


def _measure(
    vae: VAE, x: Tensor, draws: int, annealing: Annealing, seed: int
) -> tuple[dict[str, Tensor], Estimate]:
    """The terms of the identity for each datum, and how loose log p(x) may be."""
    chain = estimate("ais", vae, x, draws, annealing, seed)[1].per_datum
    both = estimate("bdmc", vae, x[: len(x) // 2], 1, annealing, seed)[1].per_datum
    terms = {name: chain[name] for name in ("elbo", "reconstruction", "kl", "kl_to_posterior")}
    return {**terms, "log_p": chain["elbo"] + chain["kl_to_posterior"]}, Estimate.of(both["gap"])


def _row(epoch: int, terms: dict[str, Tensor], slack: Estimate) -> dict[str, float]:
    row: dict[str, float] = {"epoch": epoch}
    for name in ("log_p", "elbo", "kl_to_posterior", "reconstruction", "kl"):
        row |= cells(name, Estimate.of(terms[name]))
    return row | cells("slack", slack)


def _spans(epochs: tuple[int, ...]) -> list[tuple[int, int]]:
    """From each measurement to the next, and from the first to the last."""
    return [*pairwise(epochs), (epochs[0], epochs[-1])]


def _rises(found: dict[int, dict[str, Tensor]], first: int, last: int) -> dict[str, Estimate]:
    """By how much each term rises from one epoch to another, paired by datum."""
    return {
        name: Estimate.of(found[last][name] - found[first][name])
        for name in ("elbo", "log_p", "kl_to_posterior")
    }


def _change(found: dict[int, dict[str, Tensor]], first: int, last: int) -> dict[str, object]:
    row: dict[str, object] = {"epochs": f"{first} to {last}"}
    for name, rise in _rises(found, first, last).items():
        row |= cells(name, rise)
    return row


def _claims(found: dict[int, dict[str, Tensor]], rows: list[dict[str, float]]) -> tuple[Claim, ...]:
    first, last = min(found), max(found)
    rise = _rises(found, first, last)
    # log p(x) is known but for its slack, and the KL with it.
    slack = max(rows, key=lambda row: row["slack"])
    margin = max(slack["slack"], 0.0)
    rises = rise["elbo"].mean > 3 * rise["elbo"].stderr
    model = rises and rise["log_p"].mean > 3 * rise["log_p"].stderr + margin
    guide = rise["kl_to_posterior"].mean < -3 * rise["kl_to_posterior"].stderr - margin
    return (
        Claim(
            "F rises because the model improves, not because the guide catches up.",
            verdict(model and not guide, in_part=model),
            f"From epoch {first} to {last} F rises by {rise['elbo']} nats per test datum; log "
            f"p(x) rises by {rise['log_p']}, KL(q(z|x) || p(z|x)) by {rise['kl_to_posterior']}. "
            f"log p(x) may be off by some {slack['slack']:.2f} ± {slack['slack_error']:.2f} nats.",
        ),
    )


def _draw(rows: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, names in (
        (left, {"log_p": "log p(x)", "elbo": "F"}),
        (right, {"kl_to_posterior": "KL(q(z|x) || p(z|x))", "slack": "slack of log p(x)"}),
    ):
        for name, label in names.items():
            axes.errorbar(
                rows["epoch"], rows[name], 2 * rows[f"{name}_error"], marker="o", ms=4, label=label
            )
        axes.set(xscale="log", xlabel="epoch", ylabel="nats per test datum")
        axes.set_xticks(rows["epoch"], rows["epoch"].astype(str), minor=False)
        axes.minorticks_off()
        axes.legend()
    left.set_title("The model improves ...", fontsize=10)
    right.set_title("... and what the guide falls short by", fontsize=10)
    right.set_ylim(bottom=0)
    return figure
