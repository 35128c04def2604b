"""Programs of tables: classes beside x, cells that are missing, labels that are."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Conditional(nn.Module):
    """Conditional: x given a class y, with a guide that is exact.

    z ~ N(0, I), x = W z + b_y + N(0, 1): p(z | x, y) is normal, and so is p(x | y).
    """

    def __init__(self, data_shape=(5,), classes=3):
        super().__init__()
        (dim,) = data_shape
        self.classes = classes
        self.weight = nn.Parameter(torch.randn(dim, 2))
        self.offset = nn.Parameter(torch.randn(classes, dim))

    def likelihood(self, z, y):
        return dist.Normal(z @ self.weight.T + self.offset[y], 1.0).to_event(1)

    def model(self, x, y):
        pyro.module(f"conditional-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(z, y), obs=x)

    def guide(self, x, y):
        pyro.module(f"conditional-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", exact_posterior(self.weight, x - self.offset[y], torch.ones_like(x)))

    def evidence(self, x, y):
        """log p(x | y), of shape (N,)."""
        eye = torch.eye(x.shape[1]).to(x)
        return dist.MultivariateNormal(self.offset[y], self.weight @ self.weight.T + eye).log_prob(
            x
        )


class Incomplete(nn.Module):
    """Cells may be missing: log p of those that were observed, and a guide that is exact."""

    def __init__(self, data_shape=(5,)):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*data_shape, 2))

    def model(self, x, mask):
        pyro.module(f"incomplete-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            p = dist.Normal(z @ self.weight.T, 1.0).mask(mask)
            pyro.sample("x", p.to_event(1), obs=x)

    def guide(self, x, mask):
        pyro.module(f"incomplete-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", exact_posterior(self.weight, x, mask.to(x)))

    def evidence(self, x, mask):
        """log p of the observed cells, of shape (N,)."""
        covariance = self.weight @ self.weight.T + torch.eye(x.shape[1]).to(x)
        found = []
        for row, seen in zip(x, mask, strict=True):
            normal = dist.MultivariateNormal(
                x.new_zeros(int(seen.sum())), covariance[seen][:, seen]
            )
            found.append(normal.log_prob(row[seen]))
        return torch.stack(found)


class Labelled(Conditional):
    """Two observed sites: x and its class, both from z."""

    def __init__(self, data_shape=(5,), classes=3):
        super().__init__(data_shape, classes)
        self.encoder, self.classifier = nn.Linear(*data_shape, 4), nn.Linear(2, classes)

    def model(self, x, y):
        pyro.module(f"labelled-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            y = pyro.sample("y", dist.Categorical(logits=self.classifier(z)), obs=y)
            pyro.sample("x", self.likelihood(z, y), obs=x)

    def guide(self, x, y):
        pyro.module(f"labelled-{id(self)}", self)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def exact_posterior(weight, x, seen):
    """p(z | x) where z ~ N(0, I) and the cells that were seen are N(W z, 1)."""
    precision = torch.eye(2).to(x) + torch.einsum("nd,di,dj->nij", seen, weight, weight)
    loc = torch.linalg.solve(precision, ((seen * x) @ weight).unsqueeze(-1)).squeeze(-1)
    return dist.MultivariateNormal(loc, precision_matrix=precision)
