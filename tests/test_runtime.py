"""Isolation: whatever happens inside, random state and parameter store come back."""

import random

import pyro
import pytest
import torch

from ppl_vae import InputError
from ppl_vae.runtime import derived_seed, isolated, pick_device


def test_isolation_gives_everything_back_even_after_an_error():
    kept = pyro.param("kept", torch.zeros(2)).unconstrained()
    state, validation = torch.get_rng_state(), torch.distributions.Distribution._validate_args
    python = random.getstate()
    with pytest.raises(RuntimeError), isolated(seed=1):
        torch.rand(3)
        pyro.param("inside", torch.zeros(2))
        assert "kept" not in pyro.get_param_store()
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.distributions.Distribution._validate_args == validation
    assert list(pyro.get_param_store().keys()) == ["kept"]
    assert pyro.param("kept").unconstrained() is kept
    assert random.getstate() == python


def test_isolation_is_seeded_and_nests():
    with isolated(seed=7):
        outer = torch.rand(2)
        with isolated(seed=7):
            assert torch.equal(torch.rand(2), outer)
        after = torch.rand(2)
    with isolated(seed=7):
        torch.rand(2)
        assert torch.equal(torch.rand(2), after)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device().type in {"cpu", "cuda"}
    for name in ("quantum", "", "cuda:99"):
        with pytest.raises(InputError) as caught:
            pick_device(name)
        assert (caught.value.culprit, caught.value.remedy) == ("device", "another-device")


def test_derived_seeds_differ_by_seed_and_purpose_and_do_not_change():
    seeds = {derived_seed(s, purpose) for s in range(50) for purpose in ("data", "weights")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(3, "data") == derived_seed(3, "data")
    with pytest.raises(InputError, match="^seed must be"):
        derived_seed(-1, "data")
