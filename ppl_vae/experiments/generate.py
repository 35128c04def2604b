"""Why the autoencoder is no generative model: its codes, and what it makes of N(0, I)."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from ..data.dataset import DataSet
from ..evidence.scores import Estimate
from ..models import VAE, Autoencoder
from ..programs.predictions import decode, posterior_predictive
from ..programs.protocol import Program
from ..progress import OnProgress
from ..runtime import derived_seed
from .fits import fit_new
from .judge import Judge, grey, train_judge
from .outcome import Claim, Outcome, Table, Verdict, cells, verdict

CODES = {
    "program": "whose codes: for the VAE draws of q(z|x), for the autoencoder its code",
    "mean": "root mean square over units of the mean code of the test data; 0 for N(0, I)",
    "spread": "root mean square over units of the codes' standard deviation; 1 for N(0, I)",
    "kl": "from the normal distribution of their mean and covariance to N(0, I), nats",
    "accuracy": "of boosted trees in telling codes from draws of N(0, I), on held-out ones; 0.5 if "
    "they are the same",
}
IMAGES = {
    "images": "whose images are judged",
    "confidence": "mean probability that a classifier gives to its likeliest class",
    "distance": "mean distance to the nearest training image, root of squared grey values",
}
VAE_PRIOR, PRIOR = "VAE, z from N(0, I)", "autoencoder, z from N(0, I)"
FITTED, HELD_OUT = "autoencoder, z from a normal fitted to codes", "held-out images"


@dataclass(frozen=True)
class Settings:
    """How much to do.

    Attributes:
        epochs: Of each fit.
        latent_dim: Units of both codes.
        hidden: Widths of the layers of both.
        images: Draws of each kind that are judged.
        judge_epochs: Of the classifier.
    """

    epochs: int = 15
    latent_dim: int = 20
    hidden: tuple[int, ...] = (500, 500)
    images: int = 2000
    judge_epochs: int = 3


QUICK = Settings(epochs=60, latent_dim=8, hidden=(200,), images=180, judge_epochs=15)


def run(data: DataSet, settings: Settings, seed: int, on_progress: OnProgress) -> Outcome:
    """Fit both with the same networks, and judge their codes and their decoded draws.

    Arguments:
        data: Images with labels, binarized whenever they are read.
        settings: How much to do.
        seed: Seed of everything random.
        on_progress: Called with the share of the work done.

    Raises:
        InputError: If the data are no images, or have no labels.
    """
    on_progress(0, "training the judge")
    judge = train_judge(data, settings.judge_epochs, seed)
    share, programs = 0.1, {}
    for name, kind in (("autoencoder", Autoencoder), ("VAE", VAE)):
        on_progress(share, f"fitting the {name}")
        programs[name] = fit_new(
            kind, data, settings.epochs, seed, settings.latent_dim, settings.hidden
        )
        share = 0.4
    on_progress(0.4, "judging")
    x = data.fixed("test", seed)
    codes = {name: posterior_predictive(p, x, seed).latents["z"] for name, p in programs.items()}
    code_rows = pd.DataFrame([_code_row(name, z, seed) for name, z in codes.items()])
    images = _images(data, programs, settings.images, seed)
    reference = grey(data, "train")
    scores = {name: _scores(judge, shown, reference) for name, shown in images.items()}
    rows = [
        dict[str, Any](images=name)
        | cells("confidence", Estimate.of(found["confidence"]))
        | cells("distance", Estimate.of(found["distance"]))
        for name, found in scores.items()
    ]
    tables = {"codes": Table(code_rows, CODES), "images": Table(pd.DataFrame(rows), IMAGES)}
    on_progress(0.1, "")
    return Outcome(_claims(code_rows, scores, judge.accuracy), tables, lambda: _draw(images))


def _code_row(name: str, z: Tensor, seed: int) -> dict[str, object]:
    z = z.double()
    mean, covariance = z.mean(0), z.T.cov()
    trace, units = covariance.trace(), len(mean)
    # KL(N(m, C) || N(0, I)) = (|m|^2 + tr C - L - log det C) / 2
    kl = (mean.square().sum() + trace - units - torch.logdet(covariance)) / 2
    accuracy = _tell_apart(z, seed)
    return {
        "program": name,
        "mean": mean.square().mean().sqrt().item(),
        "spread": (trace / units).sqrt().item(),
        "kl": kl.item(),
        "accuracy": accuracy,
        "accuracy_error": math.sqrt(accuracy * (1 - accuracy) / len(z)),
    }


def _tell_apart(z: Tensor, seed: int) -> float:
    """A classifier two-sample test (Lopez-Paz & Oquab 2017): codes against draws of N(0, I)."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "two samples"))
    z = z[torch.randperm(len(z), generator=generator)]  # MNIST's test images are in some order
    normal = torch.randn(z.shape, generator=generator, dtype=z.dtype)
    half = len(z) // 2
    classes = torch.tensor([0, 1]).repeat_interleave(half).numpy()
    trees = HistGradientBoostingClassifier(random_state=0, max_iter=100)
    trees.fit(torch.cat([z[:half], normal[:half]]).numpy(), classes)
    held_out = torch.cat([z[half : 2 * half], normal[half : 2 * half]]).numpy()
    return float(trees.score(held_out, classes))


