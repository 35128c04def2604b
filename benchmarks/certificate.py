"""Is the certificate right? The Jeffreys divergence beside its closed form.

    python benchmarks/certificate.py               # 20 seeds, some minutes
    python benchmarks/certificate.py --seeds 100

Probabilistic PCA with L units, whose posterior is known, and linear guides with faults, whose
Jeffreys divergence is known too, averaged over the model's data. A z-score is (estimate - closed
form) / standard error: over seeds its mean should be near 0, its standard deviation near 1.
"""

import argparse
from collections import Counter

import numpy as np
import torch

import ppl_vae
from ppl_vae.diagnostics.certificate import ask_certificate, most_variation
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


def main() -> None:
    """Print a row for each number of units and fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--simulations", type=int, default=1000)
    options = parser.parse_args()
    print(
        f"{options.seeds} seeds, {options.simulations} simulations\n\n"
        "| L | fault | J | total variation at most | grades | z-scores | beyond 3 |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    scores: list[float] = []
    for units in UNITS:
        for fault in FAULTS:
            program = spoil(linear_gaussian(units), fault)
            exact = exact_jeffreys(program)
            posterior = ppl_vae.Posterior(program, torch.zeros(1, units + 4))
            answers = [
                ask_certificate(posterior, options.simulations, seed)
                for seed in range(options.seeds)
            ]
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


if __name__ == "__main__":
    main()
