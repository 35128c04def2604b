"""Is the certificate right? And what do the questions about simulated data find?

    python benchmarks/certificate.py                       # the closed form, 20 seeds
    python benchmarks/certificate.py --units 50 --fault "one unit collapsed"
    python benchmarks/certificate.py --power --seeds 20    # grades of four questions, by fault

Probabilistic PCA with L units, whose posterior is known, and linear guides with faults, whose
Jeffreys divergence is known too, averaged over the model's data. A z-score is (estimate - closed
form) / standard error: over seeds its mean should be near 0, its standard deviation near 1.

The power is that of certificate, local, misspecification and posterior_sbc, of 1,000 simulations
and 1,000 data, on probabilistic PCA with two units: how many of the seeds got caution or fail, and
in brackets fail.
"""

import argparse
from collections import Counter

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppl_vae
from ppl_vae.diagnostics.certificate import ask_certificate, most_variation
from ppl_vae.diagnostics.local import ask_local
from ppl_vae.diagnostics.misspecification import ask_misspecification
from ppl_vae.diagnostics.posterior_sbc import ask_posterior_sbc
from ppl_vae.models import LinearGaussian
from ppl_vae.models.networks import inverse_positive

UNITS = (1, 2, 10, 50)
FAULTS = (
    "none",
    "scale 1 % too small",
    "scale halved",
    "scale doubled",
    "mean shifted by sd/2",
    "one unit collapsed",
    "correlation ignored",
    "collapsed to the prior",
)


@torch.no_grad()
def linear_gaussian(units: int, seed: int = 0) -> LinearGaussian:
    """Probabilistic PCA with random loadings, so that its posterior has correlations."""
    program = LinearGaussian((units + 4,), units)
    generator = torch.Generator().manual_seed(seed)
    loading = torch.randn(units + 4, units, generator=generator, dtype=torch.float64)
    program.loading.copy_(loading * 2 / (units + 4) ** 0.5)
    program.set_exact_guide()
    return program


@torch.no_grad()
def spoil(program: LinearGaussian, fault: str) -> LinearGaussian:
    """Put a fault into an exact guide, which stays linear and normal."""
    tril, encoder = program.guide_tril.clone(), program.encoder
    if fault == "mean shifted by sd/2":
        encoder.bias.add_(tril.square().sum(1).sqrt() / 2)
    elif fault == "one unit collapsed":
        encoder.weight[0], encoder.bias[0] = 0.0, 0.0
        rest = torch.linalg.cholesky((tril @ tril.T)[1:, 1:])
        tril = torch.block_diag(torch.ones(1, 1, dtype=tril.dtype), rest)
    elif fault == "correlation ignored":  # as the best guide without correlations would
        tril = torch.cholesky_inverse(tril).diagonal().rsqrt().diag()
    elif fault == "collapsed to the prior":
        encoder.weight.zero_()
        encoder.bias.zero_()
        tril = torch.eye(len(tril), dtype=tril.dtype)
    factors = {"scale halved": 0.5, "scale doubled": 2.0, "scale 1 % too small": 0.99}
    tril = tril * factors.get(fault, 1.0)
    program.raw_guide_tril.copy_(tril.tril(-1) + torch.diag(inverse_positive(tril.diagonal())))
    return program


@torch.no_grad()
def exact_jeffreys(program: LinearGaussian) -> float:
    r"""KL(q||p) + KL(p||q), averaged over x ~ N(mu, C), C = W W^T + s^2 I.

    For normals with covariances Q, P and means that differ by m(x) it is
    tr(P^-1 Q + Q^-1 P) / 2 - L + E m^T (P^-1 + Q^-1) m / 2.
    """
    noise, loading = program.scale.square(), program.loading
    marginal = loading @ loading.T + noise * torch.eye(len(loading), dtype=noise.dtype)
    weight = torch.linalg.solve(marginal, loading).T  # E[z | x] = weight (x - mu)
    posterior = torch.eye(loading.shape[1], dtype=noise.dtype) - weight @ loading
    guide = program.guide_tril @ program.guide_tril.T
    off = program.encoder.weight - weight
    constant = program.encoder(program.loc)
    spread = off @ marginal @ off.T + torch.outer(constant, constant)
    inverse_p, inverse_q = torch.linalg.inv(posterior), torch.linalg.inv(guide)
    ratio = (inverse_p @ guide + inverse_q @ posterior).trace() / 2 - len(guide)
    return float(ratio + (spread @ (inverse_p + inverse_q)).trace() / 2)


