"""Does a repair mend a guide that was spoilt, and leave the model as it is, to the bit?

    python benchmarks/repair.py                                  # 100 seeds, all faults
    python benchmarks/repair.py --seeds 3 --output repairs.jsonl  # a line a repair; goes on there

Probabilistic PCA with two units, whose guide can be the posterior. Faults are put into the exact
guide, and ``repair`` is given a fresh program to train a guide in. Of each fault: in how many seeds
the spoilt guide had caution or fail on a question; in how many all four questions pass in the last
column, and in how many none has caution or fail there; in how many p(x, z) is the same to the bit.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from certificate import FAULTS, spoil
from diagnostic_power import linear_gaussian

import ppl_vae
from ppl_vae import Effort, Settings
from ppl_vae.models import LinearGaussian
from ppl_vae.runtime import derived_seed

MENDED = tuple(fault for fault in FAULTS if fault not in ("none", "scale 1 % too small"))
SETTINGS = Settings(epochs=30, learning_rate=0.02, batch_size=100)
EFFORT = Effort(data_points=500, draws=400, simulations=4000, gap_points=40, nuts_points=8)
DATA = 4000  # of which a part is held out
ALARMS = ("caution", "fail")


def one_repair(fault: str, number: int) -> dict[str, Any]:
    """The grades of each column, of one fault and seed."""
    seed = derived_seed(number, fault)
    program = spoil(linear_gaussian(fault == "correlation ignored"), fault)
    torch.manual_seed(seed)
    x = ppl_vae.prior_predictive(program, program.data_shape, DATA, seed).x
    data = ppl_vae.make_data(x)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    successor = LinearGaussian(program.data_shape, latent_dim=2)
    found = ppl_vae.repair(program, data, successor, SETTINGS, EFFORT, seed)
    same = all(torch.equal(before[name], v) for name, v in program.state_dict().items())
    mended: Any = found.program
    held_out = data.fixed("test")
    same &= torch.equal(mended.evidence(held_out), program.evidence(held_out))
    columns = {
        name: {key: (v.grade, v.value, v.error) for key, v in column.items()}
        for name, column in found.columns.items()
    }
    return {"fault": fault, "seed": number, "columns": columns, "same": bool(same)}


def show(found: list[dict[str, Any]]) -> None:
    """Print a row for each fault."""
    print("| fault | seeds | alarm before | all pass after | no alarm after | p(x, z) the same |")
    print("|" + " --- |" * 6)
    for fault in MENDED:
        lines = [line for line in found if line["fault"] == fault]
        before, after = (
            [[g for g, *_ in list(line["columns"].values())[place].values()] for line in lines]
            for place in (0, -1)
        )
        counts = (
            sum(any(g in ALARMS for g in grades) for grades in before),
            sum(all(g == "pass" for g in grades) for grades in after),
            sum(not any(g in ALARMS for g in grades) for grades in after),
            sum(line["same"] for line in lines),
        )
        print(f"| {fault} | {len(lines)} | {' | '.join(map(str, counts))} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found = []
    if options.output and options.output.exists():
        found = [json.loads(line) for line in options.output.read_text().splitlines()]
    done = {(line["fault"], line["seed"]) for line in found}
    for number in range(options.seeds):
        for fault in MENDED:
            if (fault, number) not in done:
                found.append(one_repair(fault, number))
                if options.output:
                    with options.output.open("a") as file:
                        file.write(json.dumps(found[-1]) + "\n")
    show(found)


if __name__ == "__main__":
    main()
