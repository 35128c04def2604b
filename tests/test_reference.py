"""Question 4: NUTS, against posteriors that are known."""

import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy.stats import chi2, norm

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics import reference
from ppl_vae.diagnostics.reference import ask_reference, compare_with
from ppl_vae.inference import nuts
from ppl_vae.inference.nuts import sample_posterior
from ppl_vae.runtime import derived_seed

from . import programs, tables
from .yardsticks import MeanField, by_quadrature, draw, ppca, spoil, with_covariates

pytestmark = pytest.mark.usefixtures("whole_chains")


@pytest.fixture(scope="module")
def exact(whole_chains):
    """Data of a posterior without correlations, and NUTS's draws for them."""
    program = ppca()
    x = draw(program, 6)
    return x, sample_posterior(Posterior(program, x), derived_seed(0, "NUTS"))


def test_nuts_draws_from_the_posterior(exact):
    x, draws = exact
    posterior = ppca().posterior(x)
    answer = compare_with(Posterior(ppca(), x), draws, 0)
    found = answer.groups["nuts"]
    z = found["z"].values.reshape(-1, 6, 2)
    scale = posterior.stddev.detach().numpy()
    error = scale / np.sqrt(found["ess"].values)
    assert (np.abs(z.mean(0) - posterior.mean.detach().numpy()) < 4.5 * error).all()
    assert (np.abs(z.std(0) / scale - 1) < 4.5 * found["scale_ratio_stderr"].values).all()
    assert found["r_hat"].max() < reference.nuts.MOST_R_HAT
    assert answer.verdict.grade == "pass"
    assert (np.abs(found["mean_error"]) < 4.5 * found["mean_error_stderr"]).all()


def test_a_graph_of_the_posterior_moves_chains_as_pyro_does(monkeypatch):
    monkeypatch.setattr(nuts, "WARMUP", 20)
    monkeypatch.setattr(nuts, "DRAWS", 20)
    program = ppca()
    posterior = Posterior(program, draw(program, 3))
    drawn = sample_posterior(posterior, seed=4)["z"]
    with poutine.trace() as traced:  # under a handler all goes through Pyro
        beside = sample_posterior(posterior, seed=4)["z"]
    assert torch.allclose(drawn, beside, rtol=1e-6, atol=1e-9)
    # It sees where chains start, and none of their steps.
    assert traced.trace.nodes.keys() <= {"_draws", "data", "z", "x"}


def test_chains_go_on_where_they_have_not_mixed(monkeypatch):
    monkeypatch.setattr(nuts, "WARMUP", 60)
    monkeypatch.setattr(nuts, "DRAWS", 100)
    program = ppca()
    posterior, counts = Posterior(program, draw(program, 3)), []
    for most in (10.0, 0.5):  # none is that low
        monkeypatch.setattr(nuts, "MOST_R_HAT", most)
        monkeypatch.setattr(nuts, "LEAST_ESS", 1)
        counts.append(sample_posterior(posterior, seed=4)["z"])
    assert [len(draws) for draws in counts] == [100, 200]
    assert torch.equal(counts[0], counts[1][:100])  # the same chains


def test_nuts_finds_correlations(monkeypatch):
    monkeypatch.setattr(nuts, "DRAWS", 250)  # enough for a correlation
    program = MeanField()
    x = draw(program, 2)
    draws = sample_posterior(Posterior(program, x), derived_seed(0, "NUTS"))["z"].flatten(0, 1)
    for n in range(2):
        assert np.corrcoef(draws[:, n].T)[0, 1] == pytest.approx(0.9, abs=0.05)


