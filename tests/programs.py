"""Programs that users might write, and that conform."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Minimal(nn.Module):
    """The shortest program there is: its own networks, its own registration."""

    def __init__(self, data_shape=(5,)):
        super().__init__()
        (dim,) = data_shape
        self.encoder, self.decoder = nn.Linear(dim, 4), nn.Linear(2, dim)

    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


class TwoLayers(Minimal):
    """Two latent sites, the second given the first."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.up, self.down = nn.Linear(2, 2), nn.Linear(2, 2)

    def model(self, x):
        pyro.module(f"two-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(self.down(z2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z1), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"two-{id(self)}", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, scale.exp()).to_event(1))
            pyro.sample("z2", dist.Normal(self.up(z1), 1.0).to_event(1))


class Discrete(Minimal):
    """A latent class: no reparameterization."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.encoder, self.decoder = nn.Linear(*data_shape, 3), nn.Embedding(3, *data_shape)

    def model(self, x):
        pyro.module(f"discrete-{id(self)}", self)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=x.new_zeros(3)))
            pyro.sample("x", dist.Normal(self.decoder(k), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"discrete-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=self.encoder(x)))


class Sigmoids(Minimal):
    """Binary latents: a sigmoid belief network."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.encoder = nn.Linear(*data_shape, 2)

    def model(self, x):
        pyro.module(f"sigmoids-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_full((2,), 0.5)).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"sigmoids-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)).to_event(1))


class Rescaled(Minimal):
    """A latent site called latent, in units of one's own."""

    def __init__(self, data_shape=(5,), unit=1.0):
        super().__init__(data_shape)
        self.unit = unit

    def model(self, x):
        pyro.module(f"rescaled-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(2), self.unit).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z / self.unit), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"rescaled-{id(self)}", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            q = dist.Normal(self.unit * loc, self.unit * scale.exp())
            pyro.sample("latent", q.to_event(1))


class WithDropout(Minimal):
    """Behaves otherwise while it trains."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.encoder = nn.Sequential(self.encoder, nn.BatchNorm1d(4))
        self.decoder = nn.Sequential(self.decoder, nn.Dropout(0.5))


class NoisyLayers(TwoLayers):
    """Two sites, and dropout in between."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.up = nn.Sequential(self.up, nn.Dropout(0.5))


class _Variant(Minimal):
    @classmethod
    def without(cls, program):
        """The same networks, without what makes this variant one."""
        plain = Minimal()
        plain.load_state_dict(program.state_dict())
        return plain


class Flow(_Variant):
    """A guide of one invertible step: its Delta carries the density."""

    def guide(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            base = dist.Normal(loc, scale.exp()).to_event(1)
            u = pyro.sample("u", base, infer={"is_auxiliary": True})
            z, log_det = self.step(u)
            pyro.sample("z", dist.Delta(z, log_density=-log_det, event_dim=1))

    def step(self, u):
        return u + 0.1 * u.tanh(), (1 + 0.1 * (1 - u.tanh().square())).log().sum(-1)


class LearnedFlow(Flow):
    """Its Delta's density has a parameter of its own."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.stretch = nn.Parameter(torch.tensor(0.3))

    def step(self, u):
        return u * self.stretch.exp(), (2 * self.stretch).expand(u.shape[:-1])


class VolumePreserving(Flow):
    """A flow whose Delta has a density of one."""

    def step(self, u):
        return u.flip(-1), u.new_zeros(u.shape[:-1])


class Planar(Minimal):
    """A flow that cannot be inverted."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.flow = dist.transforms.planar(2)

    def guide(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            base = dist.Normal(loc, scale.exp()).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [self.flow]))


class Masked(Minimal):
    """Leaves half of the data out."""

    def model(self, x):
        with pyro.poutine.mask(mask=torch.arange(len(x)) % 2 == 0):
            super().model(x)

    def guide(self, x):
        with pyro.poutine.mask(mask=torch.arange(len(x)) % 2 == 0):
            super().guide(x)


class Nested(Minimal):
    """A latent whose support ends at another."""

    def model(self, x):
        pyro.module(f"nested-{id(self)}", self)
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Gamma(x.new_tensor(5.0), 1.0))
            z = pyro.sample("z", dist.Uniform(torch.zeros_like(b), b))
            mean = z.unsqueeze(-1) + self.decoder.bias
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"nested-{id(self)}", self)
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.LogNormal(self.encoder(x)[..., 0], 1.0))
            pyro.sample("z", dist.Uniform(torch.zeros_like(b), b))


class Scaled(_Variant):
    """Weighs its latent site itself."""

    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=0.1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.poutine.scale(scale=0.1):
            super().guide(x)


class Deterministic(Minimal):
    """Records what it computes."""

    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = pyro.deterministic("loc", self.decoder(z), event_dim=1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


class Counts(Minimal):
    """A likelihood whose support is a parameter."""

    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            logits = self.decoder(z)
            pyro.sample("x", dist.Binomial(10, logits=logits).to_event(1), obs=x)


class Cauchy(Minimal):
    """A likelihood without a mean."""

    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Cauchy(self.decoder(z), 1.0).to_event(1), obs=x)


class Explodes(Minimal):
    """Turns to NaN after some number of calls of the guide."""

    def __init__(self, data_shape=(5,), calls=10**9):
        super().__init__(data_shape)
        self.calls = calls

    def guide(self, x):
        self.calls -= 1
        super().guide(x)

    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        poison = 1.0 if self.calls > 0 else float("nan")
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z) * poison, 1.0).to_event(1), obs=x)


class Hiccups(Minimal):
    """Its loss, or only the gradient of a parameter, is NaN at some of its training steps."""

    def __init__(self, data_shape=(5,), steps=(), gradient_only=False):
        super().__init__(data_shape)
        self.bad, self.gradient_only, self.count = steps, gradient_only, 0

    def model(self, x):
        pyro.module(f"hiccups-{id(self)}", self)
        self.count += self.training
        bad, bias = self.training and self.count in self.bad, self.decoder.bias
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = self.decoder(z)
            if bad:  # the slope of a square root at zero is infinite
                loc = loc + (0 * bias).abs().sqrt() if self.gradient_only else loc * torch.nan
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


class Narrowing(Minimal):
    """Data all but determine z, so that the guide's scale, an exponential, is driven to zero."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.raw = nn.Parameter(torch.zeros(data_shape))

    def model(self, x):
        pyro.module(f"narrowing-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.raw), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + 0 * self.decoder.bias, 1e-18).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"narrowing-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, self.raw.exp()).to_event(1))


class Positive(Minimal):
    """A rate with a gamma prior and exponential data: log p(x) is known, and z is constrained."""

    shape, rate = 2.0, 1.5

    def __init__(self, data_shape=(1,)):
        super().__init__(data_shape)
        self.raw = nn.Parameter(torch.zeros(2))

    def model(self, x):
        pyro.module(f"positive-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_tensor(self.shape), self.rate))
            pyro.sample("x", dist.Exponential(z.unsqueeze(-1)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"positive-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(self.raw[0] - x[:, 0].log1p(), self.raw[1].exp()))

    def evidence(self, x):
        """Lomax: a b^a / (b + x)^(a + 1)."""
        a, b = torch.tensor(self.shape).double(), torch.tensor(self.rate).double()
        return a.log() + a * b.log() - (a + 1) * (b + x[:, 0].double()).log()
