"""One VAE, one epoch on the same images, in several libraries. See svi_speed.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.optim import PyroOptim
from torch import Tensor, nn

import ppl_vae
from ppl_vae.data.dataset import DataSet, Split

LATENT, PIXELS, RATE = 50, 784, 1e-3
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Task:
    """Images, bytes of shape (N, 784), and how to go through them."""

    images: Tensor
    batch_size: int
    width: int

    @property
    def steps(self) -> int:
        return len(self.images) // self.batch_size


class Networks(nn.Module):
    """Encoder and decoder, and a model and guide of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.code = nn.Linear(PIXELS, width), nn.Linear(width, 2 * LATENT)
        self.down, self.out = nn.Linear(LATENT, width), nn.Linear(width, PIXELS)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = self.code(F.softplus(self.up(x))).chunk(2, -1)
        return loc, F.softplus(raw) + 1e-4

    def decode(self, z: Tensor) -> Tensor:
        return self.out(F.softplus(self.down(z)))

    def model(self, x: Tensor) -> None:
        pyro.module(f"networks-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decode(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module(f"networks-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encode(x)).to_event(1))

    def loss(self, x: Tensor) -> Tensor:
        """The same by hand: minus the ELBO, summed over the batch."""
        loc, scale = self.encode(x)
        noise = torch.randn_like(loc)
        z = loc + scale * noise
        log_ratio = 0.5 * (z.square() - noise.square()).sum() - scale.log().sum()
        return F.binary_cross_entropy_with_logits(self.decode(z), x, reduction="sum") + log_ratio


def products(task: Task) -> Callable[[], Any]:
    """The matrix products of forward and backward passes, and nothing else."""
    n = Networks(task.width).to(DEVICE).requires_grad_(False)
    x = torch.rand(task.batch_size, PIXELS, device=DEVICE)

    def epoch() -> None:
        for _ in range(task.steps):
            hidden = x @ n.up.weight.T
            code = hidden @ n.code.weight.T
            lower = code[:, :LATENT] @ n.down.weight.T
            out = lower @ n.out.weight.T
            for above, layer, below in (
                (out, n.out, lower),
                (lower, n.down, code[:, :LATENT]),
                (code, n.code, hidden),
            ):
                above @ layer.weight, above.T @ below
            hidden.T @ x
        _wait()

    return epoch


def compiled_svi(task: Task) -> Callable[[], Any]:
    """This engine, with its own data feeding."""
    networks = Networks(task.width).to(DEVICE)
    svi = ppl_vae.CompiledSVI(
        networks.model,
        networks.guide,
        PyroOptim(torch.optim.Adam, {"lr": RATE}),
        pyro.infer.Trace_ELBO(),
        engine="compiled",
    )
    return _epoch_of(svi, task)


def stock_svi_same_feed(task: Task) -> Callable[[], Any]:
    """Pyro's, fed by us."""
    networks = Networks(task.width).to(DEVICE)
    return _epoch_of(_stock(networks), task)


def _epoch_of(svi: Any, task: Task) -> Callable[[], Any]:
    rows = torch.arange(len(task.images))
    split = Split(task.images, rows)
    data = DataSet("benchmark", split, split, split, levels=255, binarize="dynamic")
    generator = torch.Generator(DEVICE).manual_seed(0)
    step = getattr(svi, "update", svi.step)

    def epoch() -> float:
        total: Any = 0.0
        for x in data.batches(task.batch_size, generator):
            if len(x) == task.batch_size:  # as the peers, which drop the last ones
                total += step(x)
        return float(total)

    return epoch


def stock_svi(task: Task) -> Callable[[], Any]:
    """Pyro's, as one writes it for data in memory."""
    networks = Networks(task.width).to(DEVICE)
    svi = _stock(networks)
    return _by_hand(task, svi.step)


def _stock(networks: Networks) -> Any:
    optim = PyroOptim(torch.optim.Adam, {"lr": RATE})  # which is pyro.optim.Adam
    return pyro.infer.SVI(networks.model, networks.guide, optim, pyro.infer.Trace_ELBO())


