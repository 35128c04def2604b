"""Programs whose evidence and posterior means are known, under priors that are not normal."""

import math

import pyro
import pyro.distributions as dist
import torch
from scipy.special import betaln
from torch import nn
from torch.distributions import Normal

NOISE = 0.7
SHARES = torch.tensor([0.4, 0.6]).double()
MEANS = torch.tensor([[-1.0, 0.5], [0.8, -0.4]]).double()  # (component, unit)
SCALES = torch.tensor([[0.6, 0.9], [0.4, 0.7]]).double()
LOADING = torch.tensor([[1.0, 0.3], [-0.5, 0.8], [0.2, 1.1]]).double()


class Known(nn.Module):
    """Has a parameter, for every program must; what it is made of is said by its heirs."""

    def __init__(self):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def model(self, x):
        pyro.module(f"known-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.likelihood(z).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"known-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def likelihood(self, z):
        return dist.Normal(z[..., None], NOISE)


class Mixture(Known):
    """x = W z + noise, under a mixture of two normals in the plane, or one for each unit.

    Either way p(z) is a mixture of normals in the plane, of two or of four: so is p(x), and p(z|x).
    """

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        if kind == "of each unit":
            pairs = torch.cartesian_prod(torch.arange(2), torch.arange(2))
            self.shares = SHARES[pairs].prod(1)
            self.means, self.scales = (
                torch.stack([t[pairs[:, 0], 0], t[pairs[:, 1], 1]], 1) for t in (MEANS, SCALES)
            )
        else:
            self.shares, self.means, self.scales = SHARES, MEANS, SCALES

    def prior(self, x):
        if self.kind == "of each unit":
            kernels = dist.Normal(MEANS.T, SCALES.T)
            return dist.MixtureSameFamily(dist.Categorical(SHARES.expand(2, 2)), kernels).to_event(
                1
            )
        if self.kind == "of vectors":
            kernels = dist.MultivariateNormal(MEANS, scale_tril=SCALES.diag_embed())
        else:
            kernels = dist.Normal(MEANS, SCALES).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(SHARES), kernels)

    def likelihood(self, z):
        return dist.Normal(z @ LOADING.T, NOISE)

    def posterior(self, x):
        """A normal distribution, twice as wide as the posterior's widest component."""
        return dist.MultivariateNormal(self.mean(x) + self.zero, 4 * self._components()[1][0])

    def _components(self):
        """The gain and covariance of p(z | x, k), and the distribution of x given k."""
        prior = self.scales.square().diag_embed()
        marginal = LOADING @ prior @ LOADING.T + NOISE**2 * torch.eye(3).double()
        gain = prior @ LOADING.T @ marginal.inverse()
        given = dist.MultivariateNormal(self.means @ LOADING.T, marginal)
        return gain, prior - gain @ LOADING @ prior, given

    def _log_shares(self, x):
        return self.shares.log() + self._components()[2].log_prob(x[..., None, :])

    def log_p(self, x):
        return self._log_shares(x).logsumexp(-1)

    def mean(self, x):
        gain, _, given = self._components()
        each = self.means + (gain @ (x[..., None, :] - given.loc)[..., None])[..., 0]
        return (self._log_shares(x).softmax(-1)[..., None] * each).sum(-2)


class Proportion(Known):
    """A success probability, uniform, with a beta guide that is exact; x are five trials."""

    def prior(self, x):
        return dist.Uniform(x.new_zeros(len(x)), 1.0)  # one edge for each datum

    def likelihood(self, z):
        return dist.Bernoulli(z[..., None].expand(*z.shape, 5))

    def posterior(self, x):
        hits = x.sum(-1)
        return dist.Beta(hits + 1 + self.zero, 6 - hits)

    def log_p(self, x):
        hits = x.sum(-1)
        return torch.as_tensor(betaln(hits.numpy() + 1, 6 - hits.numpy()))

    def mean(self, x):
        return (x.sum(-1) + 1) / 7


LOW, HIGH = torch.tensor([0.0, -1.0]).double(), torch.tensor([1.0, 3.0]).double()


