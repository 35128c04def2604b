"""Full-size versions: what the README promises of MNIST, minutes each; see `make test-all`."""

import pytest

import ppl_vae
from ppl_vae.models import VAE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fitted(mnist_dir):
    data = ppl_vae.load_data("mnist", data_dir=mnist_dir, binarize="dynamic")
    vae = VAE(data.shape)
    ppl_vae.fit(vae, data, ppl_vae.Settings(seed=1), progress=False)
    return vae, data


def test_the_default_fit_of_mnist_reaches_its_figure(fitted):
    vae, data = fitted
    figures = ppl_vae.evaluate(vae, data.fixed("test"))
    assert figures["elbo"].mean > -96
    assert figures["iw_bound"].mean > figures["elbo"].mean + 1


def test_the_bidirectional_gap_of_mnist_is_below_a_nat(fitted):
    vae, data = fitted
    _, lower, upper = ppl_vae.bidirectional(vae, data.shape, size=50)
    gap = -upper.bound - lower.bound
    assert -3 * gap.std() / 50**0.5 < gap.mean() < 1
