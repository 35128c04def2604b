"""The ELBO and its terms: ordering, standard errors, refusals."""

import math

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import Bernoulli, Normal

import ppl_vae
from ppl_vae import Estimate, InputError, Posterior, evaluate, score
from ppl_vae.evidence.scores import bounds
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

from .conjugate import Proportion
from .misfits import WrongSupport
from .programs import Discrete, Explodes, Minimal, Sigmoids, TwoLayers

X = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))


def test_an_estimate_is_mean_and_standard_error():
    values = torch.randn(1000)
    estimate = Estimate.of(values)
    assert estimate.mean == pytest.approx(values.numpy().astype(np.float64).mean())
    assert estimate.stderr == pytest.approx(values.double().std().item() / math.sqrt(1000))
    assert estimate.n == 1000
    assert math.isnan(Estimate.of(torch.ones(1)).stderr)


def test_elbo_is_reconstruction_minus_kl_and_below_the_bound():
    figures = evaluate(Minimal(), X, draws=20)
    assert list(figures) == [
        "elbo", "reconstruction", "kl", "iw_bound", "iw_jackknife", "kl_to_posterior",
    ]  # fmt: skip
    difference = figures["reconstruction"].mean - figures["kl"].mean
    assert figures["elbo"].mean == pytest.approx(difference, abs=1e-5)
    assert figures["elbo"].mean < figures["iw_bound"].mean


def test_with_one_draw_the_bound_is_the_elbo():
    figures = evaluate(Minimal(), X, draws=1)
    assert figures["iw_bound"] == figures["elbo"]
    assert figures.keys() == {"elbo", "reconstruction", "kl", "iw_bound"}  # no KL of zero


def test_the_bound_agrees_with_numpy():
    program = Minimal()
    weights = Posterior(program, X).terms(draws=30, seed=2).log_weight.numpy().astype(np.float64)
    top = weights.max(0)
    by_hand = (np.log(np.exp(weights - top).mean(0)) + top).mean()
    assert evaluate(program, X, draws=30, seed=2)["iw_bound"].mean == pytest.approx(by_hand)


def test_the_bound_rises_towards_the_exact_evidence():
    program = LinearGaussian((5,), latent_dim=2)
    x = program.model(size=400).detach()
    exact = program.evidence(x).mean().item()
    bounds = [evaluate(program, x, draws)["iw_bound"].mean for draws in (1, 10, 1000)]
    assert bounds == sorted(bounds)
    # Delta method: the bound of S draws has bias -v/2S and variance v/S, with v the variance of
    # the weights relative to their mean (Nowozin 2018, proposition 1).
    weights = Posterior(program, x).terms(1000).log_weight
    v = weights.softmax(0).mul(1000).var(0)
    bias, stderr = (v / 2000).mean().item(), (v / 1000).sum().sqrt().item() / len(x)
    assert abs(bounds[-1] + bias - exact) < 4 * stderr


def test_a_point_mass_has_no_elbo():
    figures = evaluate(Autoencoder((5,), likelihood="gaussian"), X)
    assert list(figures) == ["reconstruction"]


def test_a_weight_that_is_not_finite_names_datum_and_site():
    with pytest.raises(InputError, match="datum 0 has a log weight that is not finite.* site 'x'"):
        evaluate(Explodes(calls=6), X)  # the check makes the first five


def test_data_outside_the_support_are_refused():
    with pytest.raises(InputError, match="datum 0: .* outside the support of the Bernoulli"):
        evaluate(VAE((5,)), X)


def test_the_program_stays_on_its_type():
    figures = evaluate(Minimal().double(), X)
    assert figures["elbo"].n == 50
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Discrete])
def test_the_ledger_sums_to_pyros_elbo_on_the_same_draws(kind):
    program = kind()
    ledger = score(program, X, draws=6, seed=4).ledger()
    torch.manual_seed(4)
    loss = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1).loss(
        program.model, program.guide, X
    )
    assert ledger.elbo.mean * len(X) == pytest.approx(-loss, rel=1e-6)
    total = sum(row.estimate.mean for row in ledger.rows)
    assert total == pytest.approx(ledger.elbo.mean, rel=1e-12)