def test_nuts_moves_constrained_latents():
    program = programs.Positive()
    x = torch.tensor([[0.3], [1.0], [4.0]])
    z = sample_posterior(Posterior(program, x), derived_seed(0, "NUTS"))["z"].flatten(0, 1).double()
    # The posterior is Gamma(a + 1, b + x).
    shape, rate = program.shape + 1, program.rate + x[:, 0].double()
    assert (z > 0).all()
    error = shape**0.5 / rate / 300**0.5
    assert ((z.mean(0) - shape / rate).abs() < 4.5 * error).all()
    assert ((z.std(0) - shape**0.5 / rate).abs() < 4.5 * error).all()


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.0), (2.0, 0.0), (1.0, 0.5)])
def test_errors_and_c2st_of_a_spoilt_guide_are_known(exact, scale, shift):
    x, draws = exact
    answer = compare_with(Posterior(spoil(ppca(), scale, shift), x), draws, 0)
    found = answer.groups["nuts"]
    ratio, error = found["scale_ratio"].values, found["scale_ratio_stderr"].values
    assert (np.abs(ratio - scale) < 4.5 * error).all()
    moved, error = found["mean_error"].values, found["mean_error_stderr"].values
    assert (np.abs(moved - shift) < 4.5 * error).all()
    # The best classifier is right in 1/2 + TV/2 of cases: for two units, by their squared radius.
    if shift:
        both, one = (2 * norm.cdf(shift * units**0.5 / 2) - 1 for units in (2, 1))
    else:
        narrow, wide = sorted((1.0, scale))
        edge = 4 * math.log(wide / narrow) / (1 / narrow**2 - 1 / wide**2)
        both = math.exp(-edge / 2 / wide**2) - math.exp(-edge / 2 / narrow**2)
        end = (edge / 2) ** 0.5
        one = 2 * norm.cdf(end / narrow) - 2 * norm.cdf(end / wide)
    assert total_variation_of(found) == pytest.approx(both, abs=4.5 * error_of(found) + 0.02)
    distances = np.sqrt(found["squared_distance"].values.mean(0))
    # Six data, of 2000 draws each and of as many by NUTS, worth the fewer.
    worth = np.minimum(found["ess_bulk"], found["ess_tail"]).values.min()
    error = math.sqrt((0.25 / worth + 0.25 / 2000) / 6)
    assert np.abs(distances - one).max() < 4.5 * error
    assert answer.verdict.grade == ("caution" if shift else "fail")  # 0.5 is where failure begins
    assert answer.verdict.value == pytest.approx(distances.max())


def total_variation_of(found):
    """2 accuracy - 1 of the classifier, over all data."""
    return 2 * np.average(found["c2st"], weights=found["tested"]) - 1


def error_of(found):
    return 1 / math.sqrt(float(found["tested"].sum()))


def independent(program, x, seed=0, draws=500):
    """Draws from the exact posterior of :func:`ppca`, as four chains that mix at once."""
    torch.manual_seed(seed)
    return program.posterior(x).sample((draws, nuts.CHAINS)).detach()


@pytest.mark.parametrize("units", [1, 2, 10])
@pytest.mark.parametrize(("shift", "grade"), [(0.1, "pass"), (0.35, "caution"), (0.8, "fail")])
def test_a_mean_that_is_off_is_graded_alike_in_any_number_of_units(units, shift, grade):
    program = ppca((2.0,) * units, dim=12)
    x = draw(program, 8)
    z = independent(program, x)
    answer = compare_with(Posterior(spoil(program, shift=shift), x), {"z": z}, 0)
    assert answer.verdict.grade == grade
    exact = 2 * norm.cdf(units**0.5 * shift / 2) - 1
    found = answer.groups["nuts"]
    assert total_variation_of(found) == pytest.approx(exact, abs=4.5 * error_of(found) + 0.02)


@pytest.mark.parametrize("units", [1, 10])
def test_a_guide_that_misses_one_of_two_modes_fails(units):
    program = ppca((2.0,) * units, dim=12)
    x = draw(program, 8)
    z = independent(program, x)
    torch.manual_seed(1)
    z[..., 0] += 4.0 * torch.randint(2, z.shape[:-1])  # nine standard deviations away
    answer = compare_with(Posterior(program, x), {"z": z}, 0)
    assert answer.verdict.grade == "fail"
    assert answer.verdict.value == pytest.approx(0.5, abs=0.03)
    assert "z[0]" in answer.verdict.meaning
    assert answer.groups["nuts"]["mixed"].all()
    assert answer.groups["nuts"]["c2st"].mean() < 0.8  # below the 0.79 of failure in ten units


def test_too_few_data_leave_it_open_and_the_number_that_would_do_is_named():
    program = ppca()
    x = draw(program, 16)
    z = independent(program, x)
    guide = spoil(program, shift=0.15)  # of a total variation of 0.06; caution begins at 0.1
    answer = compare_with(Posterior(guide, x[:1]), {"z": z[:200, :, :1]}, 0)
    assert answer.verdict.grade == "cannot say"
    assert answer.verdict.remedy.startswith("more data: some ")
    assert compare_with(Posterior(guide, x), {"z": z}, 0).verdict.grade == "pass"


