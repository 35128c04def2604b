"""Scores as labelled arrays: netCDF with a value for each data point, JSON with their means."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import InputError
from ..labels import attributes, variable
from ..storage.files import replacing
from .classification import Classification
from .scores import UNITS, Estimate, Ledger, Scores

if TYPE_CHECKING:
    import xarray

MEANINGS = {
    "elbo": "ELBO, F = E_q[log p(x,z) - log q(z|x)] (Kingma & Welling 2014, eq. 3)",
    "reconstruction": "E_q[log p(x|z)]",
    "kl": "KL(q(z|x) || p(z)), by Monte Carlo",
    "iw_bound": "importance-weighted bound on log p(x) (Burda et al. 2015, eq. 8)",
    "iw_error": "standard error of iw_bound, from its draws",
    "iw_jackknife": "iw_bound less its bias of order 1/S (Nowozin 2018, eq. 13); not a bound",
    "refined_bound": "importance-weighted bound of guides refined for each data point alone",
    "refined_error": "standard error of refined_bound, from its draws",
    "k_hat": "Pareto k-hat of refined_bound's weights (Vehtari et al. 2024)",
    "ais_bound": "lower bound on log p(x) by annealed importance sampling (Neal 2001)",
    "ais_error": "standard error of ais_bound, from its chains",
    "upper_bound": "upper bound on log p(x) by reverse annealing (Grosse et al. 2015)",
    "upper_error": "standard error of upper_bound, from its chains, and for the one draw that they "
    "start at from the spread of the gap over data (Hedges 1983)",
    "gap": "upper_bound - ais_bound",
    "kl_to_posterior": "lower bound on KL(q(z|x) || p(z|x)) = log p(x) - F",
    "kl_to_posterior_upper": "upper bound on KL(q(z|x) || p(z|x)) = log p(x) - F",
    "acceptance": "mean probability with which Hamiltonian trajectories were accepted",
    "bits_per_dim": "upper bound on -log p(x) / (D log 2)",
}


def as_dataset(scores: Scores, rows: Tensor | None, about: dict[str, Any]) -> "xarray.Dataset":
    """Scores with their names, units and meanings, along the dimension ``datum``.

    Arguments:
        scores: The scores of each data point.
        rows: The row of the array that each data point came from, of shape (N,); ``None`` for
            simulated data.
        about: The attributes of the whole.

    Returns:
        A data set with a variable for each term, and for each site of the ledger
        ``log_p_SITE``, ``log_q_SITE`` and ``analytic_kl_SITE``.
    """
    import xarray  # an extra, which evidence itself does without

    variables = {
        name: variable("datum", values, MEANINGS[name], UNITS.get(name, "nats"))
        for name, values in scores.per_datum.items()
    }
    for table, prefix, meaning in (
        ({**scores.likelihood, **scores.prior}, "log_p", "E_q[log p] at the model's site {!r}"),
        (scores.guide, "log_q", "E_q[log q] at the guide's site {!r}"),
        (scores.analytic_kl, "analytic_kl", "KL from guide to prior at site {!r}, closed form"),
    ):
        for site, values in table.items():
            variables[re.sub(r"\W", "_", f"{prefix}_{site}")] = variable(
                "datum", values, meaning.format(site), "nats"
            )
    if rows is not None:
        variables["row"] = variable("datum", rows, "row of the array that the data point came from")
    size = len(next(iter(scores.per_datum.values())))
    return xarray.Dataset(variables, {"datum": range(size)}, attributes(about))


def with_classes(
    dataset: "xarray.Dataset", found: Classification, names: Sequence[str] | None
) -> "xarray.Dataset":
    """The same with q(y|x) of each data point, along the dimension ``class``.

    Arguments:
        dataset: What :func:`as_dataset` gives.
        found: The classification of the same data.
        names: The names of the classes.
    """
    meanings = {"class_probability": "q(y|x), the guide's probability of each class"}
    if found.log_temperature is not None:
        meanings["class_probability_calibrated"] = "q(y|x) at the temperature of other data"
    variables = {
        name: variable(("datum", "class"), found.probabilities("calibrated" in name), meaning)
        for name, meaning in meanings.items()
    }
    classes = list(names) if names else range(found.logits.shape[1])
    return dataset.assign(variables).assign_coords({"class": classes})


def as_json(
    estimates: dict[str, Estimate], about: dict[str, Any], ledger: Ledger | None = None
) -> dict[str, Any]:
    """Estimates, what they are about, and the ledger, as plain data."""
    found = {**about, **{name: _plain(estimate) for name, estimate in estimates.items()}}
    if ledger is not None:
        found["ledger"] = [
            {"site": row.site, "term": row.term, **_plain(row.estimate)} for row in ledger.rows
        ]
        found["site_kl"] = {
            site: {"monte_carlo": _plain(sampled), "analytic": _plain(exact)}
            for site, (sampled, exact) in ledger.kl.items()
        }
    return found


def refuse_taken(file: Path) -> None:
    """Refuse to replace files that are not results.

    Raises:
        InputError: If a folder, or a JSON file without a netCDF file, is in the way.
    """
    beside = file.with_suffix(".json")
    for path in (file, beside):
        if path.is_dir():
            raise InputError(path, "is a folder", "another-path")
    if beside.exists() and not file.exists():
        raise InputError(beside, "exists, and would be replaced", "another-path")


def write_results(file: Path, dataset: "xarray.Dataset", summary: dict[str, Any]) -> list[Path]:
    """Write a data set to ``file`` and its summary beside it, each whole or not at all.

    The summary has the checksum of the data set that it is of, ``netcdf_sha256``.

    Arguments:
        file: A path that ends in ``.nc``.
        dataset: What :func:`as_dataset` gives.
        summary: What :func:`as_json` gives.

    Returns:
        The files written: netCDF and JSON.

    Raises:
        InputError: If they cannot be written.
    """
    from ..storage.netcdf import as_netcdf

    refuse_taken(file)
    beside = file.with_suffix(".json")
    with replacing(file, beside) as (netcdf, plain):
        content = as_netcdf({"": dataset}, {})
        netcdf.write_bytes(content)
        summary = {**summary, "netcdf_sha256": hashlib.sha256(content).hexdigest()}
        plain.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return [file, beside]


def _plain(estimate: Estimate) -> dict[str, float | int | None]:
    # JSON has no NaN, which is the standard error of a single data point.
    return {k: None if math.isnan(v) else v for k, v in estimate.as_dict().items()}