def test_the_ledger_has_a_row_for_every_site_and_names_its_term():
    rows = score(TwoLayers(), X).ledger().rows
    assert [(row.site, row.term) for row in rows] == [
        ("x", "E_q[log p(x|z2, z1)]"),
        ("z2", "E_q[log p(z2|...)]"),
        ("z1", "E_q[log p(z1|...)]"),
        ("z1", "-E_q[log q(z1|...)]"),
        ("z2", "-E_q[log q(z2|...)]"),
    ]
    (term,) = (row.term for row in score(Discrete(), X).ledger().rows if "q(" in row.term)
    assert term == "-E_q[log q(k|x)]"


def test_both_kls_of_the_ledger_agree():
    for kind in (Minimal, Discrete):
        program = kind()
        scores = score(program, X, draws=2000)
        ((sampled, exact),) = scores.ledger().kl.values()
        terms = Posterior(program, X).terms(draws=2000)
        stderr = (terms.kl.var(0) / 2000).sum().sqrt().item() / len(X)  # that draws leave
        assert abs(sampled.mean - exact.mean) < 4 * stderr
    assert score(TwoLayers(), X).ledger().kl == {}


def test_the_jackknife_leaves_out_one_draw_at_a_time():
    log_weight = 5 * torch.randn(20, 7, dtype=torch.float64)
    log_weight[3, 2] += 1000  # the others vanish beside it
    found = bounds(log_weight)
    weights = log_weight.numpy()

    def bound(w):
        return w.max(0) + np.log(np.exp(w - w.max(0)).mean(0))

    others = np.mean([bound(np.delete(weights, i, 0)) for i in range(20)], axis=0)
    np.testing.assert_allclose(found["iw_bound"], bound(weights), rtol=1e-12)
    np.testing.assert_allclose(found["iw_jackknife"], 20 * bound(weights) - 19 * others, rtol=1e-9)


def test_the_jackknife_of_weights_that_are_too_small_to_be_summed():
    # Of 5 draws that tie at -1e30 nats, log 5 is lost in the sum.
    found = bounds(torch.full((5, 2), -1e30))
    assert all(values.isfinite().all() for values in found.values())
    assert torch.equal(found["iw_jackknife"], found["iw_bound"])


def test_the_jackknife_takes_bias_away():
    program = LinearGaussian((5,), latent_dim=2)
    x = program.model(size=40).detach()
    weights = Posterior(program, x).log_weight(draws=40_000).reshape(1000, 40, len(x))
    found = [bounds(chunk) for chunk in weights]  # 1,000 bounds of 40 draws each
    errors = {
        name: torch.stack([f[name] for f in found]).mean(1) - program.evidence(x).mean().item()
        for name in ("iw_bound", "iw_jackknife")
    }
    bias = {name: error.mean().item() for name, error in errors.items()}
    stderr = errors["iw_jackknife"].std().item() / 1000**0.5
    assert bias["iw_bound"] < -10 * stderr
    assert abs(bias["iw_jackknife"]) < abs(bias["iw_bound"]) / 4


def test_the_error_of_the_bound_is_its_spread_over_seeds():
    program = Minimal()
    found = [score(program, X, draws=500, seed=seed).per_datum for seed in range(100)]
    spread = torch.stack([f["iw_bound"] for f in found]).std(0)
    told = torch.stack([f["iw_error"] for f in found]).mean(0)
    # The spread of 100 values is off by 7 % itself, the delta method by some more, and by far more
    # for data whose weights have heavy tails: hence the median over data.
    assert ((told / spread).log().median().abs() < 0.1).item()


def numpy_bound(state, x, draws, rng):
    """The importance-weighted bound of a VAE, in NumPy alone: Burda et al. 2015, eq. 8."""

    def silu(a):
        return a / (1 + np.exp(-a))

    def mlp(name, a):
        layers = sorted({key.split(".")[2] for key in state if key.startswith(f"{name}.mlp")})
        for layer in layers:
            weight, bias = (state[f"{name}.mlp.{layer}.{part}"] for part in ("weight", "bias"))
            a = a @ weight.T + bias
            a = a if layer == layers[-1] else silu(a)
        return a

    loc, raw = np.split(mlp("encoder", x.reshape(len(x), -1)), 2, axis=-1)
    scale = np.log1p(np.exp(raw)) + 1e-4
    noise = rng.normal(size=(draws, *loc.shape))
    z = loc + scale * noise
    logits = mlp("decoder", z)
    log_p_x = (x.reshape(len(x), -1) * logits - np.logaddexp(0, logits)).sum(-1)
    log_ratio = (-0.5 * z**2 + 0.5 * noise**2 + np.log(scale)).sum(-1)
    log_weight = log_p_x + log_ratio
    top = log_weight.max(0)
    relative = np.exp(log_weight - top)
    variance = relative.var(0) / relative.mean(0) ** 2 / draws
    return top + np.log(relative.mean(0)), np.sqrt(variance)


