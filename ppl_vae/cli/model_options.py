"""From the options of a model to its class and arguments: the one file that imports the models."""

import inspect
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ..choices import Binarize
from ..data.classes import LABELS, UNKNOWN
from ..data.dataset import DataSet
from ..data.inspection import DataWarning, scales, summarize, troubles
from ..data.schema import has_names, refuse_constant
from ..data.sources import NAMED_SETS
from ..data.units import fit_columns
from ..errors import InputError
from ..models import PROGRAMS
from ..programs.references import find_program
from ..training.settings import Settings
from .terminal import LOG

SMALLEST_LARGE, SMALLEST_SIDE = 32, 8  # pixels, of images that get convolutions, and after those
LEAST_STEPS, MOST_EPOCHS = 1000, 200  # of a fit whose epochs nobody said
NOT_GIVEN = ("mask", "exposure")  # covariates that say how x was observed


def find_model(name: str) -> tuple[type[Any], str]:
    """The class that ``--model`` means, and the reference to it that a run records.

    Raises:
        InputError: If there is no such model.
    """
    if name in PROGRAMS:
        kind = PROGRAMS[name]
        return kind, f"{kind.__module__}:{kind.__qualname__}"
    return find_program(name, PROGRAMS), name


def check_arguments(kind: type[Any], arguments: dict[str, Any]) -> None:
    """Refuse options that the model's class does not take.

    Raises:
        InputError: Naming the option.
    """
    known = inspect.signature(kind).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    for name in arguments:
        if name not in known and not takes_any:
            raise InputError(name, f"is not an argument of {kind.__name__}", "leave it out")


def choose_binarization(
    choice: str, source: str, kind: type[Any], arguments: dict[str, Any]
) -> Binarize:
    """Resolve ``auto``: the named sets are binarized dynamically for a Bernoulli likelihood.

    The user's own grey values are not, unless they say so.
    """
    if choice != "auto":
        return choice  # type: ignore[return-value]
    parameter = inspect.signature(kind).parameters.get("likelihood")
    likelihood = arguments.get("likelihood", parameter.default if parameter else "")
    plain = likelihood in (None, "bernoulli")  # the named sets are no tables
    return "dynamic" if source in NAMED_SETS and plain else "none"


def check_columns(data: DataSet, kind: type[Any]) -> None:
    """Refuse a table with constant columns, and warn of others that a fit may go wrong on.

    Raises:
        InputError: Naming a constant column.
    """
    if data.levels is not None or data.binarize != "none":
        return
    if has_names(data.columns):
        refuse_constant(data.columns, data.source)
    standardized = "columns" in inspect.signature(kind).parameters
    summaries = summarize(data)
    for words in troubles(summaries, standardized):
        warnings.warn(f"{data.source}: {words}", DataWarning, stacklevel=2)
    if standardized and (words := scales(summaries)):
        LOG.info("%s: %s; %s takes that into account", data.source, words, kind.__name__)


def arguments_of_data(kind: type[Any], arguments: dict[str, Any], data: DataSet) -> dict[str, Any]:
    """A model's arguments, and those that the data say, so that a run keeps them.

    - ``columns`` of a table, with mean and standard deviation in the units that the likelihood has:
      of logarithms for a log-normal one, and for positive columns of a mixed table;
    - ``levels`` of an image, for a likelihood of levels;
    - ``classes``, their number, and ``alpha``: N / n, for n labels of N data, as the weight of the
      classifier's term for each label;
    - ``covariates``: mean and standard deviation of each by its name;
    - ``channels`` and ``latent_dim``, by the size of a datum.

    Arguments:
        kind: The class.
        arguments: What the user said, which has the last word.
        data: The data that it is to be fitted to.
    """
    taken = inspect.signature(kind).parameters
    likelihood = arguments.get("likelihood")
    found: dict[str, Any] = {}
    if data.columns and data.levels is None and data.binarize == "none" and "columns" in taken:
        found["columns"] = [column.plain() for column in fit_columns(data, likelihood)]
    if data.levels is not None and "discretized" in (likelihood or ""):
        found["levels"] = data.levels
    labels, covariates = data.train.labels, data.train.covariates
    if labels is not None:
        known = int((labels != UNKNOWN).sum())
        found |= {"classes": len(data.label_names), "alpha": len(labels) / max(known, 1)}
    if real := covariates.keys() - {LABELS, *NOT_GIVEN}:
        found["covariates"] = {name: _moments(covariates[name]) for name in sorted(real)}
    found = {name: value for name, value in found.items() if name in taken} | arguments
    size_by_shape(kind, data.shape, found)
    return found


def _moments(covariate: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column; 1 for one that is constant."""
    columns = covariate.reshape(len(covariate), -1).double()
    scale = columns.std(0, correction=0)
    return columns.mean(0).tolist(), torch.where(scale > 0, scale, 1.0).tolist()


def enough_epochs(size: int, settings: Settings) -> int:
    """The epochs of the settings, or as many as make 1,000 steps, up to 200.

    Example:
        >>> [enough_epochs(size, Settings()) for size in (120, 1437, 54_000)]
        [200, 84, 20]
    """
    steps = math.ceil(size / settings.batch_size)
    return max(settings.epochs, min(MOST_EPOCHS, math.ceil(LEAST_STEPS / steps)))


def size_by_shape(kind: type[Any], shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    """Add convolutions and latent variables by the size of a datum, where the user names none.

    Tables of D columns get D / 2 latent variables, up to the default of the class.

    Images of 32x32 and more get a convolution for each halving until a side has 8 pixels at most,
    with 32, 64, 128 and then 256 channels, unless layers of any sort are named; and 32 latent
    variables for each halving. Smaller ones, such as the named sets', have the defaults of the
    class, and so do classes of the user's own.

    Example:
        >>> arguments = {"likelihood": "gaussian"}
        >>> size_by_shape(PROGRAMS["vae"], (3, 64, 48), arguments)
        >>> arguments
        {'likelihood': 'gaussian', 'channels': (32, 64, 128), 'latent_dim': 96}
        >>> size_by_shape(PROGRAMS["vae"], (4,), arguments := {})
        >>> arguments
        {'latent_dim': 2}
    """
    known = inspect.signature(kind).parameters
    if kind in PROGRAMS.values() and "latent_dim" in known and len(shape) == 1:
        usual = known["latent_dim"].default
        arguments.setdefault("latent_dim", max(1, min(usual, math.ceil(shape[0] / 2))))
    if kind not in PROGRAMS.values() or "channels" not in known or len(shape) != 3:
        return
    if (side := min(shape[1:])) < SMALLEST_LARGE:
        return
    halvings = 0
    while side > SMALLEST_SIDE:
        side, halvings = (side + 1) // 2, halvings + 1
    if not arguments.keys() & {"channels", "hidden", "encoder_hidden"}:
        arguments["channels"] = tuple(min(32 * 2**i, 256) for i in range(halvings))
    arguments.setdefault("latent_dim", 32 * halvings)
