"""Fits, bounds and annealing are the same under every engine, but for rounding."""

import copy

import pytest
import torch

import ppl_vae
from ppl_vae import Annealing, Settings, anneal, fit, score
from ppl_vae.data.dataset import DataSet
from ppl_vae.models import VAE

from .programs import Minimal, TwoLayers

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))


def small(data):
    return VAE(data.shape, latent_dim=2, hidden=(16,))


@pytest.fixture
def always_pays(monkeypatch):
    for module in (ppl_vae.programs.scoring, ppl_vae.evidence.annealing):
        monkeypatch.setattr(module, "worth_compiling", lambda *counts: True)


def test_the_same_seed_gives_the_same_batches_under_every_engine(digits, monkeypatch):
    seen, batches = {}, DataSet.batches
    for engine in ("eager", "compiled"):
        given = seen[engine] = []

        def watched(*arguments, given=given):
            for batch in batches(*arguments):
                given.append(batch)
                yield batch

        monkeypatch.setattr(DataSet, "batches", watched)
        settings = Settings(epochs=2, batch_size=200, engine=engine)
        fit(small(digits), digits, settings, progress=False)
    assert len(seen["eager"]) == 2 * 8
    assert all(
        torch.equal(one.x, other.x)
        for one, other in zip(seen["eager"], seen["compiled"], strict=True)
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"kl_warmup_epochs": 2, "free_bits": 0.5, "clip_norm": 5.0}, {"objective": "dreg"}],
    ids=str,
)
def test_fits_agree_while_rounding_has_not_grown(digits, options):
    particles = 3 if "objective" in options else 1
    start, rows = small(digits), {}
    for engine in ("eager", "compiled"):
        settings = Settings(epochs=2, particles=particles, engine=engine, **options)
        rows[engine] = fit(copy.deepcopy(start), digits, settings, progress=False).epochs
    for eager, compiled in zip(rows["eager"], rows["compiled"], strict=True):
        for name in ("elbo", "loss", "kl"):
            assert compiled[name] == pytest.approx(eager[name], rel=1e-3)


def test_a_compiled_fit_gives_the_same_bits_again(digits):
    start, ends = small(digits), []
    for _ in range(2):
        program = copy.deepcopy(start)
        fit(program, digits, Settings(epochs=2, engine="compiled"), progress=False)
        ends.append(torch.nn.utils.parameters_to_vector(program.parameters()))
    assert torch.equal(*ends)


@pytest.mark.parametrize("kind", [Minimal, TwoLayers])
def test_bounds_agree(kind, always_pays, monkeypatch):
    program = kind()
    monkeypatch.setattr(ppl_vae.programs.scoring, "BLOCK_ELEMENTS", 5 * 200)  # four blocks
    compiled = score(program, X, draws=20, seed=1)
    monkeypatch.setattr(ppl_vae.programs.scoring, "worth_compiling", lambda *counts: False)
    eager = score(program, X, draws=20, seed=1)
    for name, values in eager.per_datum.items():
        torch.testing.assert_close(compiled.per_datum[name], values, rtol=1e-4, atol=1e-5)
    assert compiled.analytic_kl.keys() == eager.analytic_kl.keys()


def test_annealing_agrees(always_pays, monkeypatch):
    program, annealing = Minimal().double(), Annealing(chains=3, temperatures=8)
    compiled = anneal(program, X[:6].double(), annealing, seed=1)
    monkeypatch.setattr(ppl_vae.evidence.annealing, "worth_compiling", lambda *counts: False)
    eager = anneal(program, X[:6].double(), annealing, seed=1)
    torch.testing.assert_close(compiled.log_weight, eager.log_weight, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_fits_of_ten_seeds_reach_the_same_elbo(digits):
    """After 5 epochs: the mean difference over seeds, in standard errors, each from one start."""
    gaps = []
    for seed in range(10):
        torch.manual_seed(seed)
        start, elbos = small(digits), {}
        for engine in ("eager", "compiled"):
            program = copy.deepcopy(start)
            fit(program, digits, Settings(epochs=5, seed=seed, engine=engine), progress=False)
            scores = score(program, digits.fixed("test"), draws=20, seed=seed)
            elbos[engine] = scores.per_datum["elbo"].mean().item()
        gaps.append(elbos["compiled"] - elbos["eager"])
    gap = ppl_vae.Estimate.of(torch.tensor(gaps))
    assert abs(gap.mean) <= 4 * gap.stderr
    assert max(map(abs, gaps)) < 0.1  # nats: the draws are the same, so little is left