def test_numpy_alone_finds_the_same_bound(digits):
    vae = VAE(digits.shape, latent_dim=5, hidden=(32, 16))
    ppl_vae.fit(vae, digits, ppl_vae.Settings(epochs=5), progress=False)
    x = digits.fixed("test")
    found = score(vae, x, draws=2000)
    state = {name: value.double().cpu().numpy() for name, value in vae.state_dict().items()}
    bound, error = numpy_bound(state, x.double().numpy(), 2000, np.random.default_rng(0))
    difference = found.per_datum["iw_bound"].numpy() - bound
    stderr = np.sqrt(found.per_datum["iw_error"].numpy() ** 2 + error**2)
    assert abs(difference.mean()) < 4 * np.sqrt((stderr**2).sum()) / len(x)
    # Each datum's error is itself an estimate, and too small where weights have heavy tails.
    assert (np.abs(difference) < 4 * stderr).mean() > 0.98


def test_bits_per_dimension_are_for_discrete_data():
    vae = VAE((5,), latent_dim=2, hidden=(4,))
    figures = evaluate(vae, (X > 0).float())
    by_hand = -figures["iw_bound"].mean / (5 * math.log(2))
    assert figures["bits_per_dim"].mean == pytest.approx(by_hand)
    assert figures["bits_per_dim"].unit == "bits"
    assert figures["iw_bound"].unit == "nats"
    assert "bits_per_dim" not in evaluate(Minimal(), X)


def test_a_guide_that_leaves_the_priors_support_is_named():
    for call in (evaluate, Posterior):
        with pytest.raises(InputError, match=r"guide draws -.* at site 'z', outside the prior's"):
            call(WrongSupport(), torch.rand(5, 1))


def test_draws_less_than_one_and_data_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="draws must be an integer of at least 1, got 0"):
        evaluate(Minimal(), X, draws=0)
    with pytest.raises(InputError, match=r"takes x of shape \(N, 5\), not \(N, 6\)"):
        evaluate(Minimal(), torch.randn(4, 6))


def test_binary_latents_are_evaluated_as_by_enumeration():
    torch.manual_seed(0)
    program, x = Sigmoids().double(), torch.randn(30, 5).double()
    bits = torch.tensor([0.0, 1.0]).double()
    z = torch.cartesian_prod(bits, bits)[:, None].expand(-1, 30, 2)
    q = Bernoulli(logits=program.encoder(x))
    log_q = q.log_prob(z).sum(-1).detach()
    log_joint = Normal(program.decoder(z), 1.0).log_prob(x).sum(-1).detach() + 2 * math.log(0.5)
    scores = score(program, x, draws=400)
    kl = (log_q.exp() * (log_q - 2 * math.log(0.5))).sum(0)
    torch.testing.assert_close(scores.analytic_kl["z"], kl)
    for name, exact in (
        ("kl", kl),
        ("elbo", (log_q.exp() * (log_joint - log_q)).sum(0)),
    ):
        off = scores.per_datum[name] - exact
        assert abs(off.mean()) < 3 * off.std() / 30**0.5
    ratio = (scores.per_datum["iw_bound"] - log_joint.logsumexp(0)).exp()  # E = 1
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / 30**0.5


def test_beta_guides_under_a_uniform_prior_have_their_closed_form():
    program = Proportion()
    x = (torch.rand(20, 5, generator=torch.Generator().manual_seed(0)) < 0.3).double()
    scores = score(program, x, draws=3)
    log_p = program.log_p(x)
    torch.testing.assert_close(scores.per_datum["elbo"], log_p)  # the guide is exact
    torch.testing.assert_close(scores.per_datum["iw_bound"], log_p)
    torch.testing.assert_close(scores.analytic_kl["z"], -program.posterior(x).entropy().detach())
