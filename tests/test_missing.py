"""VAEs of data of which cells are missing: log p is that of the observed ones."""

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.data.batch import Batch
from ppl_vae.data.missing import observed
from ppl_vae.errors import InputError
from ppl_vae.models import LIKELIHOODS, VAE, Autoencoder
from ppl_vae.programs.conformance import check_program

from .likelihood_cases import made
from .tables import exact_posterior

UNITS = [{"name": str(i), "loc": 10.0 * i, "scale": 1.0 + i} for i in range(5)]


class Exact(VAE):
    """A VAE with a linear decoder, and p(z | observed cells) for a guide."""

    def encode(self, x, mask=None):
        likelihood, layer = self.likelihood, self.decoder.mlp[0]
        standard = (x - likelihood.center) / likelihood.unit - layer.bias
        noise = likelihood.scale / likelihood.unit
        seen = torch.ones_like(x) if mask is None else mask.to(x)
        return exact_posterior(layer.weight / noise[:, None], standard / noise, seen)

    def evidence(self, x, mask):
        """log p of the observed cells, of shape (N,): a marginal of a normal distribution."""
        likelihood, layer = self.likelihood, self.decoder.mlp[0]
        loading = likelihood.unit[:, None] * layer.weight
        loc = likelihood.center + likelihood.unit * layer.bias
        covariance = loading @ loading.T + likelihood.scale.square().diag()
        rows = []
        for row, seen in zip(x, mask, strict=True):
            normal = torch.distributions.MultivariateNormal(loc[seen], covariance[seen][:, seen])
            rows.append(normal.log_prob(row[seen]))
        return torch.stack(rows)


def test_what_is_observed_lies_where_the_data_do():
    x = torch.zeros(3, 2, device="meta")
    for mask in ({}, {"mask": torch.ones(3, device="meta")}, {"mask": torch.ones_like(x)}):
        seen = observed(x, mask)
        assert (seen.device, seen.dtype, seen.shape) == (x.device, torch.bool, x.shape)


@torch.no_grad()
def test_evidence_is_the_marginal_of_the_observed_cells():
    vae = Exact((5,), 2, (), likelihood="gaussian", columns=UNITS).double()
    vae.likelihood.raw_scale.add_(torch.randn(5))
    x = vae.model(size=60)
    mask = torch.rand(60, 5) < 0.5
    mask[~mask.any(1), 0] = True
    batch = Batch(x=x * mask, mask=mask)
    log_weight = Posterior(vae, batch).log_weight(7, seed=1)
    exact = vae.evidence(x, mask)
    torch.testing.assert_close(log_weight, exact.expand(7, 60), rtol=1e-9, atol=1e-9)
    found = ppl_vae.evaluate(vae, batch)
    assert found["elbo"].mean == pytest.approx(exact.mean().item(), rel=1e-9)
    assert "bits_per_dim" not in found


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_missing_cells_change_nothing(name, kind):
    likelihood = made(name)
    program = kind(likelihood.data_shape, 2, (8,), likelihood=likelihood).double()
    with torch.no_grad():
        x = program.model(size=9)
    mask = torch.rand(x.shape) < 0.5
    losses = []
    for nothing in (0.0, 1.0, -7.3, torch.nan):
        given = torch.where(mask, x, nothing)
        pyro.set_rng_seed(1)
        losses.append(Trace_ELBO().loss(program.model, program.guide, given, mask=mask))
        check_program(program, Batch(x=given, mask=mask))
    assert np.ptp(losses) == 0
    assert np.isfinite(losses).all()
    pyro.set_rng_seed(1)
    complete = Trace_ELBO().loss(program.model, program.guide, x)
    pyro.set_rng_seed(1)
    seen = torch.ones_like(mask)
    assert Trace_ELBO().loss(program.model, program.guide, x, mask=seen) == complete
    assert losses[0] != complete


def test_an_observed_cell_outside_the_support_is_still_found():
    vae = VAE((2,), 2, (4,), likelihood="lognormal")
    mask = torch.tensor([[False, True], [True, False], [True, True]])
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 0.5]])
    check_program(vae, Batch(x=x, mask=mask))
    x[2, 0] = -4.0
    with pytest.raises(InputError, match="datum 2: -4 lies outside the support of the lognormal"):
        check_program(vae, Batch(x=x, mask=mask))


def test_masks_of_zeros_and_ones_are_masks():
    x, seen = np.arange(120.0).reshape(40, 3), np.tile(1 - np.eye(3)[:2], (20, 1))
    vae = VAE((3,), 1, (4,), likelihood="gaussian").double()
    losses = []
    for mask in (seen, seen.astype(int), seen.astype(bool)):
        batch = ppl_vae.make_data(x, covariates={"mask": mask}).batch("train")
        assert batch["mask"].dtype == torch.bool
        pyro.set_rng_seed(1)
        losses.append(Trace_ELBO().loss(vae.model, vae.guide, batch.x, mask=batch["mask"]))
    assert losses[0] == losses[1] == losses[2]


def test_likelihoods_of_ones_own_are_masked_too():
    class Noise(torch.nn.Module):
        def forward(self, output):
            return pyro.distributions.Normal(output, 1.0)

    vae = VAE((3,), 2, (4,), likelihood=Noise())
    x, mask = torch.randn(4, 3), torch.tensor([True, False, True]).expand(4, 3)
    losses = []
    for nothing in (0.0, 5.0):
        pyro.set_rng_seed(1)
        given = torch.where(mask, x, nothing)
        losses.append(Trace_ELBO().loss(vae.model, vae.guide, given, mask=mask))
    assert losses[0] == losses[1]


def test_an_exposure_without_use_is_refused():
    x, exposure = torch.rand(4, 3).round(), torch.ones(4)
    vae = VAE((3,), 2, (4,))
    with pytest.raises(ValueError, match="exposure was given, but the likelihood Bernoulli has no"):
        vae.model(x, exposure=exposure)
    counts = VAE((3,), 2, (4,), likelihood="poisson")
    assert counts.model(x, exposure=exposure) is x
    check_program(counts, Batch(x=x, exposure=exposure))
