"""Mixtures: exact evidence, draws whose gradient is known, and posteriors that are mixtures."""

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from ppl_vae import Posterior
from ppl_vae.models import GUIDES
from ppl_vae.models.distributions import NormalMixture
from ppl_vae.models.networks import inverse_positive

from .test_parts import NOISE, exact_posterior, linear, set_linear, shaken


def evidence_of_mixture(vae, x):
    """Of a linear VAE under a mixture of normals: a mixture of normals, too."""
    prior, layer = vae.prior, vae.decoder.mlp[0]
    loading, noise = layer.weight, NOISE**2 * torch.eye(len(layer.weight)).double()
    spread = loading @ prior.scales.square().diag_embed() @ loading.T + noise
    means = prior.locs @ loading.T + layer.bias
    each = MultivariateNormal(means, spread).log_prob(x[:, None])
    return (prior.logits.log_softmax(0) + each).logsumexp(-1)


@torch.no_grad()
def test_importance_sampling_finds_the_evidence_under_a_mixture_prior():
    vae = linear(2, prior="mixture", components=3)
    shaken(vae.prior)
    # The guide that is best under the standard prior, twice as wide.
    _, gain = exact_posterior(vae)
    precision = exact_posterior(vae)[0]
    vae.encoder.mlp[0].weight.zero_()
    set_linear(vae, slice(0, 2), gain, -gain @ vae.decoder.mlp[0].bias)
    vae.encoder.mlp[0].bias[2:] = inverse_positive(2 * precision.inverse().diagonal().sqrt())
    x = vae.model(size=100)
    log_weight = Posterior(vae, x).log_weight(400, seed=1)
    ratio = (log_weight - evidence_of_mixture(vae, x)).exp().mean(0)
    error = ratio.std() / 10
    assert error < 0.1
    assert abs(ratio.mean() - 1) < 3 * error


@torch.no_grad()
def test_a_mixture_guide_is_exact_under_a_mixture_prior():
    """With orthogonal loadings, and scales that components share, p(z|x) is in the family: a
    mixture whose logits and means are linear in x."""
    vae = linear(2, guide="mixture", prior="mixture", components=3)
    layer, prior = vae.decoder.mlp[0], vae.prior
    layer.weight.copy_(torch.linalg.qr(torch.randn(6, 2).double())[0] * torch.tensor([2.0, 1.0]))
    prior.logits.normal_()
    scale = torch.tensor([0.8, 1.3], dtype=torch.float64)
    prior.raw_scales.copy_(inverse_positive(scale).expand(3, 2))
    loading, offset = layer.weight, layer.bias
    variance = 1 / (scale**-2 + loading.square().sum(0) / NOISE**2)
    spread = (loading * scale) @ (loading * scale).T + NOISE**2 * torch.eye(6).double()
    towards = prior.locs @ torch.linalg.solve(spread, loading).T  # (K, 6)
    half = (towards * (prior.locs @ loading.T)).sum(-1) / 2
    set_linear(vae, slice(0, 3), towards, prior.logits - half - towards @ offset)
    gain = variance[:, None] * loading.T / NOISE**2
    for k in range(3):
        rows = slice(3 + 4 * k, 5 + 4 * k)
        set_linear(vae, rows, gain, variance * prior.locs[k] / scale**2 - gain @ offset)
        rows = slice(5 + 4 * k, 7 + 4 * k)
        set_linear(vae, rows, 0.0, inverse_positive(variance.sqrt()))
    x = vae.model(size=50)
    log_weight = Posterior(vae, x).log_weight(20, seed=1)
    exact = evidence_of_mixture(vae, x).expand(20, 50)
    torch.testing.assert_close(log_weight, exact, rtol=1e-9, atol=1e-9)


def moving_mixture(t, start, direction):
    """A mixture of three normals, whose parameters move with t in some direction."""
    loc, log_scale, logits = (s + t * d for s, d in zip(start, direction, strict=True))
    return NormalMixture(loc, log_scale.exp(), logits)


def some_mixture(latent_dim):
    shapes = (3, latent_dim), (3, latent_dim), (3,)
    return [
        [spread * torch.randn(shape, dtype=torch.float64) for shape in shapes]
        for spread in (0.6, 1.0)
    ]


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_draws_of_a_mixture_move_as_its_density_does(latent_dim, monkeypatch):
    """The continuity equation: d log q / dt + v . grad log q + div v = 0, v the draws' speed."""
    start, direction = some_mixture(latent_dim)
    step = 1e-5

    def speed(z):
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        q = moving_mixture(t, start, direction)
        monkeypatch.setattr(q, "sample", lambda shape: z, raising=False)
        moved = q.rsample()
        assert torch.equal(moved, z)
        return torch.stack([torch.autograd.grad(m, t, retain_graph=True)[0] for m in moved])

    for z in moving_mixture(0.0, start, direction).sample((20,)):
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        where = z.clone().requires_grad_()
        log_q = moving_mixture(t, start, direction).log_prob(where)
        by_t, by_z = torch.autograd.grad(log_q, [t, where])
        ahead, behind = (
            [speed(z + sign * step * e)[i] for i, e in enumerate(torch.eye(latent_dim).double())]
            for sign in (1, -1)
        )
        divergence = (torch.stack(ahead) - torch.stack(behind)).sum() / (2 * step)
        terms = torch.stack([by_t, (speed(z) * by_z).sum(), divergence])
        # Differences are off by step^2, and by rounding over the step: 1e-10 of the terms.
        assert abs(terms.sum()) < 1e-6 * (1 + terms.abs().max())


def test_pathwise_gradients_of_a_mixture_have_the_mean_that_is_known():
    """Of E cos(a . z) = sum_k pi_k cos(a . m_k) exp(-sum (a s_k)^2 / 2)."""
    start, direction = some_mixture(3)
    a = torch.tensor([0.9, -0.5, 0.7], dtype=torch.float64)
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    q = moving_mixture(t, start, direction)
    damping = (-(a * q.scale).square().sum(-1) / 2).exp()
    expected = (q.logits.softmax(0) * (q.loc @ a).cos() * damping).sum()
    (exact,) = torch.autograd.grad(expected, t, retain_graph=True)
    found = []
    for _ in range(200):
        wave = (q.rsample((500,)) @ a).cos().mean()
        found.append(torch.autograd.grad(wave, t, retain_graph=True)[0])
    found = torch.stack(found)
    error = found.std() / len(found) ** 0.5
    assert error < 0.02 * abs(exact)
    assert abs(found.mean() - exact) < 4 * error


def test_a_mixture_of_one_component_is_a_normal():
    features = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    q = GUIDES["mixture"](3, components=1)(features)
    loc, raw = features[:, 1:].chunk(2, -1)
    normal = Normal(loc, torch.nn.functional.softplus(raw) + 1e-4)
    z = q.rsample()
    torch.testing.assert_close(q.log_prob(z), normal.log_prob(z).sum(-1))
    same = loc + normal.scale * ((z - loc) / normal.scale).detach()
    found, expected = (
        torch.autograd.grad(value.square().sum(), features, retain_graph=True)
        for value in (z, same)
    )
    torch.testing.assert_close(found, expected)
