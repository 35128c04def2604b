"""Log densities per site, draw and datum."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

import ppl_vae.programs.weights
from ppl_vae import InputError, log_terms, log_weights
from ppl_vae.models import VAE, Autoencoder
from ppl_vae.programs.protocol import evaluation_mode
from ppl_vae.programs.sites import (
    draw_latents,
    is_discrete,
    is_point_mass,
    latent_distributions,
    supports,
    trace_draws,
)
from ppl_vae.programs.terms import score_latents
from ppl_vae.programs.weights import reduce_terms

from .programs import (
    Deterministic,
    Discrete,
    Flow,
    Masked,
    Minimal,
    Nested,
    Scaled,
    TwoLayers,
    VolumePreserving,
    WithDropout,
)

X = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Discrete])
def test_mean_log_weight_is_pyros_elbo_on_the_same_draws(kind):
    program = kind()
    terms = log_terms(program, X, draws=6, seed=4)
    torch.manual_seed(4)
    loss = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1).loss(
        program.model, program.guide, X
    )
    assert terms.log_weight.mean(0).sum().item() == pytest.approx(-loss, rel=1e-5)


def test_weight_is_reconstruction_minus_kl():
    terms = log_terms(TwoLayers(), X, draws=3)
    assert set(terms.model) == {"x", "z1", "z2"}
    assert set(terms.guide) == {"z1", "z2"}
    by_hand = sum(terms.model.values()) - sum(terms.guide.values())
    torch.testing.assert_close(terms.log_weight, by_hand)


def test_blocks_cover_all_draws_and_data_once(monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.weights, "BLOCK_ELEMENTS", 4 * 5 * 2)
    done = []
    terms = log_terms(Minimal(), X, draws=7, on_block=done.append)
    assert terms.log_weight.shape == (7, 9)
    assert sum(done) == 7 * 9
    assert max(done) <= 8
    assert len(terms.log_weight.unique()) == 7 * 9


def test_blocks_count_the_widest_layer(monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.weights, "BLOCK_ELEMENTS", 1000)
    done = []
    wide = VAE((5,), latent_dim=2, hidden=(100,), likelihood="gaussian")
    log_terms(wide, X, draws=7, on_block=done.append)
    assert sum(done) == 7 * 9
    assert max(done) <= 10


def test_weights_stay_per_datum():
    program = Minimal()
    alone = log_terms(program, X[:1], draws=4000, seed=1).log_weight.mean()
    among = log_terms(program, X, draws=4000, seed=2).log_weight[:, 0]
    stderr = among.std() / 4000**0.5
    assert abs(alone - among.mean()) < 4 * 2**0.5 * stderr


def test_same_seed_same_bits_and_nothing_else_moves():
    program = Minimal()
    state = torch.get_rng_state()
    first, second = (log_terms(program, X, draws=2, seed=5).log_weight for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, log_terms(program, X, draws=2, seed=6).log_weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0


def test_dropout_is_off_while_densities_are_read_and_back_on_after():
    program = WithDropout()
    program.encoder.eval()  # as someone who freezes its statistics would
    modes = [module.training for module in program.modules()]
    twice = torch.cat([X[:1], X[:1]])
    terms = log_terms(program, twice, draws=50)
    again = log_terms(program, twice, draws=50)
    assert torch.equal(terms.log_weight, again.log_weight)
    assert modes == [module.training for module in program.modules()]
    program.decoder.eval()
    assert torch.equal(log_terms(program, twice, draws=50).log_weight, terms.log_weight)


def test_draws_and_seeds_out_of_range_are_refused():
    with pytest.raises(InputError, match="draws must be a whole number of at least 1, got 0"):
        log_terms(Minimal(), X, draws=0)
    with pytest.raises(InputError, match="seed must be in 0"):
        log_terms(Minimal(), X, seed=-1)


def test_point_masses_are_found():
    assert is_point_mass(*latent_distributions(Autoencoder((5,)), X))
    assert not is_point_mass(*latent_distributions(VAE((5,)), X))


def test_a_delta_that_carries_a_density_is_none():
    program = Flow()
    assert not is_point_mass(*latent_distributions(program, X))
    terms = log_terms(program, X, draws=20_000)
    # E_q[p(x, z) / q(z)] = p(x) whatever the guide: two of them agree on log p(x).
    plain = log_terms(Flow.without(program), X, draws=20_000, seed=1)
    bounds = [t.log_weight.double().logsumexp(0) for t in (terms, plain)]
    spread = [
        (t.log_weight.double().softmax(0).square().sum(0) - 1 / 20_000).sqrt()
        for t in (terms, plain)
    ]
    stderr = (spread[0].square() + spread[1].square()).sqrt()
    assert ((bounds[0] - bounds[1]).abs() < 5 * stderr).all()


def test_what_scales_an_objective_is_no_density():
    program = Scaled()
    plain = Scaled.without(program)
    assert torch.equal(
        log_terms(program, X, draws=3).log_weight, log_terms(plain, X, draws=3).log_weight
    )


def test_deterministic_sites_have_no_density():
    terms = log_terms(Deterministic(), X, draws=3)
    assert set(terms.model) == {"z", "x"}


def test_log_weights_are_those_of_the_terms():
    program = TwoLayers()
    weights = log_weights(program, X, draws=6, seed=4)
    assert weights.shape == (6, 9)
    assert torch.equal(weights, log_terms(program, X, draws=6, seed=4).log_weight)


def test_a_point_mass_has_no_weights():
    with pytest.raises(InputError, match="Autoencoder is a point mass: it has no density"):
        log_weights(Autoencoder((5,), likelihood="gaussian"), X)


def test_a_weight_that_is_not_finite_names_datum_and_site(monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.weights, "BLOCK_ELEMENTS", 2 * 5 * 2)
    program = Minimal()
    x = X.clone()
    x[7] = 1e30
    with pytest.raises(InputError, match="log weight of datum 7 is not finite.* site 'z'"):
        log_weights(program, x, draws=2)


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Discrete])
def test_reducing_by_the_block_is_reducing_the_whole(kind, monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.weights, "BLOCK_ELEMENTS", 4 * 5 * 2)
    program, done = kind(), []
    parts = reduce_terms(
        program, X, lambda terms: {"mean": terms.log_weight.mean(0)}, 7, 3, done.append
    )
    whole = log_terms(program, X, draws=7, seed=3).log_weight.mean(0)
    assert torch.equal(parts["mean"], whole)
    assert sum(done) == 7 * 9


def test_analytic_kl_is_what_the_draws_average_to():
    for kind in (Minimal, Discrete):
        program = kind()
        terms = log_terms(program, X, draws=4000, seed=1, analytic=True)
        (exact,) = terms.analytic_kl.values()
        assert torch.allclose(exact, exact[0])  # no draw enters
        stderr = terms.kl.std(0) / 4000**0.5
        assert ((terms.kl.mean(0) - exact[0]).abs() < 5 * stderr).all()


def test_analytic_kl_is_masked_where_draws_are():
    terms = log_terms(Masked(), X, draws=4000, analytic=True)
    stderr = terms.kl.std(0) / 4000**0.5
    assert ((terms.kl.mean(0) - terms.analytic_kl["z"][0]).abs() <= 5 * stderr).all()
    assert (terms.analytic_kl["z"][:, 1::2] == 0).all()


def test_a_flow_of_constant_volume_is_no_point_mass():
    assert log_weights(VolumePreserving(), X, draws=3).isfinite().all()


def test_supports_that_move_are_refused():
    assert set(supports(TwoLayers(), X)) == {"z1", "z2"}
    with pytest.raises(InputError, match="support of the latent site 'z' depends"):
        supports(Nested(), X)


def test_there_is_no_analytic_kl_where_the_guide_has_another_order():
    assert log_terms(TwoLayers(), X, analytic=True).analytic_kl == {}
    assert log_terms(Minimal(), X).analytic_kl == {}


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Scaled])
def test_given_latents_are_scored_as_drawn_ones_are(kind):
    program = kind()
    with evaluation_mode(program, 0):
        guide, _ = trace_draws(program, X, 4)
        sites = [site for site in ("z", "z1", "z2") if site in guide.nodes]
        latents = {site: guide.nodes[site]["value"] for site in sites}
        found = score_latents(program, X, latents, with_guide=True)
    expected = log_terms(program, X, draws=4, seed=0)
    for table in ("model", "guide"):
        for site, values in getattr(expected, table).items():
            torch.testing.assert_close(getattr(found, table)[site], values)
    with evaluation_mode(program, 0):
        assert score_latents(program, X, latents, with_guide=False).guide == {}


def test_latents_come_from_prior_or_guide():
    program = Minimal()
    with evaluation_mode(program, 0):
        prior = draw_latents(program, X, 5000, "prior")["z"]
        guide = draw_latents(program, X, 5000, "guide")["z"]
    loc, raw = program.encoder(X).detach().chunk(2, -1)
    for drawn, mean, scale in ((prior, 0 * loc, torch.ones_like(loc)), (guide, loc, raw.exp())):
        assert drawn.shape == (5000, 9, 2)
        assert ((drawn.mean(0) - mean).abs() < 5 * scale / 5000**0.5).all()
        assert ((drawn.std(0) / scale - 1).abs() < 5 / 10000**0.5).all()


def test_likelihoods_that_are_discrete_are_known():
    assert is_discrete(VAE((5,)), X > 0)
    assert not is_discrete(Minimal(), X)