def test_draws_that_depend_on_each_other_are_thinned():
    # Chains of first order whose law is the posterior, and a guide that is all but exact.
    size, memory, draws = 50, 0.75, 1000
    program = ppca()
    x, generator = draw(program, size), torch.Generator().manual_seed(0)
    posterior = program.posterior(x)
    state, chain = torch.randn(nuts.CHAINS, size, 2, generator=generator), []
    for _ in range(draws):
        noise = torch.randn(state.shape, generator=generator)
        state = memory * state + (1 - memory**2) ** 0.5 * noise
        chain.append(posterior.mean + posterior.stddev * state)
    answer = compare_with(
        Posterior(spoil(program, 0.999), x), {"z": torch.stack(chain).detach()}, 0
    )
    found = answer.groups["nuts"]
    z = (found["c2st"] - 0.5) / (0.5 / found["tested"] ** 0.5)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], size)
    assert low < float((z**2).sum()) < high
    assert found["tested"].mean() < 2400  # of 4000
    assert abs(total_variation_of(found)) < 4 * error_of(found)
    # And distances of units count each chain for what it is worth.
    squared = found["squared_distance"].values
    assert squared.mean() < 4 * squared.std() / squared.size**0.5
    assert (squared < 0).any()


def test_nuts_is_given_covariates():
    answer = ask_reference(Posterior(*with_covariates(tables.Incomplete, 3)), 0)
    assert answer.verdict.grade == "pass"
    found = answer.groups["nuts"]
    assert (np.abs(found["mean_error"]) < 4.5 * found["mean_error_stderr"]).all()


def test_nuts_sees_all_observed_sites():
    posterior = Posterior(*with_covariates(tables.Labelled, 3))
    z = sample_posterior(posterior, 0)["z"].flatten(0, 1)
    _, mean = by_quadrature(posterior)
    assert ((z.mean(0) - mean).abs() < 4.5 * (z.var(0) / 300).sqrt()).all()


def test_guides_whose_density_is_not_known_are_told_apart_by_their_draws():
    torch.manual_seed(0)
    flow = programs.Flow()
    found = ask_reference(Posterior(flow, torch.randn(2, 5)), 0).groups["nuts"]
    assert (found["c2st"] > 0.55).all()


def test_chains_that_do_not_mix_are_no_reference(exact):
    x, draws = exact
    apart = {"z": draws["z"] + 10 * torch.arange(nuts.CHAINS)[None, :, None, None]}
    with pytest.raises(ppl_vae.InputError, match="did not mix"):
        compare_with(Posterior(ppca(), x), apart, 0)
    some = {"z": draws["z"].clone()}
    some["z"][:, :, 0] += 10 * torch.arange(nuts.CHAINS)[None, :, None]
    answer = compare_with(Posterior(ppca(), x), some, 0)
    assert answer.groups["nuts"]["mixed"].values.tolist() == [False] + 5 * [True]
    assert "1 of 6 data did not mix" in answer.verdict.meaning
    assert answer.verdict.grade == "cannot say"  # that datum may be the one that is missed
    assert "did not mix" in answer.verdict.remedy
    found = compare_with(Posterior(spoil(ppca(), scale=0.5), x), some, 0)
    assert found.verdict.grade == "fail"  # on those that mixed
    some["z"][:, :, :4] += 10 * torch.arange(nuts.CHAINS)[None, :, None, None]
    answer = compare_with(Posterior(ppca(), x), some, 0)
    assert answer.verdict.grade == "cannot say"
    assert answer.groups["nuts"]["mixed"].values.tolist() == 4 * [False] + 2 * [True]


def test_discrete_latents_say_nothing():
    with pytest.raises(ppl_vae.InputError, match="discrete"):
        ask_reference(Posterior(programs.Discrete(), torch.randn(2, 5)), 0)


def test_programs_are_as_they_were_after_it():
    torch.manual_seed(0)
    program = programs.Minimal()
    before = {k: v.clone() for k, v in program.state_dict().items()}
    ask_reference(Posterior(program, torch.randn(2, 5)), 0)
    assert all(torch.equal(v, before[k]) for k, v in program.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in program.parameters())
