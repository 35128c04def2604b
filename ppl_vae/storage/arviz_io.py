"""All that is ArviZ's: its statistics, and InferenceData in memory and on disk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, first_line
from ..labels import attributes
from .memory import tell_lack_of_memory

if TYPE_CHECKING:
    import xarray  # an extra, as h5py is, which evidence itself does without

CONSTANT = 1e-3  # nats; weights within 0.1 % of each other differ by rounding, and have no tail
TIED = 5  # draws that share the highest weight of a bounded tail
# A share of the draws. ESS / S estimates 1 / (1 + chi^2) of posterior and guide, so that weights
# above it have KL(p||q) below 0.11 nats and a total variation below 0.17: in the table of
# materiality, no failure even in a single unit. Whatever their tail is, it weighs next to nothing.
LIGHT = 0.9


def load_arviz() -> ModuleType:
    """ArviZ, without the notice about its next major version that it shows at import."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
        import arviz
    return arviz


def pareto_k(log_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Pareto k-hat and effective sample size of the importance weights of each data point.

    The generalized Pareto distribution is fitted to the :math:`3 \sqrt S` largest weights (Vehtari
    et al. 2024, section 3); the effective sample size is :math:`1 / \sum_s \tilde w_s^2` of the
    normalized weights, raw or smoothed, whichever is less.

    Arguments:
        log_weight: Of shape (N data points, S draws), in nats.

    Returns:
        Two arrays of shape (N,). Where weights, or the highest of them, agree within rounding, or
        where too few distinct weights for a fit cost less than a tenth of the draws, there is no
        tail, and k is 0, as for an exponential tail.

    Example:
        >>> k, ess = pareto_k(np.random.default_rng(0).normal(size=(3, 1000)))
        >>> k.shape, bool((k < 0.7).all()), pareto_k(np.zeros((1, 500)))[1]
        ((3,), True, array([500.]))
    """
    return smooth_weights(log_weight)[1:]


def smooth_weights(log_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalized weights whose tail is smoothed, with their k-hat and effective sample size.

    The highest weights are replaced by quantiles of the generalized Pareto distribution that fits
    them (Vehtari et al. 2024, algorithm 1); where there is no tail, weights stay as they are.

    Arguments:
        log_weight: Of shape (N data points, S draws), in nats.

    Returns:
        Log weights of shape (N, S), whose exponentials sum to one over draws; and what
        :func:`pareto_k` gives.

    Example:
        >>> log_weight, k, ess = smooth_weights(np.zeros((1, 500)))
        >>> round(float(np.exp(log_weight).sum()), 6), k, ess
        (1.0, array([0.]), array([500.]))
    """
    draws = log_weight.shape[1]
    # Of a tail that is all but constant, or so heavy that its fit overflows.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        raw = np.exp(log_weight - log_weight.max(1, keepdims=True))
        smoothed, k = load_arviz().psislw(log_weight)
        ess = np.minimum(raw.sum(1) ** 2 / np.square(raw).sum(1), 1 / np.exp(2 * smoothed).sum(1))
        plain = np.log(raw / raw.sum(1, keepdims=True))
    highest = np.sort(log_weight, axis=1)[:, -TIED:]
    constant = np.ptp(log_weight, axis=1) < CONSTANT
    # ArviZ finds no tail where many draws share the highest weight, or fewer than five are above
    # the rest: k is infinite. Weights that are shared, or all but equal, are bounded.
    tied = (np.ptp(highest, axis=1) < CONSTANT) | (ess >= LIGHT * draws)
    bounded = constant | (~np.isfinite(k) & tied)
    ess = np.where(constant, float(draws), ess)
    # Where the fit fails, its k means nothing, and one draw has all the weight.
    failed = ~bounded & (np.isnan(k) | ~np.isfinite(ess))
    usable = np.isfinite(k) & ~bounded & ~np.isnan(smoothed).any(1)
    k = np.where(bounded, 0.0, np.where(failed, np.inf, k))
    return np.where(usable[:, None], smoothed, plain), k, np.where(failed, 1.0, ess)


def pareto_k_threshold(draws: int) -> float:
    """The k-hat below which S draws are enough: min(1 - 1 / log10 S, 0.7) (Vehtari et al. 2024).

    Example:
        >>> [round(pareto_k_threshold(draws), 2) for draws in (100, 1000, 10000)]
        [0.5, 0.67, 0.7]
    """
    return min(1 - 1 / math.log10(draws), 0.7)


def is_heavy(k_hat: np.ndarray, ess: np.ndarray, draws: int) -> np.ndarray:
    """Whether weights have a tail that harms: k-hat too high, and a tenth of the draws lost by it.

    Arguments:
        k_hat: From :func:`pareto_k`, of shape (N,).
        ess: Effective sample sizes, likewise.
        draws: The number of draws S.

    Example:
        >>> is_heavy(np.array([0.9, 0.9, 0.3]), np.array([300.0, 990.0, 300.0]), 1000).tolist()
        [True, False, False]
    """
    return (k_hat > pareto_k_threshold(draws)) & (ess < LIGHT * draws)


def draws_needed(k_hat: np.ndarray) -> np.ndarray:
    """The draws at which a k-hat is below its threshold: 10^(1 / (1 - k)) (Vehtari et al. 2024).

    Infinite from k = 1 on, where not even the mean of the weights exists.

    Example:
        >>> draws_needed(np.array([-0.2, 0.5, 0.75, 1.2])).tolist()
        [10.0, 100.0, 10000.0, inf]
    """
    with np.errstate(divide="ignore", over="ignore"):
        needed = 10 ** (1 / np.clip(1 - k_hat, 0, 1))
    return np.where(k_hat < 1, needed, np.inf)


def chain_statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """R-hat and effective sample sizes of Markov chains (Vehtari et al. 2021).

    Arguments:
        values: Of shape (chains, draws, N, L).

    Returns:
        ``r_hat``, rank-normalized and split, and the effective sample sizes of bulk, tail, mean
        and standard deviation, ``ess_bulk``, ``ess_tail``, ``ess_mean`` and ``ess_sd``; each of
        shape (N, L).
    """
    arviz = load_arviz()
    import xarray

    dataset = xarray.Dataset({"z": (("chain", "draw", "datum", "latent"), values)})
    with np.errstate(divide="ignore", invalid="ignore"):  # of values that are constant
        sizes = {
            f"ess_{method}": arviz.ess(dataset, method=method)["z"].values
            for method in ("bulk", "tail", "mean", "sd")
        }
        return {"r_hat": arviz.rhat(dataset)["z"].values, **sizes}


def as_inference_data(groups: Mapping[str, xarray.Dataset], about: dict[str, Any]) -> Any:
    """An ``arviz.InferenceData`` of named groups, ArviZ's own and others.

    Dimensions without coordinates get their places, by which xarray puts groups of different sizes
    side by side: data points are counted from the first in all of them.

    Arguments:
        groups: Data sets by the name of their group.
        about: The attributes of the whole.
    """
    groups = {name: with_places(group) for name, group in groups.items()}
    return load_arviz().InferenceData(attrs=attributes(about), **groups)


def with_places(group: xarray.Dataset) -> xarray.Dataset:
    """With coordinates for dimensions that have none: the places along them."""
    bare = {dim: range(size) for dim, size in group.sizes.items() if dim not in group.variables}
    return group.assign_coords({dim: [*places] for dim, places in bare.items()})


def write_inference_data(file: Path, inference_data: Any) -> None:
    """Write netCDF.

    Raises:
        OSError: If it cannot be written.
    """
    from .netcdf import as_netcdf

    groups = {name: inference_data[name] for name in inference_data.groups()}
    file.write_bytes(as_netcdf(groups, inference_data.attrs))


def read_inference_data(file: Path) -> Any:
    """Read netCDF that :func:`write_inference_data` wrote, into memory.

    Raises:
        InputError: If it is not there, or is not such a file.
    """
    from .hdf5 import refuse_hostile

    if not file.is_file():
        raise InputError(file, "is not there", "diagnose-again")
    try:
        refuse_hostile(file)
        arviz = load_arviz()
        with arviz.rc_context({"data.load": "eager"}):  # the file is closed then
            return arviz.from_netcdf(str(file), engine="h5netcdf")
    except InputError:
        raise
    except Exception as error:  # whatever a broken file makes the reader raise
        tell_lack_of_memory(error, file)
        reason = first_line(error)
        raise InputError(file, f"is not InferenceData ({reason})", "diagnose-again") from None
