"""Programs that users might write by mistake: each breaks one rule."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .programs import Minimal, Positive


class NoLatent(Minimal):
    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.decoder.bias, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"minimal-{id(self)}", self)


class Frozen(Minimal):
    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.requires_grad_(False)


class Transposed(Minimal):
    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.encoder.weight = nn.Parameter(torch.randn(*data_shape, 4).T)


class NoDraws(Minimal):
    """Its decoder takes no dimension in front of the batch."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.decoder = nn.Sequential(self.decoder, nn.BatchNorm1d(*data_shape))


class NoPlate(Minimal):
    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(2), obs=x)


class NoEvent(Minimal):
    def guide(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("units", 2, dim=-2), pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x)[..., :2].T, 1.0))


class Unobserved(Minimal):
    def model(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1))


class OtherSites(Minimal):
    def guide(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("w", dist.Normal(self.encoder(x)[:, :2], 1.0).to_event(1))


class Unregistered(Minimal):
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


class Foreign(Minimal):
    def guide(self, x):
        pyro.module(f"minimal-{id(self)}", self)
        shift = pyro.param("shift", torch.zeros(2))
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc + shift, scale.exp()).to_event(1))


class NoModel(nn.Module):
    def guide(self, x):
        return None


class NoParameters(nn.Module):
    def model(self, x):
        return None

    guide = model


class WrongSupport(Positive):
    """Its guide draws negative rates."""

    def guide(self, x):
        pyro.module(f"positive-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.raw[0].expand(len(x)), self.raw[1].exp()))
