"""Half of the cells of six tables hidden, and imputed: how far off, and how many do intervals hold?

    python benchmarks/imputation.py                     # six tables, three masks each
    python benchmarks/imputation.py --tables iris wine --masks 1
    python benchmarks/imputation.py --output a.jsonl    # a line a table and mask; goes on there

Each cell is hidden with probability 1/2. The VAE is fitted to what is left, as `ppl-vae train
--objective iw` does; of a linear decoder and one of 64 hidden units, and of two numbers of latents,
the one with the highest bound on the validation data is taken, so that nothing hidden chooses
anything. Errors are root mean squares over hidden cells, in standard deviations of the complete
column; beside it scikit-learn's imputers in their defaults. Intervals are of 90 %, calibrated on
the validation data.
"""

import argparse
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

import ppl_vae
from ppl_vae.data.schema import Column
from ppl_vae.models import VAE

HIDDEN_SHARE, COVERAGE = 0.5, 0.9
EPOCHS_OF_ROWS = 120_000  # rows that a fit goes through, whatever the size of the table
BATCH, PARTICLES, LEARNING_RATE = 64, 20, 3e-3
DECODERS, LATENTS = {"linear": (), "64": (64,)}, (2, 8)
BOUND_DRAWS = 500


def digits() -> np.ndarray:
    pixels = datasets.load_digits().data
    return pixels[:, pixels.std(0) > 0]


TABLES = {
    "iris": lambda: datasets.load_iris().data,
    "wine": lambda: datasets.load_wine().data,
    "breast cancer": lambda: datasets.load_breast_cancer().data,
    "diabetes": lambda: datasets.load_diabetes(scaled=False).data,
    "digits": digits,
    "swiss roll": lambda: datasets.make_swiss_roll(1000, noise=0.5, random_state=0)[0],
}


def measure(name: str, mask_seed: int) -> dict[str, Any]:
    """Hide cells of a table, and impute them by all methods."""
    table = TABLES[name]()
    hidden = np.random.default_rng(mask_seed).random(table.shape) < HIDDEN_SHARE
    given = np.where(hidden, np.nan, table)
    spread = table.std(0)

    def rmse(filled: np.ndarray) -> float:
        return float(np.sqrt((((filled - table) / spread)[hidden] ** 2).mean()))

    loc, scale = np.nanmean(given, 0), np.nanstd(given, 0)
    scale = np.where(scale > 0, scale, 1.0)
    units = (given - loc) / scale  # which matter to nearest neighbours
    peers = {
        "mean": SimpleImputer(),
        "k-NN": KNNImputer(),
        "MICE": IterativeImputer(random_state=0),
    }
    found: dict[str, Any] = {"table": name, "mask": mask_seed, "shape": table.shape}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MICE does not converge in its ten rounds, and says so
        for peer, imputer in peers.items():
            found[peer] = rmse(imputer.fit_transform(units) * scale + loc)
    started = time.process_time()
    imputed, found["chosen"] = impute(given, loc, scale)
    found["seconds"] = time.process_time() - started
    found["VAE"] = rmse(imputed["x"].values)
    inside = (imputed["lower"].values <= table) & (table <= imputed["upper"].values)
    found["coverage"] = float(inside[hidden].mean())
    width = (imputed["upper"].values - imputed["lower"].values) / spread
    found["width"] = float(width[hidden].mean())
    return found


def impute(given: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> tuple[Any, str]:
    """The table imputed by the VAE with the highest validation bound, and which one it is."""
    places = zip(loc, scale, strict=True)
    columns = [Column(f"{i}", "real", float(m), float(s)) for i, (m, s) in enumerate(places)]
    data = ppl_vae.make_data(given, test=(given[:1], None))
    settings = ppl_vae.Settings(
        epochs=max(1, EPOCHS_OF_ROWS // len(data.train)),
        batch_size=min(BATCH, len(data.train)),
        learning_rate=LEARNING_RATE,
        objective="iw",
        particles=PARTICLES,
    )
    fits = []
    for decoder, hidden in DECODERS.items():
        for latents in LATENTS:
            torch.manual_seed(0)
            vae = VAE(
                data.shape,
                latents,
                hidden=hidden,
                encoder_hidden=(64,),
                likelihood="gaussian",
                columns=[column.plain() for column in columns],
            )
            ppl_vae.fit(vae, data, settings, progress=False)
            scores = ppl_vae.score(vae, data.batch("validation"), BOUND_DRAWS)
            fits.append((float(scores.per_datum["iw_bound"].mean()), f"{decoder}, {latents}", vae))
    _, chosen, vae = max(fits, key=lambda fit: fit[0])
    mask = ~np.isnan(given)
    batch = {
        "x": torch.as_tensor(np.where(mask, given, 0.0)).float(),
        "mask": torch.as_tensor(mask),
    }
    held_out = data.batch("validation")
    return ppl_vae.impute(vae, batch, coverage=COVERAGE, calibration=held_out), chosen


def show(rows: list[dict[str, Any]]) -> None:
    """One line a table: means over masks, and their range."""
    by_table = defaultdict(list)
    for row in rows:
        by_table[row["table"]].append(row)
    names = ["VAE", "MICE", "k-NN", "mean", "coverage", "width", "seconds"]
    print("| table | masks | " + " | ".join(names) + " | chosen |")
    print("| --- | ---: |" + " ---: |" * len(names) + " --- |")
    for table, found in by_table.items():
        cells = [f"{table} {tuple(found[0]['shape'])}", str(len(found))]
        for name in names:
            values = [row[name] for row in found]
            digits = 0 if name == "seconds" else 3
            span = (
                f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else ""
            )
            cells.append(f"{np.mean(values):.{digits}f}{span}")
        print("| " + " | ".join(cells) + " | " + "; ".join(row["chosen"] for row in found) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--masks", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a .jsonl file to go on with")
    given = parser.parse_args()
    rows = []
    if given.output and given.output.exists():
        rows = [json.loads(line) for line in given.output.read_text().splitlines()]
    done = {(row["table"], row["mask"]) for row in rows}
    for mask in range(given.masks):
        for table in given.tables:
            if (table, mask) not in done:
                rows.append(measure(table, mask))
                print(json.dumps(rows[-1]), flush=True)
                if given.output:
                    with given.output.open("a") as stream:
                        stream.write(json.dumps(rows[-1]) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
