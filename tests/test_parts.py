"""Guides and priors: normalized, right at any value and along draws, exact where that is known."""

import math
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import MultivariateNormal, kl_divergence

from ppl_vae import Posterior
from ppl_vae.models import GUIDES, PRIORS, VAE, Decoder, Encoder
from ppl_vae.models.distributions import Coupled, Coupling
from ppl_vae.models.guides.spline import SplineCoupling
from ppl_vae.models.networks import inverse_positive

NOISE = 0.75  # as exact in single precision, which likelihoods round to
every_guide = pytest.mark.parametrize("guide", GUIDES)


def shaken(part, spread=0.4):
    """A part in double precision, away from where it begins; a flow's networks are 64 wide."""
    part = part.double()
    spread = spread / 4 if hasattr(part, "couplings") else spread
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return part


def linear(latent_dim=3, size=6, **options):
    """Probabilistic PCA as a VAE: linear networks, Gaussian noise."""
    options = {"likelihood": "gaussian", "likelihood_scale": NOISE, "hidden": (), **options}
    vae = VAE((size,), latent_dim, **options).double()
    with torch.no_grad():
        vae.decoder.mlp[0].weight.normal_()
    return vae


def parts():
    """A distribution of two units of each guide and each prior, made anew at each call."""
    made = {}
    for name, kind in GUIDES.items():
        torch.manual_seed(0)  # each part is the same, whatever others there are
        family = shaken(kind(latent_dim=2))
        features = 0.7 * torch.randn(family.features, dtype=torch.float64)
        made[f"guide {name}"] = lambda f=family, x=features: f(x)
    for name in PRIORS:
        torch.manual_seed(0)
        vae = VAE((5,), 2, (8,), prior=name).double()
        shaken(vae.prior, spread=0.2)  # and nearly all of it is on the grid below
        made[f"prior {name}"] = lambda vae=vae: vae.prior(vae.encode)
    return made


PARTS = list(parts())
every_part = pytest.mark.parametrize("name", PARTS)


def on_a_grid(distribution):
    """Log densities on a grid, and the area of a cell."""
    axis = torch.linspace(-15, 15, 1201, dtype=torch.float64)
    return distribution.log_prob(torch.cartesian_prod(axis, axis)), (axis[1] - axis[0]) ** 2


@every_part
@torch.no_grad()
def test_densities_integrate_to_one_and_draws_have_them(name):
    make = parts()[name]
    log_density, area = on_a_grid(make())
    density = log_density.exp()
    # Smooth and zero at the edges: sums on a grid are then exact to machine precision. Where pieces
    # of a spline meet, densities have kinks, and the error is of second order in the step.
    assert density.sum() * area == pytest.approx(1, abs=2e-3 if "spline" in name else 1e-6)
    entropy = -(density * log_density).sum() * area
    z = make().sample((20_000,))
    surprise = -make().log_prob(z)
    assert abs(surprise.mean() - entropy) < 4 * surprise.std() / len(z) ** 0.5
    # The means as well: the entropy does not know where a distribution lies.
    axis = torch.linspace(-15, 15, 1201, dtype=torch.float64)
    mean = (density[:, None] * torch.cartesian_prod(axis, axis)).sum(0) * area
    assert ((z.mean(0) - mean).abs() < 4 * z.std(0) / len(z) ** 0.5).all()


@every_part
def test_the_density_is_the_same_at_a_draw_and_at_a_given_value(name):
    make = parts()[name]
    q = make()
    z = q.rsample((7,)) if q.has_rsample else q.sample((7,))
    assert q.event_dim == 1
    assert q.support.event_dim == 1
    torch.testing.assert_close(q.log_prob(z), make().log_prob(z.detach().clone()))


@every_part
def test_shapes_expand_and_mask_as_pyros_do(name):
    q = parts()[name]()
    z = torch.randn(4, 3, 2, dtype=torch.float64)
    wide = q.expand((4, 3))
    assert (wide.batch_shape, wide.event_shape) == ((4, 3), (2,))
    assert wide.sample().shape == (4, 3, 2)
    torch.testing.assert_close(wide.log_prob(z), q.log_prob(z))
    masked = wide.mask(torch.tensor([True, False, True]))
    assert (masked.log_prob(z)[:, 1] == 0).all()
    torch.testing.assert_close(wide.to_event(1).log_prob(z), q.log_prob(z).sum(-1))


@every_guide
def test_features_of_many_data_are_independent(guide):
    family = shaken(GUIDES[guide](latent_dim=3))
    features = torch.randn(5, family.features, dtype=torch.float64)
    z = torch.randn(5, 3, dtype=torch.float64)
    each = [family(f).log_prob(v) for f, v in zip(features, z, strict=True)]
    torch.testing.assert_close(family(features).log_prob(z), torch.stack(each))