def _images(
    data: DataSet, programs: dict[str, Program], count: int, seed: int
) -> dict[str, Tensor]:
    """Held-out images, reconstructions, and decoded draws of both, all in grey."""
    x = data.fixed("test", seed)
    generator = torch.Generator().manual_seed(derived_seed(seed, "decoded draws"))
    codes = posterior_predictive(programs["autoencoder"], data.fixed("train", seed), seed)
    fitted = codes.latents["z"].double()
    units = fitted.shape[1]
    normal = torch.randn(count, units, generator=generator)
    values, vectors = torch.linalg.eigh(fitted.T.cov())  # of any rank
    root = (vectors * values.clamp(min=0).sqrt()).float()
    latents = {
        PRIOR: normal,
        FITTED: fitted.mean(0).float() + normal @ root.T,
        VAE_PRIOR: normal,
    }
    images = {HELD_OUT: grey(data, "test")[:count]}
    for name, program in programs.items():
        shown = posterior_predictive(program, x[:count], seed).mean
        images[f"{name}, reconstructions"] = shown
    for name, z in latents.items():
        program = programs[name.partition(",")[0]]
        images[name] = decode(program, {"z": z}, data.shape, count, seed).mean
    return images


def _scores(judge: Judge, images: Tensor, reference: Tensor) -> dict[str, Tensor]:
    nearest = torch.cat(
        [torch.cdist(part.flatten(1), reference.flatten(1)).amin(1) for part in images.split(200)]
    )
    return {"confidence": judge.confidence(images), "distance": nearest}


def _claims(
    codes: pd.DataFrame, scores: dict[str, dict[str, Tensor]], accuracy: float
) -> tuple[Claim, ...]:
    by = {str(row["program"]): row for row in codes.to_dict("records")}
    confidence = {name: Estimate.of(found["confidence"]) for name, found in scores.items()}
    distance = {name: Estimate.of(found["distance"]) for name, found in scores.items()}

    def worse(first: str, second: str) -> Verdict:
        """Whether images are less like digits by both figures, by one, or by none."""
        less = _apart(confidence[second], confidence[first])
        farther = _apart(distance[first], distance[second])
        return verdict(less and farther, in_part=less or farther)

    found = {name: float(by[name]["accuracy"]) for name in ("autoencoder", "VAE")}
    error = {name: float(by[name]["accuracy_error"]) for name in found}
    apart = found["autoencoder"] - 0.5 > 3 * error["autoencoder"]
    same = found["VAE"] - 0.5 < 3 * error["VAE"]
    return (
        Claim(
            "The autoencoder's codes are not distributed as N(0, I); the VAE's are.",
            verdict(apart and same, in_part=apart),
            f"Codes are told from draws of N(0, I) with an accuracy of "
            f"{found['autoencoder']:.4f} ± {error['autoencoder']:.4f} and {found['VAE']:.4f} ± "
            f"{error['VAE']:.4f}; KL to N(0, I) of a normal fitted to them: "
            f"{by['autoencoder']['kl']:.1f} and {by['VAE']['kl']:.2f} nats.",
        ),
        Claim(
            "What the autoencoder decodes from N(0, I) is less like data than what the VAE does.",
            worse(PRIOR, VAE_PRIOR),
            f"A classifier ({accuracy:.1%} right on test images) is confident to "
            f"{_three(confidence[PRIOR])} and {_three(confidence[VAE_PRIOR])}, of held-out images "
            f"to {_three(confidence[HELD_OUT])}. The nearest training image is at "
            f"{distance[PRIOR]} and {distance[VAE_PRIOR]}, of held-out images at "
            f"{distance[HELD_OUT]}.",
        ),
        Claim(
            "A normal distribution fitted to its codes does not mend that.",
            worse(FITTED, VAE_PRIOR),
            f"The classifier is then confident to {_three(confidence[FITTED])}, and the nearest "
            f"training image is at {distance[FITTED]}.",
        ),
        Claim(
            "The VAE's own draws are less like the data than held-out images are.",
            worse(VAE_PRIOR, HELD_OUT),
            f"Confidence {_three(confidence[VAE_PRIOR])} against {_three(confidence[HELD_OUT])}, "
            f"distance {distance[VAE_PRIOR]} against {distance[HELD_OUT]}.",
        ),
    )


def _apart(higher: Estimate, lower: Estimate) -> bool:
    return higher.mean - lower.mean > 3 * math.hypot(higher.stderr, lower.stderr)


def _three(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} ± {estimate.stderr:.3f}"


def _draw(images: dict[str, Tensor]) -> Figure:
    """A row of images for each kind."""
    columns = 12
    figure = Figure(figsize=(8.5, 0.72 * len(images) + 0.2), layout="constrained")
    panels = figure.subplots(len(images), 1)
    for axes, (name, shown) in zip(panels, images.items(), strict=True):
        strip = torch.cat([image[0] for image in shown[:columns]], dim=-1)
        axes.imshow(strip.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(
            name.replace(", ", "\n", 1).replace("fitted to ", "fitted\nto "),
            fontsize=7,
            rotation=0,
            ha="right",
            va="center",
        )
    return figure
