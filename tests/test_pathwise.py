"""Path gradients, against Pyro's own estimators on the same draws."""

import pyro
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO

from ppl_vae import PathwiseELBO
from ppl_vae.models import VAE, LinearGaussian
from ppl_vae.objectives.kl_weight import KLWeight

from .programs import Discrete, LearnedFlow, Minimal, TwoLayers

X = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
PYROS = {
    False: lambda k: Trace_ELBO(k, 1, vectorize_particles=k > 1),
    True: lambda k: RenyiELBO(0.0, k, 1, vectorize_particles=True),
}


def loss_and_grads(objective, program, x=X, seed=3):
    program.zero_grad()
    torch.manual_seed(seed)
    loss = objective.loss_and_grads(program.model, program.guide, x)
    grads = {name: p.grad for name, p in program.named_parameters() if p.grad is not None}
    return loss, {name: grad.clone() for name, grad in grads.items()}


@pytest.mark.parametrize("kind", [Minimal, TwoLayers])
@pytest.mark.parametrize(("particles", "weighted"), [(1, False), (4, False), (4, True)])
def test_loss_and_the_models_gradient_are_pyros(kind, particles, weighted):
    program = kind()
    loss, grads = loss_and_grads(PathwiseELBO(particles, weighted), program)
    expected, pyros = loss_and_grads(PYROS[weighted](particles), program)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, grad in grads.items():
        if not name.startswith(("encoder", "up")):
            torch.testing.assert_close(grad, pyros[name])
        else:
            assert not torch.allclose(grad, pyros[name])


def test_one_draw_has_one_path_gradient():
    program = TwoLayers()
    _, plain = loss_and_grads(PathwiseELBO(1), program)
    _, weighted = loss_and_grads(PathwiseELBO(1, importance_weighted=True), program)
    for name, grad in plain.items():
        torch.testing.assert_close(grad, weighted[name])


@pytest.mark.parametrize("particles", [2, 5])
def test_the_doubly_reparameterized_gradient_by_hand(particles):
    """Tucker et al. 2018, eq. 8, written out for one Gaussian site."""
    program = LinearGaussian((5,), latent_dim=2)
    x = X.double()
    _, grads = loss_and_grads(PathwiseELBO(particles, importance_weighted=True), program, x)
    torch.manual_seed(3)
    with pyro.plate("draws", particles, dim=-2):
        z = program.guide(x)
    q = torch.distributions.MultivariateNormal(
        program.encoder(x).detach(), scale_tril=program.guide_tril.detach()
    )
    p = torch.distributions.Normal(z @ program.loading.T + program.loc, program.scale)
    log_weight = p.log_prob(x).sum(-1) - 0.5 * z.square().sum(-1) - q.log_prob(z)
    share = log_weight.detach().softmax(0)
    (by_z,) = torch.autograd.grad((share.square() * log_weight).sum(), z, retain_graph=True)
    by_hand = torch.autograd.grad((z * by_z).sum(), program.encoder.weight)[0]
    torch.testing.assert_close(grads["encoder.weight"], -by_hand)


def test_at_the_exact_posterior_nothing_is_left():
    program = LinearGaussian((5,), latent_dim=2)
    program.set_exact_guide()
    for objective in (PathwiseELBO(3), PathwiseELBO(3, importance_weighted=True)):
        _, grads = loss_and_grads(objective, program, X.double())
        for name in ("encoder.weight", "encoder.bias", "raw_guide_tril"):
            assert grads[name].abs().max() < 1e-10
        assert grads["loading"].abs().max() > 1e-3


def test_two_sites_stick_too():
    """With z2 given z1 drawn from its posterior, no noise is left in the guide's gradient."""
    program = TwoLayers().double()
    x = X[:1].double()
    posterior = exact_guide(program, x)
    _, grads = loss_and_grads(PathwiseELBO(4), posterior, x)
    assert grads["raw_1"].abs().max() < 1e-10
    assert grads["raw_2"].abs().max() < 1e-10


def exact_guide(program, x):
    """A guide of the exact posterior of one datum: z1 | x, then z2 | z1, both Gaussian."""
    down, out = program.down, program.decoder
    w = down.weight.detach()
    eye = torch.eye(2).double()
    prior = w @ w.T + eye  # covariance of z1
    precision = prior.inverse() + out.weight.T @ out.weight
    loc = precision.inverse() @ (prior.inverse() @ down.bias + out.weight.T @ (x[0] - out.bias))
    gain = (eye + w.T @ w).inverse() @ w.T

    class Exact(TwoLayers):
        def __init__(self):
            super().__init__()
            self.double().load_state_dict(program.state_dict())
            self.raw_1 = torch.nn.Parameter(loc.detach().clone())
            self.raw_2 = torch.nn.Parameter(gain.detach().clone())

        def guide(self, x):
            pyro.module(f"exact-{id(self)}", self)
            with pyro.plate("data", len(x)):
                first = pyro.distributions.MultivariateNormal(self.raw_1, precision.inverse())
                z1 = pyro.sample("z1", first.expand([len(x)]))
                mean = (z1 - down.bias.detach()) @ self.raw_2.T
                covariance = (eye + w.T @ w).inverse()
                pyro.sample("z2", pyro.distributions.MultivariateNormal(mean, covariance))

    return Exact()


def test_it_runs_under_stock_svi():
    vae = VAE((5,), latent_dim=2, hidden=(8,), likelihood="gaussian")
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), PathwiseELBO(2))
    losses = [svi.step(X) for _ in range(200)]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert svi.evaluate_loss(X) == pytest.approx(losses[-1], rel=0.5)


@pytest.mark.parametrize("kind", [Minimal, TwoLayers])
@pytest.mark.parametrize("free_bits", [0.0, 1.5])
def test_the_weight_of_the_kl_is_the_same_as_under_pyros_elbo(kind, free_bits):
    program, found = kind(), []
    for objective in (Trace_ELBO(3, 1, vectorize_particles=True), PathwiseELBO(3)):
        kl_weight = KLWeight(free_bits)
        kl_weight.weight = 0.5
        with kl_weight:
            loss, grads = loss_and_grads(objective, program)
        found.append((loss, kl_weight.kl, grads["decoder.weight"]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    torch.testing.assert_close(found[0][2], found[1][2])


def test_guides_without_a_path_are_refused():
    for kind, message in (
        (LearnedFlow, "site 'u' belongs to a flow of an auxiliary site"),
        (Discrete, "site 'k' cannot be reparameterized"),
    ):
        with pytest.raises(ValueError, match=message):
            loss_and_grads(PathwiseELBO(), kind())


def test_a_site_outside_the_plate_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0).to_event(1), obs=x)
        pyro.sample("all", pyro.distributions.Normal(0.0, 1.0))

    def guide(x):
        scale = pyro.param("scale", torch.ones(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(x[:, :1], scale).to_event(1))
        pyro.sample("all", pyro.distributions.Normal(0.0, scale[0]))

    with pytest.raises(ValueError, match="site 'all' is not in the one plate over the data"):
        PathwiseELBO().loss(model, guide, X)