def test_one_latent_variable_is_no_flow():
    for option in ({"guide": "flow"}, {"guide": "spline"}, {"prior": "flow"}):
        with pytest.raises(ValueError, match="latent_dim must be at least 2 for a flow"):
            VAE((5,), latent_dim=1, **option)
    others = [{"guide": g} for g in GUIDES if g not in ("flow", "spline")]
    others += [{"prior": p} for p in PRIORS if p != "flow"]
    for option in others:
        vae = VAE((5,), 1, (4,), **option)
        assert vae.guide(torch.zeros(3, 5)).shape == (3, 1)
        assert math.isfinite(Trace_ELBO().loss(vae.model, vae.guide, torch.zeros(3, 5)))


def test_a_spline_leaves_validation_as_it_is():
    """Of everybody's distributions, which importing zuko turns off."""
    code = (
        "import sys, torch; from ppl_vae.models import VAE; assert 'zuko' not in sys.modules;"
        "VAE((5,), 2, guide='spline'); assert 'zuko' in sys.modules;"
        "torch.distributions.Normal(0.0, -1.0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError" in done.stderr


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("kind", [Coupling, SplineCoupling])
def test_a_coupling_is_inverted_and_knows_its_volume(kind, second):
    coupling = shaken(kind(5, 2, second))
    context = torch.randn(2, dtype=torch.float64)
    x = 100 * torch.randn(5, dtype=torch.float64)  # anywhere
    y, volume = coupling(x, context)
    back, same = coupling.inverse(y, context)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(same, volume)
    jacobian = torch.autograd.functional.jacobian(lambda x: coupling(x, context)[0], x)
    torch.testing.assert_close(jacobian.slogdet()[1], volume)
    transform = Coupled(coupling, context)
    assert transform.inv(transform(x)) is x
    # The volume that it keeps is that of its last values only.
    other = torch.randn(5, dtype=torch.float64)
    found = transform.log_abs_det_jacobian(other, coupling(other, context)[0])
    torch.testing.assert_close(found, coupling(other, context)[1])


@pytest.mark.parametrize(
    ("guide", "prior"), [("flow", "standard"), ("flow", "flow"), ("spline", "standard")]
)
def test_a_flow_begins_as_the_plain_vae(guide, prior):
    x = torch.rand(9, 7, dtype=torch.float64).round()
    plain = VAE((7,), 3, (8,)).double()
    bent = VAE((7,), 3, (8,), guide=guide, prior=prior).double()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            theirs = bent.get_parameter(name)  # the encoder has more outputs
            theirs[: len(parameter)] = parameter
    losses = []
    for vae in (plain, bent):
        pyro.set_rng_seed(1)
        losses.append(Trace_ELBO(num_particles=5).loss(vae.model, vae.guide, x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for part in (bent.family, bent.prior) if prior == "flow" else (bent.family,):
        shaken(part)
        pyro.set_rng_seed(1)
        losses.append(Trace_ELBO(num_particles=5).loss(bent.model, bent.guide, x))
        assert losses[-1] != pytest.approx(losses[-2], rel=1e-3)


def test_the_default_is_the_plain_vae_of_older_runs():
    torch.manual_seed(5)
    vae = VAE((1, 6, 7), 3, (8,), channels=(4,))
    torch.manual_seed(5)
    encoder = Encoder((1, 6, 7), 6, (8,), (4,))
    decoder = Decoder(3, (1, 6, 7), (8,), (4,))
    old = {
        **{f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        **{f"decoder.{name}": value for name, value in decoder.state_dict().items()},
    }
    new = vae.state_dict()
    assert list(new) == list(old)
    assert all(torch.equal(new[name], old[name]) for name in old)
    x = torch.rand(4, 1, 6, 7).round()
    torch.manual_seed(6)
    z = vae.guide(x)
    torch.manual_seed(6)
    loc, raw = encoder(x).chunk(2, -1)
    assert torch.equal(z, dist.Normal(loc, torch.nn.functional.softplus(raw) + 1e-4).rsample())


def exact_posterior(vae):
    """Of a linear VAE under the standard prior: precision P, and the map from x - b to the mean."""
    loading = vae.decoder.mlp[0].weight.detach()
    precision = torch.eye(loading.shape[1]).double() + loading.T @ loading / NOISE**2
    return precision, torch.linalg.solve(precision, loading.T) / NOISE**2


def set_linear(vae, rows, weight, bias):
    """Set some rows of a linear encoder."""
    layer = vae.encoder.mlp[0]
    layer.weight[rows], layer.bias[rows] = weight, bias


@torch.no_grad()
def correlated(guide):
    """Probabilistic PCA with a correlated posterior, and the best guide of a family."""
    vae = linear(guide=guide)
    precision, gain = exact_posterior(vae)
    offset = vae.decoder.mlp[0].bias
    vae.encoder.mlp[0].weight.zero_()
    set_linear(vae, slice(0, 3), gain, -gain @ offset)
    covariance = precision.inverse()
    bias = vae.encoder.mlp[0].bias
    if guide == "full":
        tril = torch.linalg.cholesky(covariance)
        bias[3:6] = inverse_positive(tril.diagonal())
        bias[6:] = tril[[1, 2, 2], [0, 0, 1]]
    elif guide == "low-rank":
        variance = torch.linalg.eigvalsh(covariance)[0] / 2
        bias[3:6] = inverse_positive(variance.sqrt().expand(3))
        factor = torch.linalg.cholesky(covariance / variance - torch.eye(3).double())
        bias[6:] = factor.flatten()
    else:
        bias[3:6] = inverse_positive(precision.diagonal().rsqrt())
    x = vae.model(size=50)
    loading = vae.decoder.mlp[0].weight
    covered = MultivariateNormal(offset, loading @ loading.T + NOISE**2 * torch.eye(6).double())
    return vae, x, covered.log_prob(x), precision


@pytest.mark.parametrize("guide", ["full", "low-rank"])
def test_a_guide_with_correlations_has_no_gap_on_probabilistic_pca(guide):
    vae, x, evidence, _ = correlated(guide)
    log_weight = Posterior(vae, x).log_weight(20, seed=1)
    torch.testing.assert_close(log_weight, evidence.expand(20, 50), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_best_diagonal_guide_has_the_gap_that_is_known():
    vae, x, evidence, precision = correlated("diagonal")
    gap = (precision.diagonal().log().sum() - precision.logdet()) / 2
    assert gap > 0.1
    exact = MultivariateNormal(vae.encode(x).mean, precision_matrix=precision)
    q = vae.encode(x).base_dist

    def divergence(loc, scale):
        return kl_divergence(MultivariateNormal(loc, scale_tril=scale.diag_embed()), exact)

    torch.testing.assert_close(divergence(q.loc, q.scale), gap.expand(50))
    for _ in range(20):  # and no other has less
        loc = q.loc + 0.1 * torch.randn_like(q.loc)
        scale = q.scale * (0.1 * torch.randn_like(q.scale)).exp()
        assert (divergence(loc, scale) > gap).all()
    log_weight = Posterior(vae, x).log_weight(2000, seed=1)
    found = evidence - log_weight.mean(0)
    error = log_weight.std() / log_weight.numel() ** 0.5
    assert abs(found.mean() - gap) < 3 * error


def test_the_vamp_prior_is_the_guide_at_its_pseudo_inputs():
    vae = VAE((5,), 2, (8,), guide="full", prior="vamp", components=4).double()
    shaken(vae.prior)
    z = torch.randn(7, 2, dtype=torch.float64)
    each = torch.stack([vae.encode(u).log_prob(z) for u in vae.prior.inputs], -1)
    expected = (vae.prior.logits.log_softmax(0) + each).logsumexp(-1)
    torch.testing.assert_close(vae.prior(vae.encode).log_prob(z), expected)


def test_the_encoder_may_be_wider_than_the_decoder():
    vae = VAE((5,), 2, (8,), encoder_hidden=(32, 16))
    widths = [
        [layer.out_features for layer in network.mlp if hasattr(layer, "weight")]
        for network in (vae.encoder, vae.decoder)
    ]
    assert widths == [[32, 16, 4], [8, 5]]
    assert len(VAE((5,), 2, (8,), encoder_hidden=()).encoder.mlp) == 1


def test_modules_of_ones_own_are_parts():
    class Shared(torch.nn.Module):
        """A guide whose scale is the same for all data, and a prior three times as wide."""

        features = 2

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(2))

        def forward(self, given):
            if callable(given):
                return dist.Normal(torch.zeros(2), 3 * self.scale.exp()).to_event(1)
            return dist.Normal(given, self.scale.exp()).to_event(1)

    vae = VAE((5,), 2, (8,), guide=Shared(), prior=Shared())
    assert vae.encode(torch.zeros(3, 5)).batch_shape == (3,)
    assert math.isfinite(Trace_ELBO().loss(vae.model, vae.guide, torch.zeros(3, 5)))


def test_the_number_of_components_has_one_meaning():
    vae = VAE((5,), 2, (8,), guide="mixture", prior="vamp", components=4)
    assert vae.encode(torch.zeros(5)).mixture_distribution.logits.shape == (4,)
    assert vae.prior.inputs.shape == (4, 5)
    assert VAE((5,), 2, (8,), prior="mixture").prior.logits.shape == (10,)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"guide": "ful"}, "guide must be one of diagonal, full, .*did you mean 'full'"),
        ({"prior": "vampprior"}, "prior must be one of standard, .*did you mean 'vamp'"),
        ({"guide": 3}, "guide must be one of"),
        ({"components": 3}, "components=3 was given, but neither guide nor prior is a mixture"),
        ({"components": 0, "guide": "mixture"}, "components must hold integers of at least 1"),
        ({"components": 2.0, "guide": "mixture"}, "components must hold integers of at least 1"),
        ({"encoder_hidden": (0,)}, "encoder_hidden must hold integers"),
        ({"encoder_hidden": "88"}, "encoder_hidden must hold integers"),
    ],
)
def test_what_no_vae_has_is_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        VAE((5,), 2, (8,), **options)
