"""Annealed and bidirectional bounds, held against evidence that is known exactly."""

import pyro
import pytest
import torch
from scipy.stats import chi2

from ppl_vae import Annealing, Estimate, InputError, Posterior, anneal, bidirectional
from ppl_vae.evidence.annealed import Annealed
from ppl_vae.evidence.annealing import _Path, anneal_both_ways
from ppl_vae.models import VAE, Autoencoder, LinearGaussian
from ppl_vae.programs.protocol import evaluation_mode
from ppl_vae.progress import Progress

from .misfits import NoModel
from .programs import (
    Discrete,
    Explodes,
    Flow,
    Minimal,
    Nested,
    Planar,
    Positive,
    TwoLayers,
)

starts = pytest.mark.parametrize("start", ["prior", "guide"])


def ppca(size=10, latent_dim=2):
    program = LinearGaussian((5,), latent_dim)
    return program, program.model(size=size).detach()


@starts
def test_the_bound_is_within_a_twentieth_of_a_nat_of_the_exact_evidence(start):
    program, x = ppca(50)
    found = anneal(program, x, Annealing(temperatures=60, start=start))
    assert abs((found.bound - program.evidence(x)).mean().item()) < 0.05
    assert found.log_weight.shape == (16, 50)


def mean_weight_relative_to_evidence(repeats, start):
    """Mean and standard error, over repeats of everything: pilot, chains, trajectories."""
    program, x = ppca(4)
    program.set_exact_guide()
    with torch.no_grad():
        program.encoder.bias += 0.3  # near the posterior, or weights would have no variance
    annealing = Annealing(chains=2, temperatures=6, leapfrog_steps=2, start=start)
    ratios = torch.stack(
        [
            (anneal(program, x, annealing, seed).bound - program.evidence(x)).exp().mean()
            for seed in range(repeats)
        ]
    )
    return ratios.mean().item(), ratios.std().item() / repeats**0.5


@starts
def test_weights_are_unbiased(start):
    mean, stderr = mean_weight_relative_to_evidence(40, start)
    assert stderr < 0.2
    assert abs(mean - 1) < 3 * stderr


@pytest.mark.slow
@starts
def test_weights_are_unbiased_over_200_repeats(start):
    mean, stderr = mean_weight_relative_to_evidence(200, start)
    assert abs(mean - 1) < 3 * stderr


def test_from_the_exact_posterior_every_weight_is_the_evidence():
    program, x = ppca()
    program.set_exact_guide()
    found = anneal(program, x, Annealing(chains=3, temperatures=5, start="guide"))
    torch.testing.assert_close(
        found.log_weight, program.evidence(x).detach().expand(3, -1), rtol=0, atol=1e-9
    )


@starts
def test_constrained_latents_bring_their_volume(start):
    program = Positive().double()
    x = torch.rand(30, 1, dtype=torch.float64) * 4
    found = anneal(program, x, Annealing(chains=64, temperatures=20, start=start))
    difference = (found.bound - program.evidence(x)).detach()
    assert abs(difference.mean().item()) < 0.05
    assert (difference.abs() < 5 * found.error + 0.02).all()


def test_several_sites_agree_with_importance_sampling():
    program, x = TwoLayers().double(), torch.randn(6, 5).double()
    found = anneal(program, x, Annealing(chains=64, temperatures=40))
    weights = Posterior(program, x).log_weight(draws=100_000)
    bound = weights.logsumexp(0) - torch.tensor(1e5).log()
    stderr = ((weights - bound).exp().var(0) / 1e5 + found.error.square()).sqrt()
    assert ((found.bound - bound).abs() < 5 * stderr).all()


def test_a_flow_starts_from_the_prior_only():
    program, x = Flow().double(), torch.randn(6, 5).double()
    plain = Flow.without(program).double()
    bounds = [anneal(p, x, Annealing(temperatures=30)) for p in (program, plain)]
    stderr = (bounds[0].error.square() + bounds[1].error.square()).sqrt()
    assert ((bounds[0].bound - bounds[1].bound).abs() < 5 * stderr).all()
    with pytest.raises(InputError, match="auxiliary site 'u'.*: use .* annealing from the prior"):
        anneal(program, x, Annealing(start="guide"))


@starts
def test_the_evidence_lies_between_the_two_bounds(start):
    program, _ = ppca()
    annealing = Annealing(temperatures=40, start=start)
    x, lower, upper = bidirectional(program, (5,), 60, annealing)
    exact = program.evidence(x).detach()
    below, above = exact - lower.bound, -upper.bound - exact
    for side in (below, above):
        assert side.mean() > -3 * side.std() / 60**0.5
    gap = -upper.bound - lower.bound
    assert gap.mean() < 0.2


