"""Results on standard output, as tables or as JSON."""

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ..errors import printable
from ..evidence import results
from ..evidence.scores import Estimate, Ledger
from ..labels import round_together
from .terminal import Console, write_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray

    from ..data.schema import Column
    from ..diagnostics.remedies import Remedy
    from ..inference.codes import Codes
    from ..inference.compare import Comparison

TITLES = {
    "elbo": "ELBO",
    "reconstruction": "  reconstruction, E log p(x|z)",
    "kl": "  KL(q(z|x) || p(z))",
    "iw_bound": "log p(x): importance-weighted bound",
    "iw_jackknife": "  less its bias, by the jackknife",
    "refined_bound": "log p(x): bound of refined guides",
    "k_hat": "  (mean Pareto k-hat of their weights)",
    "ais_bound": "log p(x): annealed bound from below",
    "upper_bound": "log p(x): annealed bound from above",
    "gap": "  gap between the two",
    "kl_to_posterior": "KL(q(z|x) || p(z|x)), at least",
    "kl_to_posterior_upper": "KL(q(z|x) || p(z|x)), at most",
    "bits_per_dim": "bits per dimension, at most",
    "independent_columns": "(log p(x) of independent columns)",
    "acceptance": "(share of trajectories accepted)",
    "squared_error": "squared error",
}
CLASS_TITLES = {
    "accuracy": "accuracy",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "ece_by_chance": "  of a calibrated classifier, by chance",
    "log_temperature": "log of the temperature",
    "brier_calibrated": "Brier score at the temperature",
    "ece_calibrated": "calibration error at the temperature",
    "ece_calibrated_by_chance": "  of a calibrated classifier, by chance",
}
UNITS = {"squared_error": "squared units of the data"}  # all others are in nats
DECIMALS = 2  # of nats
ROWS = 20  # that are listed
IMPUTED = ("missing", "sd", "lower", "upper", "probability")  # of cells
DECIMALS_OF_PAIRS = 3  # whose differences are known better


def print_json(data: dict[str, Any]) -> None:
    """Print one object on standard output: bare JSON, even where colours are forced."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    # In strings alone there is anything else that is not printable.
    write_line("\n".join(re.sub(r"[^ -~]", _escaped, line) for line in text.split("\n")))


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def show(
    estimates: dict[str, Estimate],
    about: dict[str, Any],
    as_json: bool,
    ledger: Ledger | None = None,
) -> None:
    """Print estimates and what they are about.

    Arguments:
        estimates: Estimates, by their plain names.
        about: Run, files, counts and the like.
        as_json: Whether to print one JSON object instead of tables.
        ledger: The ELBO as a sum over sites, to be shown too.
    """
    if as_json:
        print_json(results.as_json(estimates, about, ledger))
        return
    console = Console()
    if estimates:
        console.print(_estimates_table(estimates, about))
    if ledger is not None:
        console.print(_ledger_table(ledger))
    if "reconstruction" in estimates and "elbo" not in estimates:
        console.print("The guide is a point mass: it has no density, and so no ELBO.")
    show_about(about)


def show_about(about: dict[str, Any]) -> None:
    """Print files, counts and the like, by their names."""
    for name, value in about.items():
        lines = [printable(str(line)) for line in (value if isinstance(value, list) else [value])]
        Console().print(
            f"{name}:",
            *lines,
            markup=False,
            highlight=False,
            soft_wrap=True,
            sep="\n  " if len(lines) > 1 else " ",
        )


def show_classification(estimates: dict[str, Estimate]) -> None:
    """Print how good the guide's classes are, as they are and at the temperature."""
    if not estimates:
        return
    n = estimates["accuracy"].n
    table = new_table(f"classes of {n} data points by q(y|x)", ["per datum"], ["", "error"])
    for name, title in CLASS_TITLES.items():
        if name in estimates:
            table.add_row(
                title, *(f"{v:.4f}" for v in (estimates[name].mean, estimates[name].stderr))
            )
    console = Console()
    console.print(table)
    console.print("log p(x) above is log p(x, y) of data whose label y is known", style="dim")


def show_remedies(remedies: "list[tuple[Remedy, list[str]]]") -> None:
    """Print what can be done, as commands that can be pasted."""
    console = Console()
    if remedies:
        console.print("[bold]What to do, the likeliest first:[/]")
    for remedy, questions in remedies:
        console.print(f"  {remedy.command}", markup=False, highlight=False, soft_wrap=True)
        words = f"for {', '.join(questions)}: {remedy.changes}; takes {remedy.cost}"
        console.print(Padding(escape(words), (0, 0, 0, 4)), style="dim")


