"""The size of the latent space: an autoencoder's error falls to zero with it, a VAE's does not."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..data.dataset import DataSet
from ..evidence.scores import Estimate, evaluate
from ..models import VAE, Autoencoder, LinearGaussian
from ..models.networks import inverse_positive
from ..programs.predictions import decode, posterior_predictive
from ..progress import OnProgress
from ..runtime import derived_seed, isolated
from .fits import fit_new
from .outcome import Claim, Outcome, Table, cells, verdict

LINEAR = {
    "latent_dim": "units of the code",
    "pca": "what principal components leave of the training data: the sum of the discarded "
    "eigenvalues; squared grey value per datum",
    "autoencoder": "what the linear autoencoder leaves; squared grey value per datum",
    "excess": "autoencoder less pca, as a share of pca; absolute where pca is below 1e-8",
    "vae": "what a linear VAE at its optimum leaves, reconstructing from the mean of q(z|x)",
    "vae_active": "units with Var_x(E_q[z]) > 0.01 (Burda et al. 2015), of the linear VAE",
}
DEEP = {
    "latent_dim": "units of the code",
    "autoencoder": "-log p(x|z) of the autoencoder, nats per test datum",
    "vae": "-E_q[log p(x|z)] of the VAE, nats per test datum",
    "kl": "KL(q(z|x) || p(z)) of the VAE, nats per test datum",
    "loss": "-F of the VAE, the sum of both",
    "active": "units of the VAE with Var_x(E_q[z]) > 0.01",
}
NOISE_SHARE = 5e-4  # of the data's variance: the linear VAE's noise, for each pixel
ACTIVE = 0.01
STEADY, FLOOR = 0.1, 0.1  # shares: by how much the KL may change, and what is not zero
ROUNDS, LIMIT = 2000, 1e-8  # of regressions, which end when a round gains less than this share


@dataclass(frozen=True)
class Settings:
    """How much to do.

    Attributes:
        linear: Codes of the linear autoencoders; the data's rank, their size, and one beyond it are
            added.
        deep: Codes of the deep ones.
        hidden: Widths of their layers.
        epochs: Of each of their fits.
    """

    linear: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 400, 600)
    deep: tuple[int, ...] = (1, 5, 10, 20, 50, 200, 800)
    hidden: tuple[int, ...] = (800,)
    epochs: int = 6


QUICK = Settings(linear=(1, 2, 5, 10, 20, 40), deep=(1, 5, 20, 80), hidden=(200,), epochs=50)


def run(data: DataSet, settings: Settings, seed: int, on_progress: OnProgress) -> Outcome:
    """Fit linear and deep autoencoders and VAEs of growing latent size.

    Arguments:
        data: Data that are binarized whenever they are read; the linear ones take them in grey.
        settings: How much to do.
        seed: Seed of everything random.
        on_progress: Called with the share of the work done.
    """
    grey = data.train.x.flatten(1).double() / (data.levels or 1)
    mean, covariance = grey.mean(0), grey.T.cov(correction=0)
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0)
    rank = int(torch.linalg.matrix_rank(covariance, hermitian=True))
    beyond = len(covariance) + 16
    sizes = sorted({n for n in settings.linear if n < rank} | {rank, len(covariance), beyond})
    rows = []
    for size in sizes:
        on_progress(0, f"linear autoencoder, {size} units")
        rows.append(_linear_row(data.shape, grey, mean, covariance, eigenvalues, size, seed))
        on_progress(0.3 / len(sizes), "")
    linear = pd.DataFrame(rows)
    x, deep_rows = data.fixed("test", seed), []
    for size in settings.deep:
        on_progress(0, f"deep autoencoder and VAE, {size} units")
        deep_rows.append(_deep_row(data, x, settings, size, seed))
        on_progress(0.7 / len(settings.deep), "")
    deep = pd.DataFrame(deep_rows)
    tables = {
        "linear": Table(linear, LINEAR),
        "deep": Table(deep, DEEP, {"kl": ("loss", "vae")}),
    }
    claims = (
        *_linear_claims(linear, rank, data, eigenvalues),
        *_deep_claims(deep, settings.epochs),
    )
    return Outcome(claims, tables, lambda: _draw(linear, deep))


def fit_linear_autoencoder(
    mean: Tensor, covariance: Tensor, shape: tuple[int, ...], size: int, seed: int
) -> Autoencoder:
    """Train a linear autoencoder by regressions in turn, from random weights.

    Given the encoder, the best decoder is the regression of x on its codes; given the decoder, the
    best encoder is the projection onto what it spans. Either lowers the squared error, which
    has no other minimum than that of principal components (Baldi & Hornik 1989).

    Arguments:
        mean: Of the data, of shape (D,), float64.
        covariance: Of the data, of shape (D, D).
        shape: Shape of one datum.
        size: Units of the code.
        seed: Seed of the weights.

    Returns:
        A program with float64 weights, for Gaussian noise of scale 1: -log p(x|z) is half the
        squared error, but for a constant.
    """
    with isolated(derived_seed(seed, "weights")):
        program = Autoencoder(shape, size, (), likelihood="gaussian", likelihood_scale=1.0).double()
    linear: list[Any] = [program.encoder.mlp[0], program.decoder.mlp[0]]
    encoder, decoder = linear
    basis, left = torch.linalg.qr(encoder.weight.detach().T)[0], torch.inf
    for _ in range(ROUNDS):
        # Codes matter by what they span only: an orthonormal basis keeps regressions stable.
        basis = torch.linalg.qr(covariance @ basis)[0]
        before, left = left, float(covariance.trace() - (covariance @ basis * basis).sum())
        if before - left <= LIMIT * left:
            break
    with torch.no_grad():
        kept = basis.shape[1]  # units beyond the size of the data are of no use
        encoder.weight.zero_()[:kept].copy_(basis.T)
        encoder.bias.copy_(-encoder.weight @ mean)
        decoder.weight.zero_()[:, :kept].copy_(basis)
        decoder.bias.copy_(mean)
    return program


def linear_vae(
    mean: Tensor, covariance: Tensor, shape: tuple[int, ...], size: int, noise: float
) -> LinearGaussian:
    """The linear VAE of most likely parameters for a given noise, and its exact guide.

    A unit takes an eigenvector of the covariance whose eigenvalue is above the noise, and is left
    unused where there is none (Lucas et al. 2019, section 4).

    Arguments:
        mean: Of the data, of shape (D,), float64.
        covariance: Of the data, of shape (D, D).
        shape: Shape of one datum.
        size: Units.
        noise: Variance of the noise of each pixel.
    """
    program = LinearGaussian(shape, size)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    kept = min(size, len(mean))
    strength = (eigenvalues[-kept:] - noise).clamp(min=0).sqrt().flip(0)
    with torch.no_grad():
        program.loading.zero_()
        program.loading[:, :kept] = eigenvectors[:, -kept:].flip(1) * strength
        program.loc.copy_(mean)
        program.raw_scale.copy_(inverse_positive(torch.tensor(noise, dtype=torch.float64).sqrt()))
    program.set_exact_guide()
    return program


def _linear_row(
    shape: tuple[int, ...],
    grey: Tensor,
    mean: Tensor,
    covariance: Tensor,
    eigenvalues: Tensor,
    size: int,
    seed: int,
) -> dict[str, float]:
    program = fit_linear_autoencoder(mean, covariance, shape, size, seed)
    x = grey.unflatten(1, shape)
    left = _squared_error(x, posterior_predictive(program, x, seed).mean)
    pca = eigenvalues[size:].sum().item()
    noise = NOISE_SHARE * eigenvalues.sum().item()
    vae = linear_vae(mean, covariance, shape, size, noise)
    codes = posterior_predictive(vae, x, seed).latent_means["z"]
    decoded = decode(vae, {"z": codes}, shape, len(codes), seed).mean
    return {
        "latent_dim": size,
        "pca": pca,
        "autoencoder": left,
        "excess": (left - pca) / pca if pca > 1e-8 else left - pca,
        "vae": _squared_error(x, decoded),
        "vae_active": int((codes.var(0) > ACTIVE).sum()),
    }


def _squared_error(x: Tensor, found: Tensor) -> float:
    return (x - found).square().flatten(1).sum(1).mean().item()


def _deep_row(
    data: DataSet, x: Tensor, settings: Settings, size: int, seed: int
) -> dict[str, float]:
    row: dict[str, float] = {"latent_dim": size}
    for name, kind in (("autoencoder", Autoencoder), ("vae", VAE)):
        program = fit_new(kind, data, settings.epochs, seed, size, settings.hidden)
        figures = evaluate(program, x, draws=1, seed=seed)
        row |= cells(name, _negative(figures["reconstruction"]))
        if name == "vae":
            row |= cells("kl", figures["kl"]) | cells("loss", _negative(figures["elbo"]))
            means = next(iter(posterior_predictive(program, x, seed).latent_means.values()))
            row["active"] = int((means.var(0) > ACTIVE).sum())
    return row


def _negative(estimate: Estimate) -> Estimate:
    return replace(estimate, mean=-estimate.mean)


def _linear_claims(
    linear: pd.DataFrame, rank: int, data: DataSet, eigenvalues: Tensor
) -> tuple[Claim, ...]:
    below = linear[linear["latent_dim"] < rank]
    full = linear[linear["latent_dim"] >= rank]
    varying = int((data.train.x.flatten(1).float().std(0) > 0).sum())
    reached = below["excess"].abs().max() < 1e-4 and full["autoencoder"].max() < 1e-8
    last, first_full = linear.iloc[-1], int(full["latent_dim"].min())
    total = eigenvalues.sum().item()
    noise = NOISE_SHARE * total
    return (
        Claim(
            "A linear autoencoder is principal component analysis: its error falls to zero as the "
            "code reaches the data's rank.",
            verdict(reached),
            f"At every size it is within {below['excess'].abs().max():.1e} (relative) of the sum "
            f"of the discarded eigenvalues; from {first_full} units on it is at most "
            f"{full['autoencoder'].max():.1e}. That is the rank of the data; of their "
            f"{len(eigenvalues)} values {varying} vary.",
        ),
        Claim(
            "A linear VAE's error, at fixed noise, does not fall to zero, and its active units "
            "level off.",
            verdict(last["vae"] > 1e-3 * total and last["vae_active"] < rank),
            f"With noise of variance {noise:.3g} for each value it ends at {last['vae']:.3g}, and "
            f"{int(last['vae_active'])} of {int(last['latent_dim'])} units are active; "
            f"{int((eigenvalues > noise).sum())} eigenvalues are above the noise.",
        ),
    )


def _deep_claims(deep: pd.DataFrame, epochs: int) -> tuple[Claim, ...]:
    first, last = deep.iloc[0], deep.iloc[-1]
    least = deep.iloc[int(deep["loss"].argmin())]
    share = last["autoencoder"] / first["autoencoder"]
    units, many = int(last["active"]), deep[deep["latent_dim"] >= deep["latent_dim"].max() / 20]
    spread = many["kl"].max() / many["kl"].min() - 1
    steady = spread < STEADY
    return (
        Claim(
            "A deep autoencoder's error falls to zero as the code reaches the input's size.",
            verdict(share < 0.01, in_part=share < 0.5),
            f"From {first['autoencoder']:.1f} nats with {int(first['latent_dim'])} units to "
            f"{last['autoencoder']:.1f} ± {last['autoencoder_error']:.1f} with "
            f"{int(last['latent_dim'])} on test data, after {epochs} epochs.",
        ),
        Claim(
            "A deep VAE's error does not fall to zero.",
            verdict(last["vae"] - 3 * last["vae_error"] > FLOOR * first["vae"]),
            f"It ends at {last['vae']:.1f} ± {last['vae_error']:.1f} nats, of "
            f"{first['vae']:.1f} with {int(first['latent_dim'])} units; -F, which counts the KL, "
            f"goes from {first['loss']:.1f} to {last['loss']:.1f}, and is least with "
            f"{int(least['latent_dim'])} units.",
        ),
        Claim(
            "What a deep VAE's units hold levels off, and so do its active units.",
            verdict(steady and 2 * units < last["latent_dim"], in_part=steady),
            f"From {int(many['latent_dim'].min())} units on its KL is {many['kl'].min():.1f} to "
            f"{many['kl'].max():.1f} nats. Of {int(last['latent_dim'])} units {units} are active "
            f"by the usual threshold, with {last['kl'] / last['latent_dim']:.2f} nats each.",
        ),
    )


def _draw(linear: pd.DataFrame, deep: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    floor = 1e-12  # what is zero but for rounding lies below
    for name, style in (("pca", "k-"), ("autoencoder", "o"), ("vae", "s--")):
        label = {"pca": "PCA", "autoencoder": "linear autoencoder", "vae": "linear VAE"}[name]
        left.plot(linear["latent_dim"], linear[name].clip(lower=floor), style, ms=5, label=label)
    left.set(yscale="log", ylabel="squared error per datum")
    for name, label in (
        ("autoencoder", "autoencoder"),
        ("vae", "VAE"),
        ("loss", "VAE, with its KL"),
    ):
        middle.errorbar(
            deep["latent_dim"], deep[name], 2 * deep[f"{name}_error"], marker="o", ms=4, label=label
        )
    middle.set(ylabel="reconstruction error, nats per test datum", ylim=(0, None))
    right.plot(linear["latent_dim"], linear["vae_active"], "s--", ms=4, label="linear VAE")
    right.plot(deep["latent_dim"], deep["active"], "o-", ms=4, label="deep VAE")
    right.plot(deep["latent_dim"], deep["latent_dim"], ":", color="0.6", label="all")
    right.set(yscale="log", ylabel="active units")
    for axes in (left, middle, right):
        axes.set(xscale="log", xlabel="units of the code")
        axes.legend(fontsize=8)
    return figure
