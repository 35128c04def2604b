"""When two trees of results are the same but for rounding."""

import pytest
import torch

from ppl_vae.compiled.agreement import agree

X = torch.tensor([1.0, 2.0, 4.0])
NAN, INF, ROUNDED = float("nan"), float("inf"), 1 + 1e-6


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [
        ([X, 1.0], [X * ROUNDED, ROUNDED], True),
        ({"a": X}, {"a": X + torch.tensor([0.0, 0.0, 0.01])}, False),
        # Each on its own scale: a small gradient beside a large one.
        ([X, X * 1e-9], [X, X * 2e-9], False),
        ([X * 1e-3, 1e6], [X * 1.1e-3, 1e6], False),
        ([X * 1e6, 1.0], [X * 1e6, 2.0], False),
        (1.0, 1.01, False),
        (torch.tensor([1.0, NAN, INF, -INF]), torch.tensor([1.0, NAN, INF, -INF]), True),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, 2.0]), False),
        (torch.tensor([1.0, INF]), torch.tensor([1.0, -INF]), False),
        (torch.tensor([1.01, INF]), torch.tensor([1.0, INF]), False),
        (X, X[:2], False),
        (torch.tensor([10**6]), torch.tensor([10**6 + 1]), False),
        (10**9, 10**9 + 1, False),
        (torch.tensor([True, False]), torch.tensor([True, True]), False),
        (X.double(), X.double() * ROUNDED, False),
        (1.5, 1, False),
        ((X, None), (X, X), False),
        ([1.0, 2.0], [1.0], False),
        ({"a": X}, {"b": X}, False),
        ([torch.tensor(2.5), X], [2.5, X], True),
    ],
)
def test_results_agree_but_for_rounding(some, others, expected):
    assert agree(some, others) == expected
