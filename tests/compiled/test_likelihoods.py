"""Every likelihood is captured as one graph, with cells that are missing and without."""

import pytest
import torch

from ppl_vae.models import LIKELIHOODS, VAE, registration

from ..likelihood_cases import made
from .both import compare, svi_of


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize(
    ("name", "masked"), [*((name, True) for name in LIKELIHOODS), ("columns", False)]
)
def test_likelihoods_are_captured(name, masked):
    def program(kind):
        likelihood = made(name)
        vae = VAE(likelihood.data_shape, 3, (8,), likelihood=likelihood).double()
        registration._names[vae] = "vae"  # a name that both have
        with torch.no_grad():
            x = vae.model(size=20)
        mask = {"mask": torch.rand(x.shape) < 0.6} if masked else {}
        given = {"exposure": 1 + torch.rand(20).double()} if likelihood.takes_exposure else {}
        svi = svi_of(kind, vae.model, vae.guide)
        for _ in range(6):
            yield svi.step(x, **mask, **given)
        yield svi.evaluate_loss(x, **mask, **given)

    outcome = compare(program)
    assert outcome.graphs == 1
    assert outcome.reasons == []
