"""Time an epoch of one VAE on MNIST under this engine and its peers, side by side in one process.

    python benchmarks/svi_speed.py --data-dir DIR  # the first table there
    python benchmarks/svi_speed.py --data-dir DIR --batch-size 20 --images 12000
    python benchmarks/svi_speed.py --data-dir DIR --plot docs/speed.png

All fit 784-H-(50)-H-784 with softplus and Adam to the same images, which all but two of the peers
binarize anew for each batch. They take turns, A B C A B C, for some rounds; a ratio is that of two
times in the same round, and the median over rounds is printed with its range.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from peers import PEERS, Task

import ppl_vae

OURS = "ppl_vae.CompiledSVI"
BATCHES, WIDTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096), (100, 200, 400, 1000, 2000)
PLOTTED = (OURS, "pyro.infer.SVI, in memory", "PyTorch by hand, eager", "NumPyro, epoch jitted")


def load_images(data_dir: Path | None, count: int | None) -> torch.Tensor:
    """Training images as bytes, of shape (N, 784)."""
    data = ppl_vae.load_data("mnist", data_dir=data_dir, binarize="dynamic")
    images = torch.cat([data.train.x, data.validation.x]).flatten(1)
    return images[:count]


def prepared(task: Task, names: list[str]) -> dict[str, Callable[[], Any] | str]:
    """An epoch of each peer, warm; or why there is none."""
    found: dict[str, Callable[[], Any] | str] = {}
    for name in names:
        try:
            epoch = PEERS[name](task)
            epoch()
        except ImportError as error:
            found[name] = f"not installed ({error.name}): pip install 'ppl-vae[bench]'"
            continue
        except LookupError as error:
            found[name] = str(error)
            continue
        found[name] = epoch
    return found


def race(epochs: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of each epoch, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


def print_table(task: Task, rounds: int) -> None:
    epochs = prepared(task, list(PEERS))
    there = {name: epoch for name, epoch in epochs.items() if callable(epoch)}
    seconds = race(there, rounds)
    print(f"batch {task.batch_size}, {len(task.images)} images, {rounds} rounds, {_where()}\n")
    print("| who | seconds an epoch | ours, as a share of it |\n| --- | --- | --- |")
    for name, epoch in epochs.items():
        if not callable(epoch):
            print(f"| {name} | {epoch} | |")
            continue
        shares = [ours / theirs for ours, theirs in zip(seconds[OURS], seconds[name], strict=True)]
        print(f"| {name} | {spread(seconds[name])} | {spread(shares)} |")


def plot(images: torch.Tensor, rounds: int, file: Path) -> None:
    """Images a second against batch size and width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=False)
    tasks = {
        "batch size, at width 400": [Task(images[: max(8192, 20 * b)], b, 400) for b in BATCHES],
        "width of the hidden layers, at batch size 256": [
            Task(images[: 256 * 32], 256, width) for width in WIDTHS
        ],
    }
    for axis, (label, ladder) in zip(axes, tasks.items(), strict=True):
        lines: dict[str, list[float]] = {name: [] for name in PLOTTED}
        for task in ladder:
            epochs = prepared(task, list(PLOTTED))
            there = {name: epoch for name, epoch in epochs.items() if callable(epoch)}
            for name, seconds in race(there, rounds).items():
                lines[name].append(len(task.images) / statistics.median(seconds))
            pyro.clear_param_store()
            print(label, task.batch_size, task.width, {n: round(v[-1]) for n, v in lines.items()})
        ticks = BATCHES if "batch size, at" in label else WIDTHS
        for name, rates in lines.items():
            axis.loglog(ticks, rates, marker="o", label=name)
        axis.set_xticks(ticks, map(str, ticks), minor=False)
        axis.minorticks_off()
        axis.set(xlabel=label, ylabel="images a second")
        axis.grid(alpha=0.3, which="both")
    axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=120)


def _where() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, default=400)
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    images = load_images(options.data_dir, options.images)
    if options.plot:
        plot(images, options.rounds, options.plot)
    else:
        print_table(Task(images, options.batch_size, options.width), options.rounds)


if __name__ == "__main__":
    main()
