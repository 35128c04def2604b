"""Simulate a fit of 10^9 rows on many GPUs: the exchange of gradients, and the input.

    python benchmarks/scale.py                     # 1 to 512 GPUs, the table of docs/scale.md
    python benchmarks/scale.py --share 1024        # data points of a step on each GPU
    python benchmarks/scale.py --from disk

Each message of the exchange is simulated, from worker to worker, and each block that is read. A
worker computes when its rows have come, exchanges gradients with the others, and reads ahead by two
steps meanwhile. Beside the simulation stands the sum that one would write down. Times of a step are
those of docs/gpu.json; what networks and disks do is assumed, as printed.
"""

import argparse
import json
import random
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

GPU = Path(__file__).parents[1] / "docs/gpu.json"
ROWS, ROW_BYTES = 10**9, 784
PARAMETERS = sum(a * b + b for a, b in ((784, 400), (400, 100), (50, 400), (400, 784)))
AHEAD = 2  # steps that are read before they are needed


@dataclass(frozen=True)
class Machines:
    """What a fit runs on. Seconds, and bytes a second.

    Attributes:
        node: GPUs that share a machine, and its disk.
        inside, between: Latency of a message inside a machine, and between two of them.
        link, network: What a GPU sends inside a machine, and to another.
        disk: What a machine reads.
        jitter: Standard deviation of the time of a step, as a share of it.
    """

    node: int = 8
    inside: float = 3e-6
    between: float = 8e-6
    link: float = 300e9
    network: float = 50e9
    disk: float = 7e9
    jitter: float = 0.05


def step_seconds(share: int) -> float:
    """Of a step of ``share`` data points on one GPU: a line through the measured ones."""
    speeds = json.loads(GPU.read_text())["speed"]
    seconds = {
        int(size): 1 / speeds[size]["steps_per_second"]["ppl_vae.CompiledSVI"]["median"]
        for size in ("256", "4096")
    }
    slope = (seconds[4096] - seconds[256]) / (4096 - 256)
    return seconds[256] + slope * (share - 256)


def ring(
    ready: list[float], latency: float, bandwidth: float, size: float, times: int = 2
) -> list[float]:
    """When each worker of a ring has the sum, given when each has its own part.

    Each sends a piece of 1/n to the next, n - 1 times until each has the sum of one piece, and as
    often again until each has all of them; no one sends a piece before it has received the one
    before (Patarasuk & Yuan 2009). One of the two is done if ``times`` is 1.
    """
    count, at = len(ready), [*ready]
    for _ in range(times * (count - 1)):
        sent = latency + size / count / bandwidth
        at = [max(at[place], at[place - 1]) + sent for place in range(count)]
    return at


def exchange(ready: list[float], machines: Machines, size: float) -> list[float]:
    """When each worker has the sum: rings inside the machines, and between them, piece by piece.

    A GPU of a machine first has the sum of one piece in that machine, then in all, then all pieces.
    """
    node = min(machines.node, len(ready))
    groups = [ready[first : first + node] for first in range(0, len(ready), node)]
    half = [ring(group, machines.inside, machines.link, size, times=1) for group in groups]
    if len(groups) > 1:
        across = [
            ring([group[place] for group in half], machines.between, machines.network, size / node)
            for place in range(node)
        ]
        half = [[across[place][index] for place in range(node)] for index in range(len(groups))]
    return [
        at for group in half for at in ring(group, machines.inside, machines.link, size, times=1)
    ]


def exchange_seconds(count: int, machines: Machines, size: float) -> float:
    """The sum that one would write down for :func:`exchange`."""
    node = min(machines.node, count)
    nodes = count // node
    inside = 2 * (node - 1) * (machines.inside + size / node / machines.link)
    between = 2 * (nodes - 1) * (machines.between + size / node / nodes / machines.network)
    return inside + between


def simulate(
    count: int, share: int, machines: Machines, from_disk: bool, steps: int = 200, seed: int = 0
) -> float:
    """Seconds of a step, as the mean over some."""
    generator, compute = random.Random(seed), step_seconds(share)
    size, node = 4.0 * PARAMETERS, min(machines.node, count)
    read = share * node * ROW_BYTES / machines.disk if from_disk else 0.0
    done, disk = [0.0] * count, 0.0
    ends = [0.0] * AHEAD  # of the last steps, whose rows made room for those of the next
    for _ in range(steps):
        disk = max(disk, ends[-AHEAD]) + read
        ready = [
            max(at, disk) + compute * max(0.0, generator.gauss(1.0, machines.jitter)) for at in done
        ]
        done = exchange(ready, machines, size)
        ends.append(max(done))
    return ends[-1] / steps


def written_down(count: int, share: int, machines: Machines, from_disk: bool) -> float:
    """Seconds of a step without jitter: the slower of reading and of computing and exchanging."""
    read = share * min(machines.node, count) * ROW_BYTES / machines.disk if from_disk else 0.0
    own = step_seconds(share) + exchange_seconds(count, machines, 4.0 * PARAMETERS)
    return max(read, own)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=int, default=4096)
    parser.add_argument("--from", dest="source", choices=["memory", "disk"], default="memory")
    options = parser.parse_args()
    machines, from_disk = Machines(), options.source == "disk"
    alone = step_seconds(options.share)
    print(f"{PARAMETERS:,} parameters, {options.share} data points a GPU and step, from")
    print(f"{options.source}; {machines}\n")
    print("| GPUs | step, ms | written down, ms | exchange | epoch, s | of the speed of all |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        runs = [simulate(count, options.share, machines, from_disk, seed=s) for s in range(3)]
        step, still = statistics.median(runs), replace(machines, jitter=0.0)
        sum_, epoch = written_down(count, options.share, still, from_disk), ROWS / options.share
        swap = exchange_seconds(count, machines, 4.0 * PARAMETERS)
        print(
            f"| {count} | {1e3 * step:.2f} | {1e3 * sum_:.2f} | {swap / step:.0%} | "
            f"{epoch / count * step:.1f} | {alone / step:.0%} |"
        )


if __name__ == "__main__":
    main()