def show_codes(codes: "Codes", about: dict[str, Any], as_json: bool) -> None:
    """Print how many data points each method was taken for, and how many passed."""
    from ..inference.codes import METHODS

    counts = codes.counts()
    evidence = Estimate.of(codes.log_evidence)
    if as_json:
        summary = {"methods": counts, "certified": float(codes.certified.double().mean())}
        found = results.as_json({"log_evidence": evidence}, summary | about)
        print_json(found | {"left_out": codes.left_out})
        return
    table = new_table(
        f"{len(codes.certified)} data points", ["method"], ["data points", "certified"]
    )
    for name in METHODS:
        if name in counts:
            table.add_row(name, *(str(count) for count in counts[name].values()))
    Console().print(table)
    for name, reason in codes.left_out.items():
        Console().print(f"left out: {name.replace('_', ' ')}, for {reason}", markup=False)
    if codes.log_evidence.isfinite().all():
        show_about({"log p(x)": f"{evidence} nats per datum"})
    show_about(about)


def show_imputed(
    found: "xarray.Dataset", columns: "Sequence[Column]", about: dict[str, Any], as_json: bool
) -> None:
    """Print for each column how many cells were missing, and how well they are known."""
    size = found.sizes["datum"]
    tables = {n: found[n].values.reshape(size, -1) for n in IMPUTED}
    tables["width"] = tables["upper"] - tables["lower"]
    rows: list[dict[str, Any]] = []
    for place, missing in enumerate(tables["missing"].T):
        if missing.any():
            row = {"column": columns[place].name, "missing": int(missing.sum())}
            means = {n: tables[n][missing, place].mean() for n in ("sd", "width", "probability")}
            rows.append(row | {n: float(mean) for n, mean in means.items() if mean == mean})
    counts: dict[str, Any] = {"cells": int(tables["missing"].sum()), "data_points": size}
    counts["certified"] = float(found["certified"].values.mean())
    if as_json:
        print_json({**counts, "columns": rows, **about})
        return
    title = f"{counts['cells']:,} missing cells of {size:,} data points"
    means = {"sd": "mean sd", "width": "width of interval", "probability": "probability of code"}
    table = new_table(title, ["column"], ["missing", *means.values()])
    for row in sorted(rows, key=lambda row: -row["missing"])[:ROWS]:
        numbers = [f"{row[name]:.3g}" if name in row else "" for name in means]
        table.add_row(escape(str(row["column"])), f"{row['missing']:,}", *numbers)
    Console().print(table)
    if len(rows) > ROWS:
        Console().print(f"and {len(rows) - ROWS} more columns")
    show_about({"certified": f"{counts['certified']:.1%} of data points"} | about)


def show_scores(columns: dict[str, Any], known: int, about: dict[str, Any], as_json: bool) -> None:
    """Print the mean log p(x), and which data points are unlike the training data."""
    from ..inference.unlike import FEWEST, RARE

    unlike = columns["row"][columns["unlike"]].tolist()
    evidence = Estimate.of(torch.as_tensor(columns["log_evidence"]))
    certified = float(columns["certified"].mean())
    if as_json:
        summary = {"certified": certified, "unlike": unlike if known >= FEWEST else None}
        print_json(results.as_json({"log_evidence": evidence}, summary | about))
        return
    size = len(columns["row"])
    show_about({"log p(x)": f"{evidence} nats per datum, certified for {certified:.0%}"})
    listed = ", ".join(map(str, unlike[:ROWS])) + (", ..." if len(unlike) > ROWS else "")
    told = f"{len(unlike)} of {size} (by chance {RARE:.0%} would be)"
    if known < FEWEST:
        told = f"cannot be told beside {known} validation data, which must be {FEWEST} at least"
    show_about({"unlike the training data": told})
    if unlike:
        show_about({"rows": listed})
    show_about(about)


