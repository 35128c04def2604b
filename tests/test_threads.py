"""Threads: Pyro's parameters and torch's random numbers are those of the whole process."""

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch

import ppl_vae
from ppl_vae import InputError
from ppl_vae.models import VAE

DATA = ppl_vae.make_data(torch.randn(100, 4, generator=torch.Generator().manual_seed(0)))
SETTINGS = ppl_vae.Settings(epochs=3, seed=1, engine="eager")
PATIENCE = 60  # seconds, beyond which a test hangs


def build():
    torch.manual_seed(0)
    return VAE((4,), latent_dim=2, hidden=(8,), likelihood="gaussian")


def weights_of(program):
    return torch.cat([p.detach().flatten() for p in program.parameters()])


def fitted(program, on_epoch=None):
    ppl_vae.fit(program, DATA, SETTINGS, on_epoch=on_epoch, progress=False)
    return weights_of(program)


def test_what_shares_random_numbers_with_a_fit_is_refused():
    program = build()
    others = [copy.deepcopy(program) for _ in range(4)]
    expected = fitted(others[0])
    begun, tried = Event(), Event()

    def wait(row):
        begun.set()
        assert tried.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(fitted, program, wait)
        try:
            assert begun.wait(PATIENCE)
            before = weights_of(others[1])
            for use in (
                lambda: fitted(others[1]),
                lambda: ppl_vae.evaluate(others[2], DATA.batch("test"), draws=2),
                lambda: ppl_vae.infer(others[2], DATA.batch("test")),
                lambda: ppl_vae.posterior_predictive(others[2], DATA.batch("test")),
            ):
                with pytest.raises(InputError, match="in another thread"):
                    use()
            assert torch.equal(weights_of(others[1]), before)
        finally:
            tried.set()
    assert torch.equal(found.result(), expected)
    assert torch.equal(fitted(others[3]), expected)  # which may be fitted now


def test_scores_of_two_threads_are_those_of_one():
    programs, batch = [build() for _ in range(2)], DATA.batch("test")
    expected = ppl_vae.score(programs[0], batch, draws=20, seed=3).per_datum["elbo"]
    inside, comes = Event(), Event()

    def first():
        def wait(share, note):
            inside.set()
            assert comes.wait(PATIENCE)

        return ppl_vae.score(programs[0], batch, draws=20, seed=3, on_progress=wait)

    def second():
        assert inside.wait(PATIENCE)
        comes.set()
        return ppl_vae.score(programs[1], batch, draws=20, seed=3)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(work) for work in (first, second)]
    for scores in found:
        assert torch.equal(scores.result().per_datum["elbo"], expected)


def test_a_fit_that_calls_back_may_score():
    program = build()
    expected = fitted(copy.deepcopy(program))

    def score(row):
        assert ppl_vae.evaluate(program, DATA.batch("test"), draws=2)

    assert torch.equal(fitted(program, score), expected)