class OffHere(nn.Module):
    """A program whose guide is the posterior, but for its mean in the first unit."""

    def __init__(self, exact: LinearGaussian, fault: str) -> None:
        super().__init__()
        self.exact, self.fault = exact, fault

    def model(self, x: Tensor) -> Tensor:
        """The program's own."""
        return self.exact.model(x)

    def guide(self, x: Tensor) -> None:
        """The posterior's, moved by as many of its standard deviations as the fault says."""
        pyro.module(f"off-{id(self)}", self)
        with pyro.plate("data", len(x)):
            p = self.exact.posterior(x)
            first, second = p.mean.unbind(-1)
            spread = (1 - p.stddev[:, 0].square()).sqrt()  # of the posterior's mean, over data
            off = {
                "mean off by sd/2, by turns": 0.5 * second.sign(),
                "mean off by 2 sd for 5 %": 2.0 * (first > 1.645 * spread),
                "mean off by sd where no data are": 1.0 * (first > 0),
            }[self.fault]
            moved = torch.stack([off * p.stddev[:, 0], torch.zeros_like(second)], dim=-1)
            pyro.sample("z", dist.MultivariateNormal(p.mean + moved, scale_tril=p.scale_tril))


@torch.no_grad()
def observed(program: LinearGaussian, fault: str, seed: int, size: int = 1000) -> Tensor:
    """Data of the model, or spoilt."""
    torch.manual_seed(seed)
    x = program.model(size=4 * size)
    if fault == "mean off by sd where no data are":
        x = x[program.posterior(x).mean[:, 0] < 0]
    x = x[:size]
    if fault == "2 % outliers":
        x[: size // 50] += 5 * torch.randn(size // 50, x.shape[1], dtype=x.dtype)
    if fault == "noise of Student's t":
        z = torch.randn(size, program.loading.shape[1], dtype=x.dtype)
        noise = torch.distributions.StudentT(torch.tensor(3.0, dtype=x.dtype))
        x = z @ program.loading.T + program.loc + program.scale * noise.sample(x.shape) / 3**0.5
    return x


PLACES = (
    "mean off by sd/2, by turns",
    "mean off by 2 sd for 5 %",
    "mean off by sd where no data are",
)
DATA = ("2 % outliers", "noise of Student's t")


def show_power(seeds: int, faults: list[str] | None) -> None:
    """Print how many seeds got caution or fail, by fault and question."""
    names = ("certificate", "local", "misspecification", "posterior_sbc")
    print(f"{seeds} seeds\n\n| fault | {' | '.join(names)} |\n|{' --- |' * 5}")
    for fault in faults or [*FAULTS, *PLACES, *DATA]:
        exact = linear_gaussian(2)
        program = OffHere(exact, fault) if fault in PLACES else spoil(linear_gaussian(2), fault)
        counts: dict[str, Counter[str]] = {name: Counter() for name in names}
        for seed in range(seeds):
            posterior = ppl_vae.Posterior(program, observed(exact, fault, seed))
            answers = (
                ask_certificate(posterior, 1000, seed),
                ask_local(posterior, 1000, seed),
                ask_misspecification(posterior, 1000, seed),
                ask_posterior_sbc(posterior, seed),
            )
            for name, answer in zip(names, answers, strict=True):
                counts[name][answer.verdict.grade] += 1
        cells = []
        for count in counts.values():
            cells.append(f"{count['caution'] + count['fail']} ({count['fail']})")
            if count["cannot say"]:
                cells[-1] += f", cannot say {count['cannot say']}"
        print(f"| {fault} | {' | '.join(cells)} |", flush=True)


def show_closed_form(
    seeds: int, simulations: int, of_units: list[int] | None, faults: list[str] | None
) -> None:
    """Print estimates and z-scores, by number of units and fault."""
    print(
        f"{seeds} seeds, {simulations} simulations\n\n"
        "| L | fault | J | total variation at most | grades | z-scores | beyond 3 |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    scores: list[float] = []
    for units in of_units or UNITS:
        for fault in faults or FAULTS:
            program = spoil(linear_gaussian(units), fault)
            exact = exact_jeffreys(program)
            posterior = ppl_vae.Posterior(program, torch.zeros(1, units + 4))
            answers = [ask_certificate(posterior, simulations, seed) for seed in range(seeds)]
            found = [answer.groups["certificate"] for answer in answers]
            # Of an exact guide all is zero but for rounding.
            z = [
                (float(f["jeffreys"]) - exact) / max(float(f["jeffreys_error"]), 1e-9)
                for f in found
            ]
            scores += z if fault != "none" else []
            grades = Counter(answer.verdict.grade for answer in answers)
            print(
                f"| {units} | {fault} | {exact:.3g} | {most_variation(exact):.2g} | "
                f"{', '.join(f'{k} {n}' for k, n in grades.items())} | "
                f"{np.mean(z):.2f} ± {np.std(z):.2f} | {sum(abs(s) > 3 for s in z)} |",
                flush=True,
            )
    beyond = sum(abs(s) > 3 for s in scores)
    print(
        f"\nz-scores: {np.mean(scores):.3f} ± {np.std(scores):.3f}; {beyond} of {len(scores)} > 3"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--power", action="store_true")
    parser.add_argument("--fault", action="append")
    parser.add_argument("--units", type=int, action="append")
    options = parser.parse_args()
    if options.power:
        show_power(options.seeds, options.fault)
    else:
        show_closed_form(options.seeds, options.simulations, options.units, options.fault)


if __name__ == "__main__":
    main()