def test_bad_chains_leave_a_gap_that_says_so():
    program, _ = ppca()
    _, lower, upper = bidirectional(
        program, (5,), 60, Annealing(chains=1, temperatures=2, leapfrog_steps=1)
    )
    assert (-upper.bound - lower.bound).mean() > 1


def test_reverse_chains_start_where_the_data_came_from():
    # One temperature: no transition, so that the reverse weight is that of the exact draw itself.
    program, _ = ppca()
    program.set_exact_guide()
    x, lower, upper = bidirectional(program, (5,), 5, Annealing(1, 1, start="guide"))
    exact = program.evidence(x).detach()
    torch.testing.assert_close(lower.bound, exact)
    torch.testing.assert_close(-upper.bound, exact)


def upper_bounds_over_seeds(repeats, size):
    """Upper bounds and gaps on the same data, of (repeats, size), and the errors printed."""
    program, x = ppca(size)
    posterior, annealing = Posterior(program, x), Annealing(8, temperatures=8, leapfrog_steps=3)
    found = []
    for seed in range(repeats):
        torch.manual_seed(seed)
        exact = {"z": program.posterior(x).sample()}
        lower, upper = anneal_both_ways(posterior, exact, annealing, seed, Progress())
        chains_alone = Annealed(upper.log_weight, upper.acceptance).error
        found.append([-upper.bound, -upper.bound - lower.bound, upper.error, chains_alone])
    return (torch.stack(values) for values in zip(*found, strict=True))


def test_the_upper_bounds_error_counts_that_its_chains_share_a_draw():
    repeats, size = 12, 100
    bound, gap, error, chains_alone = upper_bounds_over_seeds(repeats, size)
    # What the bound varies by over seeds, and the gap over data: the error lies in between.
    least, printed = bound.var(0), error.square().mean(1)
    most = gap.var(1)
    slack = 3 * (least.var() / size + printed.var() / repeats).sqrt()
    assert printed.mean() > least.mean() - slack
    assert printed.mean() < most.mean() + slack
    assert chains_alone.square().mean() < least.mean() - slack  # the chains do not see it


def test_the_error_of_the_mean_upper_bound_is_the_spread_over_data():
    program, _ = ppca()
    repeats, size, annealing = 20, 30, Annealing(4, temperatures=5, leapfrog_steps=1)
    above = []
    for seed in range(repeats):
        x, _, upper = bidirectional(program, (5,), size, annealing, seed)
        above.append(Estimate.of(-upper.bound - program.evidence(x).detach()))
    spread = torch.tensor([a.mean for a in above]).var().item()
    printed = torch.tensor([a.stderr**2 for a in above]).mean().item()
    low, high = chi2.ppf([1e-3, 1 - 1e-3], repeats - 1) / (repeats - 1)
    assert low < spread / printed < high


def test_the_upper_bound_of_a_single_datum_has_no_error():
    program, _ = ppca()
    _, lower, upper = bidirectional(program, (5,), 1, Annealing(4, 3, 1))
    assert upper.error.isnan().all()
    assert lower.error.isfinite().all()
    # Single chains tell nothing; the spread of the gap over data does.
    _, lower, upper = bidirectional(program, (5,), 9, Annealing(1, 3, 1))
    gap = -upper.bound - lower.bound
    torch.testing.assert_close(upper.error, gap.std().expand(9))


def test_step_sizes_reach_the_acceptance_they_aim_at():
    program, x = ppca(20)
    found = anneal(program, x, Annealing(temperatures=150))
    # Aimed at 0.65; too long or too short a step would give 0 or 1.
    assert ((found.acceptance > 0.45) & (found.acceptance < 0.85)).all()


def test_blocks_of_data_are_put_together_in_order(monkeypatch):
    program, _ = ppca()
    monkeypatch.setattr("ppl_vae.evidence.annealing.BLOCK_ROWS", 16 * 12)
    drawn, lower, upper = bidirectional(program, (5,), 20, Annealing(temperatures=40))
    exact = program.evidence(drawn)
    # Were data and bounds mixed up, they would differ by the spread of log p(x).
    assert exact.std() > 1
    assert (lower.bound - exact).abs().max() < 0.6
    assert (-upper.bound - exact).abs().max() < 0.6


