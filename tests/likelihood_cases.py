"""One of each likelihood, away from where its parameters begin."""

import pytest
import torch

from ppl_vae.models import LIKELIHOODS

D, N = 3, 2
COLUMNS = [
    {"name": "height", "kind": "real", "loc": 170.0, "scale": 12.0},
    {"name": "income", "kind": "positive", "loc": 10.0, "scale": 0.5},
    {"name": "visits", "kind": "count"},
    {"name": "pet", "kind": "category", "categories": ["cat", "dog", "none", "fish"]},
    {"name": "smokes", "kind": "binary"},
    {"name": "grade", "kind": "ordered", "categories": ["low", "middle", "high"]},
    {"name": "sex", "kind": "category", "categories": ["f", "m"]},
    {"name": "weight", "kind": "real", "loc": 70.0, "scale": 9.0},
    {"name": "pain", "kind": "ordered", "categories": ["0", "1", "2", "3", "4"]},
]
SHAPES = {"columns": (len(COLUMNS),)}
CODES = {"categorical": 4, "ordered": 5}


def made(name, shape=None):
    """A likelihood in double precision, its parameters away from where they begin."""
    shape = shape or SHAPES.get(name, (D,))
    given = {"columns": COLUMNS} if name == "columns" else {}
    given |= {"classes": CODES[name]} if name in CODES else {}
    given |= {"levels": 16} if name.startswith("discretized") else {}
    likelihood = LIKELIHOODS[name](shape, **given).double()
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return likelihood


def distribution(name, spread=0.7):
    likelihood = made(name)
    return likelihood(spread * torch.randn(N, *likelihood.output_shape, dtype=torch.float64))


def values_of(name):
    """All values that a cell may have, or None for a density."""
    if name in CODES:
        return torch.arange(CODES[name]).double()
    if name.startswith("discretized"):
        return torch.arange(17).double() / 16
    if name == "bernoulli":
        return torch.tensor([0.0, 1.0]).double()
    return torch.arange(1000).double() if "poisson" in name or "negative" in name else None


PURE = [name for name in LIKELIHOODS if name != "columns"]
DISCRETE = [name for name in PURE if values_of(name) is not None]
REAL = [name for name in PURE if name not in DISCRETE]
every = pytest.mark.parametrize("name", LIKELIHOODS)
pure = pytest.mark.parametrize("name", PURE)
discrete = pytest.mark.parametrize("name", DISCRETE)