def pyro_example(task: Task) -> Callable[[], Any]:
    """Pyro's example: a DataLoader of transformed images; grey pixels, as it has them."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import ToTensor

    class Images(Dataset):  # torchvision's MNIST, of these images
        def __len__(self) -> int:
            return len(task.images)

        def __getitem__(self, index: int) -> Tensor:
            image = Image.fromarray(task.images[index].numpy().reshape(28, 28), mode="L")
            return to_tensor(image)

    to_tensor = ToTensor()
    networks = Networks(task.width).to(DEVICE)
    svi = _stock(networks)
    loader = DataLoader(Images(), batch_size=task.batch_size, shuffle=True, drop_last=True)

    def epoch() -> None:
        for x in loader:
            with pyro.validation_enabled(False):  # or grey pixels are refused
                svi.step(x.reshape(-1, PIXELS).to(DEVICE))

    return epoch


def by_hand(task: Task, compiled: bool = False) -> Callable[[], Any]:
    """PyTorch as one writes it by hand."""
    networks = Networks(task.width).to(DEVICE)
    adam = torch.optim.Adam(networks.parameters(), lr=RATE, fused=True)
    loss_of = torch.compile(networks.loss) if compiled else networks.loss

    def step(x: Tensor) -> float:
        adam.zero_grad(set_to_none=True)
        loss = loss_of(x)
        loss.backward()
        adam.step()
        return loss.item()

    return _by_hand(task, step)


def _by_hand(task: Task, step: Callable[[Tensor], float]) -> Callable[[], Any]:
    grey = (task.images.float() / 255).to(DEVICE)

    def epoch() -> float:
        total = 0.0
        order = torch.randperm(len(grey), device=DEVICE)
        for index in order.split(task.batch_size)[: task.steps]:
            total += step(torch.bernoulli(grey[index]))
        return total

    return epoch


def cuda_graph(task: Task) -> Callable[[], Any]:
    """PyTorch by hand, a step captured as a CUDA graph."""
    if DEVICE.type != "cuda":
        raise LookupError("needs a CUDA device")
    networks = Networks(task.width).to(DEVICE)
    adam = torch.optim.Adam(networks.parameters(), lr=RATE, fused=True, capturable=True)
    x = torch.zeros(task.batch_size, PIXELS, device=DEVICE)

    def step() -> Tensor:
        adam.zero_grad(set_to_none=True)
        loss = networks.loss(x)
        loss.backward()
        adam.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    grey = (task.images.float() / 255).to(DEVICE)

    def epoch() -> float:
        total = torch.zeros((), device=DEVICE)
        order = torch.randperm(len(grey), device=DEVICE)
        for index in order.split(task.batch_size)[: task.steps]:
            x.copy_(torch.bernoulli(grey[index]))
            graph.replay()
            total += loss
        return total.item()

    return epoch


def numpyro_epoch(task: Task) -> Callable[[], Any]:
    """NumPyro, a whole epoch in one jitted loop."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as ndist
    from jax.example_libraries import stax

    soft = stax.elementwise(jax.nn.softplus)
    scale = stax.elementwise(lambda raw: jax.nn.softplus(raw) + 1e-4)
    heads = stax.parallel(stax.Dense(LATENT), stax.serial(stax.Dense(LATENT), scale))
    encoder = stax.serial(stax.Dense(task.width), soft, stax.FanOut(2), heads)
    decoder = stax.serial(stax.Dense(task.width), soft, stax.Dense(PIXELS))

    def model(x: Any) -> None:
        decode = numpyro.module("decoder", decoder, (len(x), LATENT))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", ndist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            numpyro.sample("x", ndist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        encode = numpyro.module("encoder", encoder, (len(x), PIXELS))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", ndist.Normal(*encode(x)).to_event(1))

    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(RATE), numpyro.infer.Trace_ELBO())
    images = jnp.asarray(task.images.numpy())
    state = svi.init(jax.random.PRNGKey(0), jnp.zeros((task.batch_size, PIXELS)))

    @jax.jit
    def run(state: Any, key: Any, images: Any) -> Any:
        order_key, pixel_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(task.images))
        order = order[: task.steps * task.batch_size].reshape(task.steps, task.batch_size)

        def body(i: Any, carried: Any) -> Any:
            state, total = carried
            grey = jnp.take(images, order[i], axis=0) / 255.0
            x = jax.random.bernoulli(jax.random.fold_in(pixel_key, i), grey).astype(jnp.float32)
            state, loss = svi.update(state, x)
            return state, total + loss

        return jax.lax.fori_loop(0, task.steps, body, (state, 0.0))

    keys = iter(jax.random.split(jax.random.PRNGKey(1), 1000))

    def epoch() -> float:
        nonlocal state
        state, total = run(state, next(keys), images)
        return float(total)

    return epoch


def pythae_epoch(task: Task) -> Callable[[], Any]:
    """pythae's trainer; its data stay as they are, binarized once."""
    import tempfile

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    networks = Networks(task.width)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.networks = networks

        def forward(self, x: Tensor) -> Any:
            loc, scale = self.networks.encode(x.flatten(1))
            return ModelOutput(embedding=loc, log_covariance=2 * scale.log())

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.networks = networks

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.networks.decode(z).sigmoid())

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    binary = torch.bernoulli(task.images / 255.0)
    trainer = BaseTrainer(
        VAE(config, Encoder(), Decoder()),
        BaseDataset(binary, torch.ones(len(binary))),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=task.batch_size,
            learning_rate=RATE,
            num_epochs=1,
            no_cuda=DEVICE.type == "cpu",
        ),
    )
    trainer.prepare_training()
    return lambda: trainer.train_step(1)


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


PEERS: dict[str, Callable[[Task], Callable[[], Any]]] = {
    "matrix products alone, torch.mm": products,
    "ppl_vae.CompiledSVI": compiled_svi,
    "NumPyro, epoch jitted": numpyro_epoch,
    "PyTorch by hand, compiled": lambda task: by_hand(task, compiled=True),
    "PyTorch by hand, eager": by_hand,
    "PyTorch by hand, CUDA graph": cuda_graph,
    "pythae's trainer, data binarized once": pythae_epoch,
    "pyro.infer.SVI, fed by ppl_vae": stock_svi_same_feed,
    "pyro.infer.SVI, in memory": stock_svi,
    "Pyro's example, DataLoader of grey images": pyro_example,
}