class Boxes(Known):
    """Two units in intervals of their own, each seen with noise."""

    def prior(self, x):
        return dist.Uniform(LOW, HIGH).to_event(1)

    def likelihood(self, z):
        return dist.Normal(z, NOISE)

    def posterior(self, x):
        box = [dist.transforms.SigmoidTransform(), dist.transforms.AffineTransform(LOW, HIGH - LOW)]
        return dist.TransformedDistribution(dist.Normal(x * 0 + self.zero, 1.5), box).to_event(1)

    def log_p(self, x):
        inside = Normal(x, NOISE).cdf(HIGH) - Normal(x, NOISE).cdf(LOW)
        return (inside / (HIGH - LOW)).log().sum(-1)

    def mean(self, x):
        standard = Normal(torch.zeros(()).double(), 1.0)
        low, high = (LOW - x) / NOISE, (HIGH - x) / NOISE
        inside = standard.cdf(high) - standard.cdf(low)
        return x + NOISE * (standard.log_prob(low).exp() - standard.log_prob(high).exp()) / inside


class Angle(Known):
    """A mixture of von Mises: no pathwise draws, a circle, and a likelihood that is cut at pi."""

    def prior(self, x):
        kernels = dist.VonMises(torch.tensor([-2.0, 2.5]).double(), torch.tensor(2.0).double())
        return dist.MixtureSameFamily(dist.Categorical(SHARES), kernels)

    def posterior(self, x):
        return dist.VonMises(x[:, 0].clamp(-3, 3) + self.zero, 1.0)

    def log_p(self, x):
        edges = torch.linspace(-math.pi, math.pi, 20_001).double()
        z = (edges[1:] + edges[:-1]) / 2
        log_joint = self.prior(x).log_prob(z) + Normal(z, NOISE).log_prob(x)
        return log_joint.logsumexp(-1) + math.log(2 * math.pi / 20_000)


class Direction(Known):
    """A point of the circle, von Mises, seen with noise: p(z | x) is von Mises too."""

    MEAN, CONCENTRATION = torch.tensor(0.5).double(), torch.tensor(2.0).double()

    def prior(self, x):
        return dist.VonMises(self.MEAN, self.CONCENTRATION)

    def likelihood(self, z):
        return dist.Normal(torch.stack([z.cos(), z.sin()], -1), NOISE)

    def exact(self, x):
        """The direction and concentration of p(z | x)."""
        prior = self.CONCENTRATION * torch.stack([self.MEAN.cos(), self.MEAN.sin()])
        sum_of_both = prior + x / NOISE**2
        return torch.atan2(sum_of_both[:, 1], sum_of_both[:, 0]), sum_of_both.norm(dim=-1)

    def posterior(self, x):
        direction, concentration = self.exact(x)
        return dist.VonMises(direction + self.zero, concentration / 2)

    def log_p(self, x):
        _, concentration = self.exact(x)
        ratio = torch.special.i0(concentration) / torch.special.i0(self.CONCENTRATION)
        squares = (x.square().sum(-1) + 1) / NOISE**2
        return ratio.log() - squares / 2 - math.log(2 * math.pi * NOISE**2)


class Correlation(Known):
    """A correlation matrix of two units, uniform, by its Cholesky factor; seen with noise."""

    def prior(self, x):
        return dist.LKJCholesky(2, torch.ones(()).double())

    def likelihood(self, z):
        return dist.Normal(z[..., 1, :1], NOISE)

    def posterior(self, x):
        return dist.LKJCholesky(2, 1.5 + self.zero)

    def log_p(self, x):
        return (Normal(x, NOISE).cdf(x * 0 + 1) - Normal(x, NOISE).cdf(x * 0 - 1)).log()[
            :, 0
        ] - math.log(2)


PROGRAMS = {
    "mixture of vectors": lambda: Mixture("of vectors"),
    "mixture of independent units": lambda: Mixture("of independent units"),
    "mixture of each unit": lambda: Mixture("of each unit"),
    "proportion": Proportion,
    "boxes": Boxes,
    "angle": Angle,
    "direction": Direction,
    "correlation": Correlation,
}
SIZES = {"mixture": 3, "proportion": 5, "boxes": 2, "angle": 1, "direction": 2, "correlation": 1}
