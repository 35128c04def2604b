"""Every family of guides and every prior is captured as one graph."""

import pytest
import torch

from ppl_vae.models import GUIDES, PRIORS, VAE, registration

from .both import compare, svi_of

PAIRS = [
    *((guide, "standard") for guide in GUIDES),
    *(("diagonal", prior) for prior in PRIORS if prior != "standard"),
    *((guide, "vamp") for guide in ("full", "mixture", "flow")),
]


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize(("guide", "prior"), PAIRS)
def test_guides_and_priors_are_captured(guide, prior):
    def program(kind):
        vae = VAE((5,), 3, (8,), guide=guide, prior=prior)
        registration._names[vae] = "vae"  # a name that both have
        x = (torch.randn(20, 5) > 0).double()
        svi = svi_of(kind, vae.model, vae.guide)
        for _ in range(12):
            yield svi.step(x)
        yield svi.evaluate_loss(x)

    outcome = compare(program)
    assert outcome.graphs == 1
    assert outcome.reasons == []
