"""False alarms and power of the question about generation, fault by fault.

    python benchmarks/generation_power.py                        # 100 seeds, 150 held-out data
    python benchmarks/generation_power.py --held-out 1000 --fault none --seeds 40
    python benchmarks/generation_power.py --model digits-vae     # no fault: a VAE's own samples

A line is the number of seeds with each grade, and what was named as worst, by its frequency.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppl_vae
from ppl_vae.diagnostics.generation import ask_generation
from ppl_vae.models import VAE, LinearGaussian
from ppl_vae.runtime import derived_seed

COLUMNS, TRAIN, SHARE = 8, 400, 0.15
NEAR = 0.01  # standard deviations by which near copies are off
T_DEGREES, OUTLIERS, OUTLYING = 4, 0.02, 10.0


class Copier(nn.Module):
    """A model that hands out training data in a share of its draws; else it is right.

    Arguments:
        program: The model that made the data.
        kept: The training data, of shape (N, columns).
        noise: The standard deviation of what is added to a copy.
    """

    kept: Tensor

    def __init__(self, program: LinearGaussian, kept: Tensor, noise: float) -> None:
        super().__init__()
        self.program, self.noise = program, noise
        self.register_buffer("kept", kept)

    def _latents(self, x: Tensor, given: bool) -> tuple[Tensor, Tensor, Tensor]:
        copied = pyro.sample("copied", dist.Bernoulli(x.new_tensor(SHARE)))
        # The row, as a place in (0, 1): classes by the hundred are slow to draw.
        place = pyro.sample("place", dist.Uniform(x.new_zeros(()), x.new_ones(())))
        row = (place * len(self.kept)).long()
        q = self.program.posterior(x) if given else dist.MultivariateNormal(*_standard(x))
        return copied[..., None], row, pyro.sample("z", q)

    def model(self, x: Tensor) -> None:
        pyro.module(f"copier-{id(self)}", self)
        with pyro.plate("data", len(x)):
            copied, row, z = self._latents(x, False)
            mean = z @ self.program.loading.T + self.program.loc
            mean = torch.where(copied > 0, self.kept[row], mean)
            scale = torch.where(copied > 0, self.noise, self.program.scale)
            pyro.sample("x", dist.Normal(mean, scale).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module(f"copier-{id(self)}", self)
        with pyro.plate("data", len(x)):
            self._latents(x, True)


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_zeros(2), torch.eye(2, dtype=x.dtype)


def right_model() -> LinearGaussian:
    """Probabilistic PCA of eight columns, with its exact guide."""
    ppca = LinearGaussian((COLUMNS,), latent_dim=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        basis = torch.randn(COLUMNS, COLUMNS, generator=generator, dtype=torch.float64)
        ppca.loading.copy_(torch.linalg.qr(basis)[0][:, :2] * torch.tensor([2.0, 1.5]))
    ppca.set_exact_guide()
    return ppca


def spoilt_data(program: LinearGaussian, fault: str, size: int, seed: int) -> Tensor:
    """Data that differ from the model's by a fault."""
    x = ppl_vae.prior_predictive(program, (COLUMNS,), size, seed).x
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    scale = program.scale.detach()
    if fault == "t noise":
        z = torch.randn(size, 2, generator=generator, dtype=x.dtype)
        noise = torch.distributions.StudentT(T_DEGREES).sample((size, COLUMNS)).to(x)
        return z @ program.loading.detach().T + scale * noise * (1 - 2 / T_DEGREES) ** 0.5
    if fault == "2 % outliers":
        out = torch.rand(size, 1, generator=generator, dtype=x.dtype) < OUTLIERS
        return torch.where(out, x + OUTLYING * scale * torch.randn_like(x), x)
    if fault == "one column skewed":  # an exponential of the same mean and variance
        deviation = (program.loading[0].square().sum() + scale**2).sqrt().detach()
        place = torch.distributions.Normal(0.0, deviation).cdf(x[:, 0])
        return torch.cat([-deviation * ((1 - place).log()[:, None] + 1), x[:, 1:]], dim=1)
    if fault == "columns correlated":  # two, by a half
        return torch.cat([x[:, :1], (x[:, 1:2] + 0.6 * x[:, :1]) / 1.36**0.5, x[:, 2:]], dim=1)
    return x / 0.7 if fault == "under-dispersed" else x


FAULTS = (
    "none",
    "t noise",
    "2 % outliers",
    "one column skewed",
    "columns correlated",
    "exact copies",
    "near copies",
    "under-dispersed",
)


def cases(model: str, fault: str, held_out: int, seeds: range) -> Iterator[Any]:
    """A program, training and held-out data, and a seed."""
    right: Any = right_model() if model == "linear-gaussian" else bernoulli_vae()
    for number in seeds:
        seed = derived_seed(number, f"{model} {fault}")
        if model == "digits-vae":
            x = ppl_vae.prior_predictive(right, right.data_shape, TRAIN + held_out, seed).x
            yield right, x[held_out:], x[:held_out], seed
            continue
        x = spoilt_data(right, fault, TRAIN + held_out, seed)
        program: Any = right
        if fault.endswith("copies"):
            program = Copier(right, x[held_out:], NEAR if fault == "near copies" else 1e-9)
        yield program, x[held_out:], x[:held_out], seed


def bernoulli_vae() -> VAE:
    """A VAE fitted to binary digits for a while."""
    data = ppl_vae.load_data("digits", binarize="dynamic")
    vae = VAE(data.shape, latent_dim=2, hidden=(64,))
    ppl_vae.fit(vae, data, ppl_vae.Settings(epochs=20), progress=False)
    return vae


def main() -> None:
    """Print a line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=150)
    parser.add_argument("--model", choices=("linear-gaussian", "digits-vae"))
    parser.add_argument("--fault", choices=FAULTS, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = options.model or "linear-gaussian"
    faults = ["none"] if model == "digits-vae" else options.fault or FAULTS
    seeds = range(options.first, options.first + options.seeds)
    for fault in faults:
        start = time.perf_counter()
        grades: Counter[str] = Counter()
        named: Counter[str] = Counter()
        for program, train, x, seed in cases(model, fault, options.held_out, seeds):
            posterior = ppl_vae.Posterior(program, x)
            answer = ask_generation(posterior, ppl_vae.Batch(x=train), seed)
            found = answer.groups["generation"]
            grades[answer.verdict.grade] += 1
            above = found["grade"].isin(["caution", "fail"]).values
            named.update(found["finding"].values[above].tolist())
        seconds = (time.perf_counter() - start) / options.seeds
        print(f"{model}, {fault}, {options.held_out} held out: {dict(grades)}", flush=True)
        print(f"    {dict(named.most_common(6))}; {seconds:.1f} s each", flush=True)


if __name__ == "__main__":
    main()
