"""Time the bound of 5,000 draws beside that of the matrix products that it consists of.

    python benchmarks/evidence_speed.py --data-dir DIR                # all 10,000 test images
    python benchmarks/evidence_speed.py --data-dir DIR --images 500   # a first look

The networks are untrained: time does not depend on weights. Scoring, which is compiled, and
products take turns on slices of the images, in one process; a ratio is the median over slices,
with its range, less the first one, in which the compiling is. The products are the layers' own
`nn.Linear`, on as many rows at once as the scoring has, and on fewer, whichever is faster.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import ppl_vae
from ppl_vae.models import VAE
from ppl_vae.programs.scoring import BLOCK_ELEMENTS

DRAWS, SLICES = 5000, 10
NETWORKS = {
    "784-500-500-(50), SiLU, the default": VAE((1, 28, 28)),
    "784-200-200-(50), tanh, of Burda et al.": VAE(
        (1, 28, 28), hidden=(200, 200), activation="tanh"
    ),
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


@torch.no_grad()
def products(vae: VAE, images: Tensor, rows: int) -> None:
    """The encoder's products for the images, and the decoder's for every draw of them."""
    for chain, total, at_once in (
        (layers(vae.encoder), len(images), len(images)),
        (layers(vae.decoder), len(images) * DRAWS, rows),
    ):
        inputs = [torch.ones(at_once, layer.in_features) for layer in chain]
        for _ in range(0, total, at_once):
            for layer, values in zip(chain, inputs, strict=True):
                layer(values)


class Turns:
    """After each slice of the scoring, the products of as many draws."""

    def __init__(self, vae: VAE, x: Tensor) -> None:
        self.vae, self.x = vae, x
        self.scoring: list[float] = []
        self.alone: list[float] = []
        self.rows, self.start = 0, time.perf_counter()

    def __call__(self, share: float, note: str) -> None:
        self.rows += round(share * len(self.x) * DRAWS)
        if self.rows < len(self.x) * DRAWS // SLICES:
            return
        self.scoring.append(time.perf_counter() - self.start)
        images = self.x[: self.rows // DRAWS]
        blocks = (DRAWS // 4, BLOCK_ELEMENTS // 784 // DRAWS * DRAWS)
        timed = (seconds(partial(products, self.vae, images, rows)) for rows in blocks)
        self.alone.append(min(timed))
        self.rows, self.start = 0, time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where MNIST lies, as for ppl-vae train")
    parser.add_argument("--images", type=int, default=10_000, help="the first so many test images")
    options = parser.parse_args()
    data = ppl_vae.load_data("mnist", data_dir=options.data_dir, binarize="dynamic")
    x = data.fixed("test")[: options.images]
    print(f"{len(x)} images, {DRAWS} draws each, {torch.get_num_threads()} threads")
    print("| network | scoring | products alone | ratio (range) | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    for name, vae in NETWORKS.items():
        turns = Turns(vae, x)
        ppl_vae.score(vae, x, DRAWS, on_progress=turns)
        scoring, alone = turns.scoring, turns.alone
        ratios = [a / b for a, b in zip(scoring, alone, strict=True)][1:]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
        print(
            f"| {name} | {sum(scoring):.0f} s | {sum(alone):.0f} s "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f}) "
            f"| {peak:.2f} GiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
