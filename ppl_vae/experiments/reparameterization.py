"""z = mu + sigma * epsilon: the same law as N(mu, sigma^2), and a gradient with little noise."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import ks_2samp
from torch import Tensor
from torch.distributions import Normal

from ..data.batch import Batch
from ..data.dataset import DataSet
from ..models import VAE
from ..objectives.gradients import ESTIMATORS, Gradient, compare_gradients
from ..programs.protocol import Program
from ..programs.sites import Sites
from ..progress import OnProgress
from ..runtime import derived_seed, isolated
from .fits import fit_new
from .outcome import Claim, Outcome, Table, Verdict, verdict

LAWS = {
    "construction": "how z is made of draws of N(0, 1)",
    "draws": "draws of z, and as many by the inverse of the distribution function of "
    "N(mu, sigma^2), which owes nothing to mu + sigma * epsilon",
    "distance": "largest Kolmogorov-Smirnov distance of the two, over units and random "
    "combinations of units",
    "p_value": "of the hypothesis that they have one law: the smallest p-value of two-sample "
    "Kolmogorov-Smirnov tests, times their number",
}
VARIANCES = {
    "estimator": "of the gradient by the guide's parameters",
    "target": "the bound that it is the gradient of",
    "particles": "draws K of z for each datum",
    "variance": "total variance over the guide's parameters, (nats per datum)^2",
    "signal_to_noise": "length of the mean over the length of a typical deviation from it",
    "p_value": "of the hypothesis that the mean is that of the first estimator of the target",
}
COMBINATIONS = 16  # of units, that see dependence between them
LEVEL = 0.001
ERRORS = 4.0  # of few groups: a Student of 7 degrees of freedom is beyond it in 0.5 % of cases


@dataclass(frozen=True)
class Settings:
    """How much to do.

    Attributes:
        epochs: Of the fit whose guide is looked at.
        latent_dim: Units of the VAE.
        hidden: Widths of its layers.
        law_draws: Draws of z for one datum.
        data_points: The batch whose gradient is estimated.
        particles: Numbers of draws K.
        repeats: Estimates of each gradient, in each of several groups.
        groups: Groups, whose spread is the standard error.
    """

    epochs: int = 5
    latent_dim: int = 10
    hidden: tuple[int, ...] = (200, 200)
    law_draws: int = 100_000
    data_points: int = 20
    particles: tuple[int, ...] = (2, 5, 10, 20)
    repeats: int = 40
    groups: int = 8


QUICK = Settings(
    epochs=10,
    latent_dim=3,
    hidden=(32,),
    law_draws=50_000,
    data_points=20,
    particles=(2, 5, 20),
    repeats=25,
    groups=8,
)


def run(data: DataSet, settings: Settings, seed: int, on_progress: OnProgress) -> Outcome:
    """Test the law of mu + sigma * epsilon, and measure what each gradient estimator costs.

    Arguments:
        data: Data that are binarized whenever they are read.
        settings: How much to do.
        seed: Seed of everything random.
        on_progress: Called with the share of the work done.
    """
    on_progress(0, "fitting a VAE")
    vae = fit_new(VAE, data, settings.epochs, seed, settings.latent_dim, settings.hidden)
    x = data.fixed("train", seed)[: settings.data_points]
    on_progress(0.1, "comparing laws")
    laws = _compare_laws(vae, x[:1], settings.law_draws, seed)
    on_progress(0.05, "estimating gradients")
    per_particle = 0.85 / sum(settings.particles)
    groups: dict[int, list[dict[str, Gradient]]] = {}
    for count in settings.particles:
        groups[count] = [
            compare_gradients(vae, x, count, settings.repeats, derived_seed(seed, f"group {group}"))
            for group in range(settings.groups)
        ]
        on_progress(count * per_particle, f"estimating gradients: {count} draws done")
    rows = [
        _row(name, count, [found[name] for found in group], group)
        for count, group in groups.items()
        for name in ESTIMATORS
    ]
    variances = pd.DataFrame(rows)
    tables = {"laws": Table(laws, LAWS), "variances": Table(variances, VARIANCES)}
    return Outcome(_claims(laws, variances), tables, lambda: _draw(variances))


def _compare_laws(vae: Program, x: Tensor, draws: int, seed: int) -> pd.DataFrame:
    """Constructions of z, right and wrong, beside draws of N(mu, sigma^2) by inversion."""
    q = next(iter(Sites.of(vae, Batch(x=x)).guide.values()))
    mean, scale = (t.flatten().double().cpu() for t in (q.mean, q.stddev))
    generator = torch.Generator().manual_seed(derived_seed(seed, "laws"))
    units = len(mean)
    uniform = torch.rand(draws, units, generator=generator, dtype=torch.float64)
    reference = Normal(mean, scale).icdf(uniform.clamp(1e-300, 1 - 2**-53))
    noise = torch.randn(draws, units, generator=generator, dtype=torch.float64)
    one = noise[:, :1]
    with isolated(derived_seed(seed, "rsample")):
        drawn = q.rsample((draws,)).reshape(draws, units).double().cpu()
    constructions = {
        "the guide's rsample": drawn,
        "mu + sigma * epsilon": mean + scale * noise,
        "sigma off by 5 %": mean + 1.05 * scale * noise,
        "mu + sigma^2 * epsilon": mean + scale.square() * noise,
        "one epsilon for all units": mean + scale * one.expand_as(noise),
    }
    weights = torch.randn(units, COMBINATIONS, generator=generator, dtype=torch.float64)
    rows = []
    for name, z in constructions.items():
        tests = [
            ks_2samp(ours, theirs, method="asymp")
            for ours, theirs in zip(
                *(_views(t, mean, scale, weights) for t in (z, reference)), strict=True
            )
        ]
        p_value = min(1.0, len(tests) * min(test.pvalue for test in tests))
        distance = max(test.statistic for test in tests)
        rows.append(
            {"construction": name, "draws": draws, "distance": distance, "p_value": p_value}
        )
    return pd.DataFrame(rows)


def _views(z: Tensor, mean: Tensor, scale: Tensor, weights: Tensor) -> np.ndarray:
    """Each unit, and combinations of standardized units, as rows."""
    standard = (z - mean) / scale
    return torch.cat([standard, standard @ weights], 1).T.numpy()


def _row(
    name: str, particles: int, groups: list[Gradient], others: list[dict[str, Gradient]]
) -> dict[str, object]:
    target, _ = ESTIMATORS[name]
    first = next(n for n, (t, _) in ESTIMATORS.items() if t == target)
    variance = np.array([gradient.total_variance for gradient in groups])
    ratio = np.array([gradient.signal_to_noise for gradient in groups])
    p = [g.agreement(found[first]) for g, found in zip(groups, others, strict=True)]
    root = math.sqrt(len(groups))
    return {
        "estimator": name,
        "target": target,
        "particles": particles,
        "variance": variance.mean(),
        "variance_error": variance.std(ddof=1) / root,
        "signal_to_noise": ratio.mean(),
        "signal_to_noise_error": ratio.std(ddof=1) / root,
        "p_value": None if name == first else min(1.0, len(p) * min(p)),
    }


def slope(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """The power of K that a column goes by, and its error: least squares of logarithms.

    Errors are alike relative to their figures, so that they are pooled.
    """
    rows = rows[rows[column] > 0]
    if len(rows) < 2:
        return math.nan, math.nan
    x, y = np.log(rows["particles"].to_numpy(float)), np.log(rows[column].to_numpy(float))
    relative = (rows[f"{column}_error"] / rows[column]).to_numpy(float)
    x = x - x.mean()
    spread = (x**2).sum()
    return float((x * y).sum() / spread), float(math.sqrt((relative**2).mean() / spread))


def _claims(laws: pd.DataFrame, variances: pd.DataFrame) -> tuple[Claim, ...]:
    p = laws["p_value"]
    right, wrong = p.iloc[:2].min(), p.iloc[2:].max()
    law = Claim(
        "N(mu, sigma^2) and mu + sigma * epsilon are the same law.",
        verdict(right > LEVEL and wrong < LEVEL, in_part=right > LEVEL),
        f"p = {p.iloc[0]:.2g} for the guide's rsample, {p.iloc[1]:.2g} for mu + sigma * epsilon; "
        f"at most {wrong:.1g} for three wrong constructions, which the test could miss, with "
        f"{laws['draws'].iloc[0]:,} draws.",
    )
    by = {str(name): rows for name, rows in variances.groupby("estimator")}
    return law, *_variance_claims(variances, by), *_draws_claims(by)


def _variance_claims(variances: pd.DataFrame, by: dict[str, pd.DataFrame]) -> tuple[Claim, ...]:
    """Which estimator is the less noisy, at the largest number of draws."""
    most = variances["particles"].max()
    at = {name: rows[rows["particles"] == most].iloc[0] for name, rows in by.items()}
    path, score, stick = (
        at[name] for name in ("reparameterized", "score function", "sticking the landing")
    )
    p = variances["p_value"].dropna()

    def say(row: pd.Series) -> str:
        return f"{row['variance']:.3g} ± {row['variance_error']:.1g}"

    return (
        Claim(
            "The reparameterized gradient has a lower variance than the score function's.",
            _compare(path, score),
            f"With {most} draws {say(path)} against {say(score)}: a factor of "
            f"{score['variance'] / path['variance']:,.0f}.",
        ),
        Claim(
            "Leaving the score out (sticking the landing) lowers the variance further.",
            _compare(stick, path),
            f"With {most} draws {say(stick)} against {say(path)}.",
        ),
        Claim(
            "All estimators of one gradient agree in the mean.",
            verdict(p.min() * len(p) > LEVEL),
            f"The smallest of {len(p)} p-values is {p.min():.2g}.",
        ),
    )


def _draws_claims(by: dict[str, pd.DataFrame]) -> tuple[Claim, ...]:
    """What more draws do to each."""
    falls = {name: slope(by[name], "variance") for name in ("reparameterized", "score function")}
    inverse = all(abs(power + 1) < ERRORS * error for power, error in falls.values())
    lower = all(power < -ERRORS * error for power, error in falls.values())
    usual, double = (
        slope(by[name], "signal_to_noise")
        for name in ("reparameterized, K draws", "doubly reparameterized, K draws")
    )
    apart = double[0] - usual[0] > ERRORS * math.hypot(double[1], usual[1])
    rises = double[0] > ERRORS * double[1]
    return (
        Claim(
            "The variance falls as 1/K.",
            verdict(inverse, in_part=lower),
            "; ".join(f"{n}: K to the power of {s:.2f} ± {e:.2f}" for n, (s, e) in falls.items())
            + ".",
        ),
        Claim(
            "The more draws, the noisier the gradient of the importance-weighted bound, relative "
            "to its length.",
            verdict(usual[0] < -ERRORS * usual[1]),
            f"Signal to noise goes by K to the power of {usual[0]:.2f} ± {usual[1]:.2f}; -1/2 in "
            "the limit (Rainforth et al. 2018).",
        ),
        Claim(
            "Double reparameterization mends that.",
            verdict(apart and rises, in_part=apart),
            f"K to the power of {double[0]:.2f} ± {double[1]:.2f}; +1/2 in the limit (Tucker et "
            "al. 2018).",
        ),
    )


def _compare(lower: pd.Series, higher: pd.Series) -> Verdict:
    """Whether one variance is below another by more than chance."""
    error = math.hypot(lower["variance_error"], higher["variance_error"])
    distance = higher["variance"] - lower["variance"]
    return verdict(distance > ERRORS * error)


def _draw(variances: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, column, label in zip(
        panels,
        ("variance", "signal_to_noise"),
        ("total variance, (nats per datum)²", "signal to noise"),
        strict=True,
    ):
        for (name, rows), marker in zip(
            variances.groupby("estimator", sort=False), "osD^v", strict=True
        ):
            dashed = rows["target"].iloc[0] != "ELBO"
            axes.errorbar(
                rows["particles"],
                rows[column],
                2 * rows[f"{column}_error"],
                marker=marker,
                ms=4,
                ls="--" if dashed else "-",
                label=name,
            )
        axes.set(xscale="log", yscale="log", xlabel="draws K for each datum", ylabel=label)
        ticks = variances["particles"].unique()
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.minorticks_off()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    figure.suptitle(
        "gradient by the guide's parameters; dashed: of the bound of K draws", fontsize=10
    )
    return figure