def new_table(title: str, left: list[str], right: list[str]) -> Table:
    """A table with columns of words on the left, and of numbers on the right."""
    table = Table(title=title, title_justify="left")
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def show_pairs(
    pairs: dict[str, tuple[Estimate, Estimate, Estimate]], about: dict[str, Any]
) -> None:
    """Print estimates before and after, the difference, and what they are about.

    Arguments:
        pairs: Before, after, and after less before in pairs, by their plain names.
        about: Run, files, counts and the like.
    """
    n = next(iter(pairs.values()))[0].n
    numbers = ["before", "after", "difference", "standard error"]
    table = new_table(f"{n} {about['split']} data points, in pairs", ["nats per datum"], numbers)
    for name in (name for name in TITLES if name in pairs):
        before, after, difference = pairs[name]
        means = {"before": before.mean, "after": after.mean, "difference": difference.mean}
        means = round_together(means, {"difference": ("after", "before")}, DECIMALS_OF_PAIRS)
        cells = (*(means[column] for column in numbers[:3]), difference.stderr)
        table.add_row(TITLES[name], *(f"{cell:.{DECIMALS_OF_PAIRS}f}" for cell in cells))
    Console().print(table)
    show_about(about)


def show_comparison(found: "Comparison", about: dict[str, Any], as_json: bool) -> None:
    """Print the bounds of programs, the best first, and how far the others are below it."""
    n = next(iter(found.bounds.values())).n
    if as_json:
        runs = [
            {
                "run": name,
                **results.as_json({"bound": bound, "difference": found.differences[name]}, {}),
                "better_for": found.better[name],
            }
            for name, bound in found.bounds.items()
        ]
        print_json(about | {"data_points": n, "runs": runs})
        return
    numbers = ["bound", "standard error", "less the best", "standard error", "better for"]
    table = new_table(f"{n} {about['split']} data points, nats per datum", ["run"], numbers)
    best = next(iter(found.bounds))
    for name, bound in found.bounds.items():
        difference = found.differences[name]
        shown = (bound.mean, bound.stderr, difference.mean, difference.stderr)
        cells = [f"{value:.{DECIMALS_OF_PAIRS}f}" for value in shown]
        last = [*cells[2:], str(found.better[name])] if name != best else ["", "", ""]
        table.add_row(escape(name), *cells[:2], *last)
    Console().print(table)
    if about["estimator"] != "ais":
        Console().print(
            "Bounds from below: a guide nearer to its posterior raises them. "
            + ("--estimator refined owes less to it." if about["estimator"] == "iw" else ""),
            highlight=False,
        )
    show_about(about)


def _estimates_table(estimates: dict[str, Estimate], about: dict[str, Any]) -> Table:
    n = next(iter(estimates.values())).n
    unit = UNITS.get(next(iter(estimates)), "nats")
    title = f"{n} {about['split']} data points"
    table = new_table(title, ["per datum"], [unit, "standard error"])
    means = {name: estimate.mean for name, estimate in estimates.items()}
    means |= round_together(means, _identities(means), DECIMALS)
    for name, title in TITLES.items():
        if name in estimates:
            digits = 4 if name == "bits_per_dim" else DECIMALS
            numbers = (means[name], estimates[name].stderr)
            table.add_row(title, *(f"{v:.{digits}f}" for v in numbers))
    return table


def _identities(means: dict[str, float]) -> dict[str, tuple[str, str]]:
    """Which estimates of an evaluation are differences of others."""
    bounds = ("iw_bound", "ais_bound")
    lower = max(bounds, key=lambda name: means.get(name, -math.inf))
    if "refined_bound" in means:
        lower = "refined_bound"
    return {
        "kl": ("reconstruction", "elbo"),
        "kl_to_posterior": (lower, "elbo"),
        "gap": ("upper_bound", "ais_bound"),
        "kl_to_posterior_upper": ("upper_bound", "elbo"),
    }


def _ledger_table(ledger: Ledger) -> Table:
    table = new_table("the ELBO, site by site", ["site", "term"], ["nats", "standard error"])
    # The last row takes what rounding leaves, so that what is printed adds up.
    means = [round(row.estimate.mean, DECIMALS) for row in ledger.rows]
    means[-1] = round(ledger.elbo.mean, DECIMALS) - sum(means[:-1])
    for row, mean in zip(ledger.rows, means, strict=True):
        table.add_row(row.site, escape(row.term), *_cells(replace(row.estimate, mean=mean)))
    table.add_row("", "sum: the ELBO", *_cells(ledger.elbo), end_section=True)
    for site, (sampled, exact) in ledger.kl.items():
        # Minus what the site adds to the sum, as it is printed.
        kl = -sum(mean for row, mean in zip(ledger.rows, means, strict=True) if row.site == site)
        table.add_row(site, "KL(q || p), Monte Carlo", *_cells(replace(sampled, mean=kl)))
        table.add_row(site, "KL(q || p), closed form", *_cells(exact))
    return table


def _cells(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.mean:.{DECIMALS}f}", f"{estimate.stderr:.{DECIMALS}f}"
