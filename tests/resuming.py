"""Fits to be stopped and resumed, and what must be the same in the end."""

import torch

from ppl_vae import Config, Run, Settings, fit, make_data
from ppl_vae.models import VAE
from ppl_vae.storage.tensors import read_tensors
from ppl_vae.training.trainer import Trainer

DATA = make_data(torch.rand(320, 5, generator=torch.Generator().manual_seed(0)), binarize="dynamic")
SHORT = Settings(epochs=4, batch_size=2, engine="eager")  # 128 steps an epoch


def new(path, program, settings=SHORT, data=DATA):
    kind = type(program)
    return Run.create(path, Config.of(f"{kind.__module__}:{kind.__name__}", {}, data, settings))


def files_of(path):
    """Weights and metrics, but for seconds, which no two fits have in common."""
    rows = [{**row, "seconds": 0} for row in Run.open(path).metrics()]
    return (path / "weights.safetensors").read_bytes(), rows


def state_of(path):
    tensors, about = read_tensors(Run.open(path).checkpoints.files()[0])
    for row in about["history"]["epochs"]:
        row["seconds"] = 0
    about["state"]["seconds"] = 0
    return tensors, about


def assert_same(path, other):
    assert files_of(path) == files_of(other)
    (ones, about), (twos, expected) = state_of(path), state_of(other)
    assert about == expected
    assert ones.keys() == twos.keys()
    assert all(torch.equal(ones[name], twos[name]) for name in ones)


def stop_after(monkeypatch, steps):
    """Interrupt the next fit, once, after so many of its steps."""
    step, left = Trainer.step, [steps]

    def stopping(trainer, batch):
        if left[0] == 0:
            monkeypatch.setattr(Trainer, "step", step)
            raise KeyboardInterrupt
        left[0] -= 1
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", stopping)


def bernoulli(**options):
    return VAE((5,), latent_dim=2, hidden=(8,), **options)


def resume(run, data=DATA, settings=SHORT, **options):
    return fit(bernoulli(), data, settings, run=run, resume=True, progress=False, **options)
