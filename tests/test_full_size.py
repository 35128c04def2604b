"""Full-size versions: what the README promises of MNIST, minutes each; see `make test-all`."""

import pytest

import ppl_vae
from ppl_vae.models import VAE

pytestmark = pytest.mark.slow


def test_the_default_fit_of_mnist_reaches_its_figure(mnist_dir):
    data = ppl_vae.load_data("mnist", data_dir=mnist_dir, binarize="dynamic")
    vae = VAE(data.shape)
    ppl_vae.fit(vae, data, ppl_vae.Settings(seed=1), progress=False)
    figures = ppl_vae.evaluate(vae, data.fixed("test"))
    assert figures["elbo"].mean > -96
    assert figures["iw_bound"].mean > figures["elbo"].mean + 1
