import pytest
import torch

import ppl_vae.compiled.engine


@pytest.fixture
def as_it_is(monkeypatch):
    """Graphs run without being compiled."""
    without_gradients = lambda graph, inputs: torch.no_grad()(graph)  # noqa: E731
    monkeypatch.setattr(ppl_vae.compiled.engine, "compile_graph", without_gradients)
