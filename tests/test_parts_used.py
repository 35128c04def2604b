"""Guides and priors where they are used: annealed, given to NUTS, diagnosed, fitted, and kept."""

import pytest
import torch
from pyro.infer import Trace_ELBO

import ppl_vae
from ppl_vae import Annealing, Posterior
from ppl_vae.diagnostics import gaps
from ppl_vae.inference import modes, nuts
from ppl_vae.models import GUIDES, PRIORS, VAE
from ppl_vae.objectives.gradients import compare_gradients
from ppl_vae.storage.arviz_io import chain_statistics

from .test_parts import shaken
from .test_priors import check_mean_is_one
from .yardsticks import by_quadrature

QUICK = [("full", "standard"), ("flow", "standard"), ("mixture", "vamp")]
OTHERS = [
    *((guide, "standard") for guide in GUIDES if guide not in ("full", "flow")),
    *(("diagonal", prior) for prior in PRIORS if prior != "standard"),
]
every_pair = pytest.mark.parametrize(
    ("guide", "prior"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHERS)]
)


def some_vae(guide, prior, size=50):
    """A VAE whose parts are away from where they begin, and data from it."""
    torch.manual_seed(3)
    vae = VAE((5,), 2, (), likelihood="gaussian", guide=guide, prior=prior).double()
    with torch.no_grad():
        vae.decoder.mlp[0].weight.normal_().mul_(0.5)
        # Every scale is about 1, wider than the posterior, or weights would have no variance.
        vae.encoder.mlp[0].weight.mul_(0.1)
        vae.encoder.mlp[0].bias.fill_(0.6)
    shaken(vae.family, 0.1)  # a flow that is far off has weights of large variance
    shaken(vae.prior)
    return vae, ppl_vae.prior_predictive(vae, (5,), size, seed=1).x


@every_pair
def test_annealed_weights_have_the_evidence_as_their_mean(guide, prior):
    vae, x = some_vae(guide, prior, 40)
    evidence, _ = by_quadrature(Posterior(vae, x), points=121)
    for start in ("prior", "guide"):
        annealing = Annealing(chains=16, temperatures=12, leapfrog_steps=3, start=start)
        found = ppl_vae.anneal(vae, x, annealing)
        check_mean_is_one((found.log_weight - evidence[None]).exp(), most=0.15)


@pytest.mark.parametrize("prior", PRIORS)
def test_nuts_has_the_means_of_the_posterior(prior, monkeypatch):
    for setting, fewer in (("WARMUP", 60), ("DRAWS", 60), ("TREE_DEPTH", 3)):
        monkeypatch.setattr(nuts, setting, fewer)
    vae, x = some_vae("mixture" if prior == "vamp" else "full", prior, 6)
    posterior = Posterior(vae, x)
    _, exact = by_quadrature(posterior, points=121)
    z = nuts.sample_posterior(posterior, seed=0)["z"]
    ess = torch.as_tensor(chain_statistics(z.transpose(0, 1).numpy())["ess_mean"])
    error = z.flatten(0, 1).std(0) / ess**0.5
    # Of 12 means at once less than one in a thousand is off by four standard errors.
    assert ((z.flatten(0, 1).mean(0) - exact).abs() < 4 * error).all()


@pytest.fixture
def less_work(monkeypatch):
    for setting, fewer in (("WARMUP", 30), ("DRAWS", 30), ("TREE_DEPTH", 2)):
        monkeypatch.setattr(nuts, setting, fewer)
    monkeypatch.setattr(modes, "STEPS", 10)
    monkeypatch.setattr(gaps, "STEPS", 10)
    monkeypatch.setattr(gaps, "ANNEALING", Annealing(chains=4, temperatures=4, leapfrog_steps=1))


@pytest.mark.usefixtures("less_work")
@pytest.mark.parametrize(("guide", "prior"), [
    ("full", "mixture"), ("mixture", "flow"), ("flow", "vamp"), ("low-rank", "standard"),
    ("spline", "standard"),
])  # fmt: skip
def test_all_questions_are_answered(guide, prior):
    vae, _ = some_vae(guide, prior)
    data = ppl_vae.make_data(ppl_vae.prior_predictive(vae, (5,), 1000, seed=1).x)
    effort = ppl_vae.Effort(
        data_points=100, draws=400, simulations=500, gap_points=10, nuts_points=1
    )
    found = ppl_vae.diagnose(vae, data, effort)
    assert [v.meaning for v in found.verdicts.values() if "it met" in v.meaning] == []
    assert {v.grade for v in found.verdicts.values()} & {"pass", "caution", "fail"}
    # Every family can be refined, so that the gap is split.
    assert "approximation_gap" in found.inference_data.gaps
    assert "left_out" not in found.about


@every_pair
def test_the_gradient_along_draws_is_that_of_the_elbo(guide, prior):
    """Sticking the landing has the same mean; the difference is within five of its errors."""
    vae, x = some_vae(guide, prior, 4)
    rows = []
    for loss in (ppl_vae.PathwiseELBO(2000), Trace_ELBO(2000, 1, vectorize_particles=True)):
        gradients = []
        for _ in range(20):
            vae.zero_grad()
            loss.loss_and_grads(vae.model, vae.guide, x)
            gradients.append(vae.encoder.mlp[0].bias.grad.clone())
        rows.append(torch.stack(gradients))
    difference = rows[0].mean(0) - rows[1].mean(0)
    error = sum(g.var(0) / len(g) for g in rows).sqrt()
    assert (difference.abs() <= 5 * error + 1e-9).all()


@pytest.mark.parametrize("objective", ["elbo", "analytic-kl", "stl", "iw", "dreg"])
def test_all_objectives_fit_them(objective):
    vae = VAE((5,), 2, (8,), guide="mixture", prior="flow")
    data = ppl_vae.make_data((torch.randn(200, 5) > 0).float())
    settings = ppl_vae.Settings(epochs=1, objective=objective, particles=2, engine="eager")
    history = ppl_vae.fit(vae, data, settings, progress=False)
    assert all(torch.isfinite(torch.tensor(row["elbo"])) for row in history.epochs)


def test_gradients_of_them_are_compared():
    vae, x = some_vae("mixture", "vamp", 20)
    found = compare_gradients(vae, x, particles=2, repeats=10)
    assert len(found) == 5
