"""What docs/benchmarks.md says of MNIST, at full size: minutes each; see `make test-all`."""

import pytest

import ppl_vae
from ppl_vae.models import VAE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_chains")]


@pytest.fixture(scope="module")
def fitted(mnist_dir):
    data = ppl_vae.load_data("mnist", data_dir=mnist_dir, binarize="dynamic")
    vae = VAE(data.shape)
    ppl_vae.fit(vae, data, ppl_vae.Settings(seed=1), progress=False)
    return vae, data


def test_the_default_fit_of_mnist_reaches_its_elbo(fitted):
    vae, data = fitted
    estimates = ppl_vae.evaluate(vae, data.fixed("test"))
    assert estimates["elbo"].mean > -96
    assert estimates["iw_bound"].mean > estimates["elbo"].mean + 1


def test_the_bidirectional_gap_of_mnist_is_below_a_nat(fitted):
    vae, data = fitted
    _, lower, upper = ppl_vae.bidirectional(vae, data.shape, size=50)
    gap = -upper.bound - lower.bound
    assert -3 * gap.std() / 50**0.5 < gap.mean() < 1


def test_the_diagnosis_of_mnist_agrees_with_its_evaluation(fitted):
    vae, data = fitted
    effort = ppl_vae.Effort(data_points=500, gap_points=100, nuts_points=4)
    found = ppl_vae.diagnose(vae, data, effort)
    assert "cannot say" not in {verdict.grade for verdict in found.verdicts.values()}
    gaps = found.inference_data.gaps
    total = (gaps["approximation_gap"] + gaps["amortization_gap"]).values
    # The refined guide's bound is the tighter one: by more than the amortized guide's own.
    at_least = ppl_vae.score(vae, data.fixed("test")[:100], draws=1000).per_datum["kl_to_posterior"]
    assert total.mean() > at_least.mean() > 1
    assert (gaps["approximation_gap"] > -0.1).all()
    assert found.verdicts["coverage"].grade != "pass"  # a normal guide of 50 units
    nuts = found.inference_data.nuts
    assert nuts["mixed"].all()