def test_same_seed_same_bits_and_nothing_else_moves():
    program, x = ppca()
    pyro.clear_param_store()
    state = torch.get_rng_state()
    annealing = Annealing(chains=2, temperatures=5)
    first, same, other = (anneal(program, x, annealing, seed).log_weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0
    assert all(p.grad is None for p in program.parameters())


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_work_is_told_beforehand(both_ways):
    program, x = ppca()
    annealing, done = Annealing(chains=3, temperatures=7), []

    def told(share, note):
        done.append(share)

    if both_ways:
        bidirectional(program, (5,), len(x), annealing, on_progress=told)
    else:
        anneal(program, x, annealing, on_progress=told)
    assert sum(done) == pytest.approx(1)


def test_single_precision_is_enough_for_images():
    vae = VAE((1, 8, 8), latent_dim=3, hidden=(16,))
    x, lower, upper = bidirectional(vae, (1, 8, 8), 8, Annealing(temperatures=60))
    assert x.dtype == torch.float32
    assert abs((-upper.bound - lower.bound).mean()) < 0.5


def test_what_cannot_be_annealed_is_refused():
    x = torch.randn(4, 5)
    with pytest.raises(InputError, match="latent site 'k' is discrete"):
        anneal(Discrete(), x)
    for start in ("prior", "guide"):
        # The autoencoder's prior is masked: without a density there is nothing to anneal from.
        with pytest.raises(InputError, match="point mass"):
            anneal(Autoencoder((5,), likelihood="gaussian"), x, Annealing(start=start))
    with pytest.raises(InputError, match="takes x of shape"):
        anneal(Minimal(), torch.randn(4, 6))
    with pytest.raises(InputError, match="a flow at site 'z' that cannot be inverted"):
        anneal(Planar(), x, Annealing(start="guide"))
    with pytest.raises(InputError, match="latent site 'z' has a support that depends on a draw"):
        anneal(Nested(), x)
    with pytest.raises(InputError, match="NoModel is not a program"):
        bidirectional(NoModel(), (5,), 3)
    with pytest.raises(InputError, match="size must be an integer of at least 1"):
        bidirectional(Minimal(), (5,), 0)
    with pytest.raises(InputError, match="chains must be at most 4096"):
        Annealing(chains=5000)
    for name in ("chains", "temperatures", "leapfrog_steps"):
        for bad in (0, 2.5, True):
            with pytest.raises(InputError, match=f"{name} must be an integer"):
                Annealing(**{name: bad})
    with pytest.raises(InputError, match="start must be one of"):
        Annealing(start="posterior")


def test_weights_that_are_not_finite_name_the_datum():
    with pytest.raises(InputError, match="datum 0 has an annealed weight that is not finite"):
        anneal(Explodes(calls=6), torch.randn(4, 5), Annealing(chains=2, temperatures=2))


def test_planar_flows_are_annealed_from_the_prior():
    program, x = Planar().double(), torch.randn(6, 5).double()
    found = anneal(program, x, Annealing(temperatures=30))
    draws = Posterior(program, x).log_weight(draws=50_000)
    bound = draws.logsumexp(0) - torch.tensor(5e4).log()
    stderr = ((draws - bound).exp().var(0) / 5e4 + found.error.square()).sqrt()
    assert ((found.bound - bound).abs() < 5 * stderr).all()


def test_a_single_chain_has_no_error_and_no_warning():
    program, x = ppca()
    found = anneal(program, x, Annealing(chains=1, temperatures=1))
    assert found.error.isnan().all()
    assert found.acceptance.isnan().all()
    assert found.bound.isfinite().all()


def test_transitions_leave_the_posterior_as_it_is():
    program, x = ppca(1)
    posterior = program.posterior(x)
    chains = 40_000
    state = {"z": posterior.sample((chains,))}
    with evaluation_mode(program, 0):
        path = _Path(Posterior(program, x), Annealing(leapfrog_steps=3), Progress())
        # So long a step that many proposals must be refused: those accepted all would spread.
        step = 1.3 * posterior.covariance_matrix.detach()[0].diagonal().min().sqrt().expand(1)
        for _ in range(10):
            state, probability = path.move(state, torch.tensor(1.0), step)
    assert 0.3 < probability.mean() < 0.9
    z = state["z"][:, 0]
    variance = posterior.variance.detach()[0]
    assert ((z.mean(0) - posterior.mean.detach()[0]).abs() < 4 * (variance / chains).sqrt()).all()
    assert ((z.var(0) / variance - 1).abs() < 4 * (2 / chains) ** 0.5).all()
