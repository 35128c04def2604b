"""Fits in two processes, which tests/test_processes.py starts with torchrun.

torchrun --nproc-per-node 2 -m tests.together FOLDER CASE
"""

import os
import signal
import sys
from pathlib import Path
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
import torch.distributed
import typer
from torch import nn

from ppl_vae import Config, InputError, Run, Settings, fit, make_data
from ppl_vae.cli import handled
from ppl_vae.cli.shares import by_shares
from ppl_vae.models import VAE
from ppl_vae.storage.tensors import write_tensors

ROWS = 131  # 100 to train on: three batches of 33, and one of a single row
SETTINGS = {
    "plain": Settings(epochs=3, batch_size=33, engine="eager", learning_rate=0.01),
    "clipped": Settings(epochs=3, batch_size=33, engine="eager", clip_norm=0.5),
    "compiled": Settings(epochs=3, batch_size=33, engine="compiled"),
    "free bits": Settings(epochs=3, batch_size=33, free_bits=1.5, learning_rate=0.01),
}


class NoiseInData(nn.Module):
    """A VAE whose draws of z are a function of a covariate, and so the same in any process."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(5, 4), nn.Linear(2, 5)
        self.unused = nn.Parameter(torch.ones(3))

    def model(self, x, noise):
        pyro.module("program", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(noise), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x, noise):
        pyro.module("program", self)
        mean, log_scale = self.encoder(x).chunk(2, -1)
        q = dist.Normal(mean, log_scale.exp()).to_event(1)
        z = mean + log_scale.exp() * noise
        with pyro.plate("data", len(x)):
            pyro.sample("z", Shifted(z, q))


class Shifted(dist.TorchDistribution):
    """The density of a normal, and a draw that is given."""

    has_rsample = True
    arg_constraints: ClassVar = {}
    support = dist.constraints.real_vector

    def __init__(self, value, normal):
        self.value, self.normal = value, normal
        super().__init__(normal.batch_shape, normal.event_shape, validate_args=False)

    def rsample(self, sample_shape=()):
        return self.value.expand(self.shape(sample_shape))

    def log_prob(self, value):
        return self.normal.log_prob(value)

    def expand(self, batch_shape, _instance=None):
        shape = torch.Size(batch_shape)
        return Shifted(self.value.expand(shape + self.event_shape), self.normal.expand(shape))


def data():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(ROWS, 5, generator=generator), torch.randn(ROWS, 2, generator=generator)
    return make_data(x, covariates={"noise": noise})


def program():
    torch.manual_seed(3)
    return NoiseInData()


def weights_of(fitted):
    return {name: value.detach().clone() for name, value in fitted.state_dict().items()}


def fitted(settings):
    made = program()
    history = fit(made, data(), settings, progress=False)
    return weights_of(made) | {
        "losses": torch.tensor([row["loss"] for row in history.epochs], dtype=torch.float64)
    }


GREY = make_data(torch.rand(320, 5, generator=torch.Generator().manual_seed(0)), binarize="dynamic")
SHORT = Settings(epochs=4, batch_size=16, engine="eager")


def bernoulli():
    torch.manual_seed(int(os.environ.get("RANK", 0)))  # all begin with the weights of the first
    return VAE((5,), latent_dim=2, hidden=(8,))


def recorded(path, resume, kill_at=0):
    """Fit with a run; the second process may kill itself after an epoch."""
    made, first = bernoulli(), os.environ["RANK"] == "0"
    run = None
    if first:
        config = Config.of("ppl_vae.models:VAE", {}, GREY, SHORT)
        run = Run.open(path) if resume else Run.create(path, config)
    if kill_at and not first:
        _kill_in(kill_at)
    with handled(_interrupt):  # torchrun ends the others by SIGTERM
        try:
            fit(made, GREY, SHORT, run=run, resume=resume, progress=False)
        except (InputError, KeyboardInterrupt):
            sys.exit(2)


def _interrupt(*_):
    raise KeyboardInterrupt


def _kill_in(steps):
    from ppl_vae.training.trainer import Trainer

    step, left = Trainer.step, [steps]

    def dying(trainer, batch):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, batch)

    Trainer.step = dying


def odd(part, place, seed):
    """Work on a share of the data, of which the second process's cannot be done."""
    if place.start:
        raise InputError("datum 70", "is odd", "fit-again")
    return part.size


def main(folder, case):
    rank = int(os.environ["RANK"])
    if case == "equal":
        for name, settings in SETTINGS.items():
            write_tensors(folder / f"{name} {rank}.safetensors", fitted(settings), {})
    elif case == "odd":
        try:
            by_shares(GREY.batch("test"), 0, odd)
        except (InputError, typer.Exit) as error:
            if isinstance(error, InputError):
                words = f"process {rank}: {error.culprit} {error.problem}, {error.remedy}"
                sys.stdout.write(words + "\n")
    else:
        recorded(folder / "run", resume=case == "resume", kill_at=35 if case == "die" else 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2])
