"""The reconstruction loss: what each calls near, and what each likelihood does to a VAE."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import gaussian_blur, rotate

from ..data.dataset import DataSet
from ..evidence.scores import Estimate, evaluate
from ..models import VAE
from ..programs.predictions import posterior_predictive, prior_predictive
from ..progress import OnProgress
from ..runtime import derived_seed
from .distances import Distance, absolute, bernoulli, squared, structural
from .fits import fit_new
from .judge import Judge, frechet, grey, require_labels, train_judge
from .outcome import Claim, Outcome, Table, cells, verdict

RANKS = {
    "change": "what is done to a test image",
    "loss": "what measures its distance from the original",
    "farther": "share of test images whose changed version is farther from the original than the "
    "nearest test image of another class",
}
FITS = {
    "likelihood": "p(x|z) of the VAE",
    "measure": "what its log p(x) is a probability of; only those of one measure can be compared",
    "elbo": "F, nats per test datum",
    "iw_bound": "importance-weighted bound on log p(x), nats per test datum",
    "reconstruction": "E_q[log p(x|z)], nats per test datum",
    "kl": "KL(q(z|x) || p(z)), nats per test datum",
    "distortion": "squared distance of the mean of p(x|z) at a draw of q(z|x), from the grey image",
    "frechet": "Frechet distance of a classifier's features (Heusel et al. 2017), between means of "
    "p(x|z) at draws of p(z) and test images",
}
LIKELIHOODS = ("bernoulli", "continuous-bernoulli", "gaussian", "laplace")
FEATURES = "classifier's features"
BINARY, GREY = "binary images", "grey images, by density"
DRAWS = 100


@dataclass(frozen=True)
class Settings:
    """How much to do.

    Attributes:
        images: Test images to change; the others to compare them with are all of the test data.
        epochs: Of each fit.
        latent_dim: Units of the VAEs.
        hidden: Widths of their layers.
        samples: Draws to be judged.
        judge_epochs: Of the classifier.
    """

    images: int = 500
    epochs: int = 10
    latent_dim: int = 20
    hidden: tuple[int, ...] = (500, 500)
    samples: int = 1000
    judge_epochs: int = 3


QUICK = Settings(images=100, epochs=40, latent_dim=8, hidden=(200,), samples=200, judge_epochs=15)


def run(data: DataSet, settings: Settings, seed: int, on_progress: OnProgress) -> Outcome:
    """Rank changed images by each loss, and fit a VAE with each likelihood.

    Arguments:
        data: Grey images with labels, binarized whenever they are read.
        settings: How much to do.
        seed: Seed of everything random.
        on_progress: Called with the share of the work done.

    Raises:
        InputError: If the data are no images, or have no labels.
    """
    on_progress(0, "training the classifier that gives features")
    judge = train_judge(data, settings.judge_epochs, seed)
    on_progress(0.1, "ranking changed images")
    images = grey(data, "test")
    originals, labels = images[: settings.images], require_labels(data, "test")
    changed = changes(originals, seed)
    rows = []
    for loss, distance in _losses(judge).items():
        farther = rank(distance, originals, changed, images, labels)
        rows += [{"loss": loss, "change": c} | _share(f) for c, f in farther.items()]
        on_progress(0.06, "ranking changed images")
    ranks = pd.DataFrame(rows)
    fits, samples = [], {}
    for likelihood in LIKELIHOODS:
        on_progress(0, f"fitting a VAE with the likelihood {likelihood}")
        row, samples[likelihood] = _fit_row(data, likelihood, judge, settings, seed)
        fits.append(row)
        on_progress(0.15, "")
    table = pd.DataFrame(fits)
    tables = {
        "ranks": Table(ranks, RANKS),
        "fits": Table(table, FITS, {"kl": ("reconstruction", "elbo")}),
    }
    claims = (*_rank_claims(ranks, len(originals)), *_fit_claims(table))
    return Outcome(claims, tables, lambda: _draw(ranks, originals, changed, samples))


def changes(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Images that are still of the same thing, by what was done to them.

    Arguments:
        images: Of shape (N, channels, height, width), in [0, 1].
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "noise"))
    noise = torch.randn(images.shape, generator=generator)
    bilinear = InterpolationMode.BILINEAR
    return {
        "shifted by 1 pixel": _shift(images, 1),
        "shifted by 2 pixels": _shift(images, 2),
        "rotated by 10 degrees": rotate(images, 10, interpolation=bilinear),
        "rotated by 20 degrees": rotate(images, 20, interpolation=bilinear),
        "blurred by 1 pixel": gaussian_blur(images, [5, 5], [1.0, 1.0]),
        "noise of 0.2": (images + 0.2 * noise).clamp(0, 1),
    }


def rank(
    distance: Distance,
    originals: Tensor,
    changed: dict[str, Tensor],
    others: Tensor,
    labels: Tensor,
) -> dict[str, Tensor]:
    """Whether each changed image is farther from its original than any image of another class.

    Arguments:
        distance: From images to images.
        originals: Of shape (N, channels, height, width).
        changed: Of the same shape, by what was done to them.
        others: Of shape (M, channels, height, width); the first N are the originals.
        labels: Classes of the others, of shape (M,).

    Returns:
        Ones and zeros of shape (N,), by what was done.
    """
    nearest = []
    for first, part in enumerate(originals.split(100)):
        apart = distance(part, others)
        own = labels[100 * first : 100 * first + len(part)]
        nearest.append(apart.masked_fill(labels == own[:, None], torch.inf).amin(1))
    bound = torch.cat(nearest)
    found = {}
    for name, images in changed.items():
        pairs = zip(originals.split(1), images.split(1), strict=True)
        found[name] = torch.cat([distance(x, y)[0] for x, y in pairs]) > bound
    return {name: values.double() for name, values in found.items()}


def _shift(images: Tensor, pixels: int) -> Tensor:
    """To the right; what comes in is black, and what goes out is lost."""
    shifted = torch.zeros_like(images)
    shifted[..., pixels:] = images[..., :-pixels]
    return shifted


def _losses(judge: Judge) -> dict[str, Distance]:
    def feature(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(judge.features(x), judge.features(y))

    return {
        "squared error": squared,
        "Bernoulli": bernoulli,
        "absolute error (Laplace)": absolute,
        "1 - SSIM": structural,
        FEATURES: feature,
    }


def _fit_row(
    data: DataSet, likelihood: str, judge: Judge, settings: Settings, seed: int
) -> tuple[dict[str, object], Tensor]:
    """A VAE with a likelihood, and draws from it."""
    binary = likelihood == "bernoulli"
    fitted = data if binary else replace(data, binarize="none")
    sizes = (settings.latent_dim, settings.hidden)
    vae = fit_new(VAE, fitted, settings.epochs, seed, *sizes, likelihood=likelihood)
    x = fitted.fixed("test", seed)
    row: dict[str, object] = {"likelihood": likelihood, "measure": BINARY if binary else GREY}
    figures = evaluate(vae, x, DRAWS, seed)
    for name in ("elbo", "iw_bound", "reconstruction", "kl"):
        row |= cells(name, figures[name])
    mean = posterior_predictive(vae, x, seed).mean
    distortion = (mean - grey(data, "test")).square().flatten(1).sum(1)
    row |= cells("distortion", Estimate.of(distortion))
    samples = prior_predictive(vae, data.shape, settings.samples, seed).mean.clamp(0, 1)
    found = frechet(judge.features(samples), judge.features(grey(data, "test")))
    return row | dict(zip(("frechet", "frechet_error"), found, strict=True)), samples


def _share(values: Tensor) -> dict[str, float]:
    """A share, with an error that is not 0 where it is 0 or 1 (Agresti & Coull 1998)."""
    count = len(values)
    centre = (values.sum().item() + 2) / (count + 4)
    error = math.sqrt(centre * (1 - centre) / (count + 4))
    return {"farther": values.mean().item(), "farther_error": error}


def _rank_claims(ranks: pd.DataFrame, count: int) -> tuple[Claim, ...]:
    of = {(row["change"], row["loss"]): row for row in ranks.to_dict("records")}

    def share(change: str, loss: str) -> float:
        return float(of[change, loss]["farther"])

    def say(change: str, loss: str) -> str:
        error = float(of[change, loss]["farther_error"])
        return f"{100 * share(change, loss):.0f} ± {100 * error:.0f} %"

    one, two = "shifted by 1 pixel", "shifted by 2 pixels"
    pixelwise = ["squared error", "Bernoulli", "absolute error (Laplace)"]
    most = [share(two, loss) > 0.5 for loss in pixelwise]
    better = [share(two, s) < share(two, "squared error") / 2 for s in ("1 - SSIM", FEATURES)]
    mild = max(share(c, "squared error") for c in ("blurred by 1 pixel", "noise of 0.2"))
    return (
        Claim(
            "Losses pixel by pixel call a shifted digit farther than another digit.",
            verdict(all(most), in_part=any(most)),
            f"Of {count} test images, by squared error {say(one, 'squared error')} after one pixel "
            f"and {say(two, 'squared error')} after two; after two by the Bernoulli loss "
            f"{say(two, 'Bernoulli')}, by absolute error {say(two, 'absolute error (Laplace)')}.",
        ),
        Claim(
            "Losses that look at structure or features mend that.",
            verdict(all(better), in_part=any(better)),
            f"After two pixels 1 - SSIM {say(two, '1 - SSIM')}, a classifier's features, which "
            f"have seen the classes, {say(two, FEATURES)}.",
        ),
        Claim(
            "Losses pixel by pixel forgive blur and noise.",
            verdict(mild < 0.05),
            f"By squared error {say('blurred by 1 pixel', 'squared error')} and "
            f"{say('noise of 0.2', 'squared error')}.",
        ),
    )


def _fit_claims(fits: pd.DataFrame) -> tuple[Claim, ...]:
    of = fits.set_index("likelihood")
    densities = of[of["measure"] == GREY]
    best = str(densities["iw_bound"].astype(float).idxmax())
    words = "; ".join(
        f"{name} {row['iw_bound']:.1f} ± {row['iw_bound_error']:.1f}"
        for name, row in densities.iterrows()
    )
    others = densities.drop(index=best)
    mean, error = (others[name].to_numpy(float) for name in ("frechet", "frechet_error"))
    own, own_error = (float(of[name][best]) for name in ("frechet", "frechet_error"))
    nearest = ((mean - own) / np.hypot(error, own_error)).min()  # in standard errors
    judged = "; ".join(
        f"{name} {row['frechet']:.1f} ± {row['frechet_error']:.1f}" for name, row in of.iterrows()
    )
    return (
        Claim(
            "The likelihood that explains held-out images best also makes the best samples.",
            verdict(nearest > 3, in_part=nearest > -3),
            f"Of those that are densities of grey values, {best} explains best: log p(x) is at "
            f"least {words} nats (of levels that are not dequantized, which rewards a density that "
            f"piles up on them). The Frechet distance of samples is: {judged}.",
        ),
    )


def _draw(
    ranks: pd.DataFrame, originals: Tensor, changed: dict[str, Tensor], samples: dict[str, Tensor]
) -> Figure:
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3, 2))
    upper, lower = parts
    pictures, heat = upper.subplots(1, 2, width_ratios=(1, 2.2))
    strips = [torch.cat([image[0] for image in shown[:4]], -1) for shown in changed.values()]
    pictures.imshow(torch.cat(strips, 0).numpy(), cmap="gray", vmin=0, vmax=1)
    height = originals.shape[-2]
    pictures.set_yticks(
        [height * (row + 0.5) for row in range(len(changed))], list(changed), fontsize=8
    )
    pictures.set_xticks([])
    table = ranks.pivot(index="change", columns="loss", values="farther")
    table = table.loc[list(changed), list(dict.fromkeys(ranks["loss"]))]
    shares = table.to_numpy(float)
    heat.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        heat.text(
            column,
            row,
            f"{100 * share:.0f} %",
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
            fontsize=9,
        )
    heat.set_xticks(
        range(table.shape[1]), [name.replace(" (", "\n(") for name in table.columns], fontsize=8
    )
    heat.set_yticks([])
    heat.set_title("how often the changed image is farther than another class", fontsize=10)
    for axes, (name, shown) in zip(lower.subplots(1, len(samples)), samples.items(), strict=True):
        rows = [torch.cat([image[0] for image in part], -1) for part in shown[:20].split(5)]
        axes.imshow(torch.cat(rows, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.set_title(f"samples, {name}", fontsize=9)
    return figure
