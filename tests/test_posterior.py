"""The posterior of a program for some data: draws, log densities, weights, sites."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

import ppl_vae.programs.scoring
from ppl_vae import InputError, Posterior
from ppl_vae.models import VAE, Autoencoder
from ppl_vae.progress import Progress

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
    terms = Posterior(program, X).terms(draws=6, seed=4)
    torch.manual_seed(4)
    loss = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1).loss(
        program.model, program.guide, X
    )
    assert terms.log_weight.mean(0).sum().item() == pytest.approx(-loss, rel=1e-5)


def test_weight_is_reconstruction_minus_kl():
    terms = Posterior(TwoLayers(), X).terms(draws=3)
    assert (set(terms.likelihood), set(terms.prior)) == ({"x"}, {"z1", "z2"})
    assert set(terms.guide) == {"z1", "z2"}
    by_hand = terms.likelihood["x"] + sum(terms.prior.values()) - sum(terms.guide.values())
    torch.testing.assert_close(terms.log_weight, by_hand)


def test_blocks_cover_all_draws_and_data_once(monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.scoring, "BLOCK_ELEMENTS", 4 * 5 * 2)
    done = []
    told = lambda share, note: done.append(round(share * 7 * 9))  # noqa: E731
    log_weight = Posterior(Minimal(), X).log_weight(7, on_progress=told)
    assert log_weight.shape == (7, 9)
    assert sum(done) == 7 * 9
    assert max(done) <= 8
    assert len(log_weight.unique()) == 7 * 9


def test_blocks_count_the_widest_layer(monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.scoring, "BLOCK_ELEMENTS", 1000)
    done = []
    told = lambda share, note: done.append(round(share * 7 * 9))  # noqa: E731
    wide = VAE((5,), latent_dim=2, hidden=(100,), likelihood="gaussian")
    Posterior(wide, X).log_weight(7, on_progress=told)
    assert sum(done) == 7 * 9
    assert max(done) <= 10


def test_weights_stay_per_datum():
    program = Minimal()
    alone = Posterior(program, X[:1]).terms(draws=4000, seed=1).log_weight.mean()
    among = Posterior(program, X).terms(draws=4000, seed=2).log_weight[:, 0]
    stderr = among.std() / 4000**0.5
    assert abs(alone - among.mean()) < 4 * 2**0.5 * stderr


def test_same_seed_same_bits_and_nothing_else_moves():
    program = Minimal()
    state = torch.get_rng_state()
    first, second = (Posterior(program, X).terms(draws=2, seed=5).log_weight for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, Posterior(program, X).terms(draws=2, seed=6).log_weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0


def test_dropout_is_off_while_densities_are_read_and_back_on_after():
    program = WithDropout()
    program.encoder.eval()  # as someone who freezes its statistics would
    modes = [module.training for module in program.modules()]
    twice = torch.cat([X[:1], X[:1]])
    terms = Posterior(program, twice).terms(draws=50)
    again = Posterior(program, twice).terms(draws=50)
    assert torch.equal(terms.log_weight, again.log_weight)
    assert modes == [module.training for module in program.modules()]
    program.decoder.eval()
    assert torch.equal(Posterior(program, twice).terms(draws=50).log_weight, terms.log_weight)


def test_draws_and_seeds_out_of_range_are_refused():
    with pytest.raises(InputError, match="draws must be an integer of at least 1, got 0"):
        Posterior(Minimal(), X).terms(draws=0)
    with pytest.raises(InputError, match="seed must be an integer in 0"):
        Posterior(Minimal(), X).terms(seed=-1)


def test_point_masses_are_found():
    assert Posterior(Autoencoder((5,), likelihood="gaussian"), X).sites.is_point_mass
    assert not Posterior(VAE((5,), likelihood="gaussian"), X).sites.is_point_mass


def test_a_delta_that_carries_a_density_is_none():
    program = Flow()
    assert not Posterior(program, X).sites.is_point_mass
    terms = Posterior(program, X).terms(draws=20_000)
    # E_q[p(x, z) / q(z)] = p(x) whatever the guide: two of them agree on log p(x).
    plain = Posterior(Flow.without(program), X).terms(draws=20_000, seed=1)
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
        Posterior(program, X).terms(draws=3).log_weight,
        Posterior(plain, X).terms(draws=3).log_weight,
    )


def test_deterministic_sites_have_no_density():
    terms = Posterior(Deterministic(), X).terms(draws=3)
    assert {*terms.prior, *terms.likelihood} == {"z", "x"}


def test_log_weights_are_those_of_the_terms():
    program = TwoLayers()
    weights = Posterior(program, X).log_weight(draws=6, seed=4)
    assert weights.shape == (6, 9)
    assert torch.equal(weights, Posterior(program, X).terms(draws=6, seed=4).log_weight)


def test_a_point_mass_has_no_weights():
    with pytest.raises(InputError, match="Autoencoder is a point mass"):
        Posterior(Autoencoder((5,), likelihood="gaussian"), X).log_weight()


def test_a_weight_that_is_not_finite_names_datum_and_site(monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.scoring, "BLOCK_ELEMENTS", 2 * 5 * 2)
    program = Minimal()
    x = X.clone()
    x[7] = 1e30
    with pytest.raises(InputError, match="datum 7 .*site 'z'"):
        Posterior(program, x).log_weight(draws=2)
    with pytest.raises(InputError, match="datum 107 .*site 'z'"):
        Posterior(program, x, rows=torch.arange(100, 109)).log_weight(draws=2)


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Discrete])
def test_reducing_by_the_block_is_reducing_the_whole(kind, monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.scoring, "BLOCK_ELEMENTS", 4 * 5 * 2)
    program, done = kind(), []
    progress = Progress(lambda share, note: done.append(round(share * 7 * 9)), total=7 * 9)
    parts = Posterior(program, X).reduce(
        lambda terms: {"mean": terms.log_weight.mean(0)}, 7, 3, progress
    )
    whole = Posterior(program, X).terms(draws=7, seed=3).log_weight.mean(0)
    assert torch.equal(parts["mean"], whole)
    assert sum(done) == 7 * 9


def test_analytic_kl_is_what_the_draws_average_to():
    for kind in (Minimal, Discrete):
        program = kind()
        terms = Posterior(program, X).terms(draws=4000, seed=1, analytic=True)
        (exact,) = terms.analytic_kl.values()
        assert torch.allclose(exact, exact[0])  # no draw enters
        stderr = terms.kl.std(0) / 4000**0.5
        assert ((terms.kl.mean(0) - exact[0]).abs() < 5 * stderr).all()


def test_analytic_kl_is_masked_where_draws_are():
    terms = Posterior(Masked(), X).terms(draws=4000, analytic=True)
    stderr = terms.kl.std(0) / 4000**0.5
    assert ((terms.kl.mean(0) - terms.analytic_kl["z"][0]).abs() <= 5 * stderr).all()
    assert (terms.analytic_kl["z"][:, 1::2] == 0).all()


def test_a_flow_of_constant_volume_is_no_point_mass():
    assert Posterior(VolumePreserving(), X).log_weight(draws=3).isfinite().all()


def test_supports_that_move_are_refused():
    assert set(Posterior(TwoLayers(), X).sites.supports()) == {"z1", "z2"}
    with pytest.raises(InputError, match="site 'z' has a support that depends"):
        Posterior(Nested(), X).sites.supports()


def test_there_is_no_analytic_kl_where_the_guide_has_another_order():
    assert Posterior(TwoLayers(), X).terms(analytic=True).analytic_kl == {}
    assert Posterior(Minimal(), X).terms().analytic_kl == {}


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Scaled])
def test_given_latents_are_scored_as_drawn_ones_are(kind):
    posterior = Posterior(kind(), X)
    with posterior.evaluation_mode(0):
        guide, _ = posterior.trace(4)
        latents = {site: guide.nodes[site]["value"] for site in posterior.sites.prior}
        found = posterior.score(latents)
        assert posterior.score(latents, with_guide=False).guide == {}
    for one, other in zip(found.tables(), posterior.terms(draws=4, seed=0).tables(), strict=True):
        for site, values in other.items():
            torch.testing.assert_close(one[site], values)


def test_latents_come_from_prior_or_guide():
    program = Minimal()
    posterior = Posterior(program, X)
    prior, guide = posterior.draw(5000, 0, "prior")["z"], posterior.draw(5000, 0)["z"]
    loc, raw = program.encoder(X).detach().chunk(2, -1)
    for drawn, mean, scale in ((prior, 0 * loc, torch.ones_like(loc)), (guide, loc, raw.exp())):
        assert drawn.shape == (5000, 9, 2)
        assert ((drawn.mean(0) - mean).abs() < 5 * scale / 5000**0.5).all()
        assert ((drawn.std(0) / scale - 1).abs() < 5 / 10000**0.5).all()


def test_likelihoods_that_are_discrete_are_known():
    assert Posterior(VAE((5,)), (X > 0).float()).sites.is_discrete
    assert not Posterior(Minimal(), X).sites.is_discrete
