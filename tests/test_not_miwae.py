"""A model of which values are missing: against quadrature, and its draws against themselves."""

import pytest
import torch
from scipy.stats import norm

from ppl_vae import Posterior, impute
from ppl_vae.models import NotMIWAE
from ppl_vae.objectives.forward import draw_pairs
from ppl_vae.programs.predictions import simulate

WEIGHT, NOISE, BIAS, SLOPE = 1.5, 0.5, 0.5, -2.0
GRID = torch.linspace(-8, 8, 4001).double()


@pytest.fixture
def program():
    """Two values, x = 1.5 z + 0.5 e, of which large ones are missing more often."""
    torch.manual_seed(0)
    made = NotMIWAE((2,), 1, (), encoder_hidden=(), likelihood_scale=NOISE).double()
    with torch.no_grad():
        made.decoder.mlp[0].weight.fill_(WEIGHT)
        made.decoder.mlp[0].bias.zero_()
        # A guide N(x_1 / 2, 0.7) is near enough, and wide.
        made.encoder.mlp[0].weight.copy_(torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
        made.encoder.mlp[0].bias.zero_()
        made.bias.fill_(BIAS)
        made.slope.fill_(SLOPE)
    return made


def seen(x):
    return torch.sigmoid(BIAS + SLOPE * x)


def given_the_first(first):
    """log p(x_1, x_2 missing), and E[x_2 | x_1, missing], over a grid of x_2."""
    z_mean = WEIGHT * first / (WEIGHT**2 + NOISE**2)
    z_var = 1 / (1 + WEIGHT**2 / NOISE**2)
    sd = (WEIGHT**2 * z_var + NOISE**2) ** 0.5
    density = torch.as_tensor(norm(WEIGHT * z_mean, sd).pdf(GRID.numpy())) * (1 - seen(GRID))
    step = GRID[1] - GRID[0]
    chance = density.sum() * step
    marginal = norm(0, (WEIGHT**2 + NOISE**2) ** 0.5).logpdf(first)
    log_p = marginal + seen(torch.tensor(first)).log() + chance.log()
    return log_p, (density * GRID).sum() * step / chance


def test_evidence_and_imputation_are_those_of_quadrature(program):
    firsts = [-1.0, 0.5, 2.0]
    x = torch.tensor([[first, 0.0] for first in firsts]).double()
    mask = torch.tensor([[True, False]] * len(firsts))
    draws = 40_000
    weights = Posterior(program, {"x": x, "mask": mask}).log_weight(draws, seed=1)
    bound = weights.logsumexp(0) - torch.tensor(float(draws)).log()
    error = (weights - bound).exp().std(0) / draws**0.5
    found = impute(program, {"x": x, "mask": mask}, 4000, target="guide")
    for place, first in enumerate(firsts):
        log_p, mean = given_the_first(first)
        assert abs(bound[place] - log_p) < 4 * error[place]
        off = abs(float(found["x"][place, 1]) - mean)
        assert off < 4 * float(found["sd"][place, 1]) / 400**0.5


def test_the_mask_is_drawn_from_the_data_that_come_with_it(program):
    size = 20_000
    template = {"x": torch.zeros(size, 2).double(), "mask": torch.rand(size, 2) < 0.5}
    by_simulation = simulate(program, Posterior(program, template).batch, size, 0).batch
    _, by_pairs = draw_pairs(program.model, Posterior(program, template).batch)
    for drawn in (by_simulation, by_pairs):
        assert drawn["mask"].dtype == torch.bool
        residual = (drawn["mask"].double() - seen(drawn["x"])) * drawn["x"]
        assert abs(residual.mean()) < 4 * residual.std() / (2 * size) ** 0.5


def test_likelihoods_without_a_gradient_along_draws_are_refused():
    with pytest.raises(ValueError, match="without a gradient"):
        NotMIWAE((2,), 1, likelihood="bernoulli")
