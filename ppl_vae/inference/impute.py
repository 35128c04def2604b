"""Missing cells of data drawn from the posterior predictive, with intervals that are calibrated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..choices import Target
from ..data.batch import Batch
from ..data.missing import MASK
from ..data.schema import Column
from ..errors import InputError, check_int
from ..labels import attributes, variable
from ..programs.batches import covariates_of
from ..programs.posterior import Data, Posterior
from ..programs.predictions import decode
from ..programs.protocol import Program, require_program
from ..programs.sites import Latents
from ..progress import OnProgress, Progress
from ..runtime import check_seed, derived_seed
from .codes import METHODS, STATISTICS, Codes
from .conformal import LEAST_HIDDEN, corrections
from .infer import infer_blocks

if TYPE_CHECKING:
    import xarray  # an extra

BLOCK_ELEMENTS = 2**23  # cells times draws in flight
CODES = ("binary", "category", "ordered")  # kinds of columns
DRAWN = "x_missing"  # the latent site of programs whose missing values do not depend on z alone


def impute(
    program: Program,
    data: Data,
    draws: int = 400,
    coverage: float = 0.9,
    *,
    calibration: Data | None = None,
    columns: Sequence[Column] = (),
    imputations: int = 0,
    target: Target = "refined",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> "xarray.Dataset":
    r"""Fill in the cells that ``mask`` says are missing.

    Of each data point z is drawn from p(z | observed cells) by :func:`ppl_vae.infer`, and each
    missing cell from p(x | z) (Mattei & Frellsen 2019, section 4); or the cells are latents
    themselves, at a site ``x_missing``, as in ``NotMIWAE``. A cell's value is the mean of p(x | z)
    over the draws of z, its interval has equal tails. Where draws of z are of a guide, they are
    weighted by importance and resampled: this is self-normalized importance sampling.

    Intervals are right if the model is. To be right whatever the model, they are calibrated on
    held-out data (split conformal prediction; Romano, Patterson & Candès 2019): observed cells are
    hidden, as often as cells of their column are missing, imputed, and intervals widened, or
    narrowed, until they hold the share ``coverage`` of them.
    That holds for cells that are missing at random, on average over cells, or over those of a
    column that has 100 hidden ones.

    Arguments:
        program: A program that takes ``mask``.
        data: A batch of ``x`` and ``mask``, which is false where a cell is missing.
        draws: Draws for each data point.
        coverage: How many of the true values intervals are to hold, in (0, 1).
        calibration: Held-out data to calibrate intervals on; ``None`` leaves them as they are.
        columns: The columns of a table. Of a column of codes the value is the most frequent code,
            and of one of whole numbers the interval ends at whole numbers.
        imputations: How many draws of the completed data to return too, for multiple imputation
            (Rubin 1987): each cell is a draw from the posterior predictive.
        target: How far to go for draws of z; see :func:`ppl_vae.infer`.
        seed: Seed of everything random.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Returns:
        Along ``datum`` and the dimensions of ``x``: ``x``, completed; ``missing``; ``sd``,
        ``lower`` and ``upper``, NaN where a cell is observed or holds a code; ``probability`` of
        such a code; ``imputation`` along ``draw`` if asked for. Along ``datum``: ``method`` and
        ``certified``, as :func:`ppl_vae.infer` has them.

    Raises:
        InputError: If the program does not take ``mask``, no cell is missing, an argument is out
            of its range, or held-out data are too few to calibrate intervals on.

    Example:
        >>> from ppl_vae.models import VAE
        >>> vae, x = VAE((3,), 2, hidden=(), likelihood="gaussian"), torch.randn(5, 3)
        >>> found = impute(vae, {"x": x, "mask": x < 1}, target="guide")
        >>> bool((found["x"].values[x < 1] == x[x < 1].numpy()).all())
        True
    """
    draws, seed = check_int("draws", draws, 2), check_seed(seed)
    imputations = check_int("imputations", imputations, 0)
    if not isinstance(coverage, float) or not 0 < coverage < 1:
        raise InputError("coverage", f"must be between 0 and 1, got {coverage!r}")
    if imputations > draws:
        raise InputError("imputations", f"must be at most draws={draws}, got {imputations}")
    batch = _check_mask(program, data)
    work = Progress(on_progress)
    coded, whole = _kinds(columns, batch.x.shape[1:])
    how = _Imputation(program, draws, target, (1 - coverage) / 2, coded, imputations)
    found = how.cells(batch, derived_seed(seed, "imputation"), work.part(0.5))
    if calibration is not None:
        held_out = _check_mask(program, calibration, complete=True)
        share = (~batch[MASK]).double().mean(0).clamp(min=LEAST_HIDDEN) * ~coded
        rest = work.part(0.5)
        wider = corrections(how.interval, held_out, share, coverage, seed, rest)
        found = found.corrected(wider)
    work.finish()
    return _dataset(found, batch, whole, columns, {"coverage": coverage, "seed": seed})


def _kinds(columns: Sequence[Column], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Which cells of a data point hold codes, and which whole numbers, of ``data_shape``."""
    if not columns:
        return torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    if (len(columns),) != tuple(shape):
        raise InputError("columns", f"are {len(columns)}, but data points are of {tuple(shape)}")
    kinds = [column.kind for column in columns]
    coded = torch.tensor([kind in CODES for kind in kinds])
    return coded, torch.tensor([kind == "count" for kind in kinds])


def cells_of(
    found: "xarray.Dataset", columns: Sequence[Column], names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """What :func:`impute` found of each missing cell, one row a cell.

    Arguments:
        found: What it found; ``datum`` says which row each data point is.
        columns: What the columns are; those of images count from 0.
        names: Names of the rows, if they have any.

    Returns:
        The columns ``row``, ``row_name`` if there are names, ``column``, ``value``, ``category`` if
        any column holds codes, ``sd``, ``lower``, ``upper``, and the latter's ``probability``.
    """
    tables = {
        name: found[name].values.reshape(found.sizes["datum"], -1)
        for name in ("missing", "x", "sd", "lower", "upper", "probability")
    }
    datum, place = tables["missing"].nonzero()
    cells = {"row": found["datum"].values[datum]}
    if names:
        cells["row_name"] = np.array(names, dtype=object)[datum]
    cells["column"] = np.array([column.name for column in columns], dtype=object)[place]
    cells["value"] = tables["x"][datum, place]
    if any(column.categories for column in columns):
        kinds = [columns[p].categories for p in place.tolist()]
        pairs = zip(kinds, cells["value"].tolist(), strict=True)
        known = [categories[int(value)] if categories else "" for categories, value in pairs]
        cells["category"] = np.array(known, dtype=object)
    return cells | {n: tables[n][datum, place] for n in ("sd", "lower", "upper", "probability")}


def _check_mask(program: Program, data: Data, complete: bool = False) -> Batch:
    """Data with a mask that the program takes, some of it false unless they may be ``complete``."""
    require_program(program)
    taken = covariates_of(program)[1]
    if taken is not None and MASK not in taken:
        raise InputError(
            type(program).__name__,
            "does not take a mask, so that it cannot tell which cells are missing",
            "use one whose model and guide take it, such as VAE",
        )
    batch = Batch.of(data)
    if MASK not in batch:
        batch = Batch(batch, mask=torch.ones_like(batch.x, dtype=torch.bool))
    mask = batch[MASK]
    if mask.dtype != torch.bool or mask.shape != batch.x.shape:
        raise InputError("mask", "must be of booleans, one for each cell of x, true where observed")
    if mask.all() and not complete:
        raise InputError("data", "have no missing cells, so that there is nothing to impute")
    return batch


@dataclass(frozen=True)
class _Cells:
    """What is known of missing cells, of shape (N, *data_shape) each, NaN where observed.

    Attributes:
        value: Mean, or the most frequent code.
        sd: Standard deviation of the draws.
        lower, upper: Ends of the interval.
        probability: Of the value, where it is a code.
        drawn: Draws of the cells, of shape (imputations, N, *data_shape).
        method, certified: Of the draws of z, of shape (N,).
    """

    value: Tensor
    sd: Tensor
    lower: Tensor
    upper: Tensor
    probability: Tensor
    drawn: Tensor
    method: Tensor
    certified: Tensor

    @classmethod
    def joined(cls, parts: "Sequence[_Cells]") -> "_Cells":
        """The cells of the data points of all parts."""
        joined: dict[str, Any] = {
            f.name: torch.cat([getattr(part, f.name) for part in parts], int(f.name == "drawn"))
            for f in fields(cls)
        }
        return cls(**joined)

    def corrected(self, correction: Tensor) -> "_Cells":
        """With intervals wider by so much on either side, of shape ``data_shape``."""
        lower, upper = self.lower - correction, self.upper + correction
        middle = (lower + upper) / 2  # where an interval has turned inside out
        return replace(self, lower=torch.minimum(lower, middle), upper=torch.maximum(upper, middle))


@dataclass(frozen=True)
class _Imputation:
    """How cells are imputed, whichever data they are in.

    Attributes:
        program, draws, target: As for :func:`impute`.
        tail: Probability beyond either end of an interval.
        coded: Which cells of a data point hold codes, of shape ``data_shape``.
        imputations: How many draws of the cells to keep.
    """

    program: Program
    draws: int
    target: Target
    tail: float
    coded: Tensor
    imputations: int

    def cells(self, batch: Batch, seed: int, progress: Progress) -> _Cells:
        """Impute the cells of some data, a few data points at a time."""
        progress, parts = progress.part(1.0, total=batch.size), []
        step = max(1, BLOCK_ELEMENTS // (self.draws * batch.x[0].numel()))
        for first in range(0, batch.size, step):
            rows = batch.rows(slice(first, first + step))
            of_part = derived_seed(seed, f"rows {first}")
            parts.append(self._block(rows, of_part, progress.part(rows.size)))
        return _Cells.joined(parts)

    def interval(self, batch: Batch, seed: int, progress: Progress) -> tuple[Tensor, Tensor]:
        """The ends of the intervals of missing cells, of shape (N, *data_shape)."""
        cells = self.cells(batch, seed, progress)
        return cells.lower, cells.upper

    def _block(self, batch: Batch, seed: int, progress: Progress) -> _Cells:
        posterior = Posterior(self.program, batch)
        codes = Codes.joined(list(infer_blocks(posterior, self.draws, self.target, seed, progress)))
        drawn, mean = self._predicted(batch, codes.latents, seed)
        value = mean.mean(0)
        sd, ordered = drawn.std(0), drawn.sort(0).values
        lower, upper = (_quantile(ordered, level) for level in (self.tail, 1 - self.tail))
        kept, probability = drawn[: self.imputations], torch.full_like(value, math.nan)
        if self.coded.any():
            common = drawn.mode(0).values
            value = torch.where(self.coded, common, value)
            share = (drawn == common).double().mean(0)
            probability = torch.where(self.coded, share, probability)
            sd, lower, upper = (t.masked_fill(self.coded, math.nan) for t in (sd, lower, upper))
        tables = (value, sd, lower, upper, probability)
        observed = batch[MASK]
        value, sd, lower, upper, probability = (t.masked_fill(observed, math.nan) for t in tables)
        kept = kept.masked_fill(observed, math.nan)
        return _Cells(value, sd, lower, upper, probability, kept, codes.method, codes.certified)

    def _predicted(self, batch: Batch, latents: Latents, seed: int) -> tuple[Tensor, Tensor]:
        """Draws of x given draws of the latents, and their means, (S, N, *data_shape)."""
        if DRAWN in latents:
            return latents[DRAWN].double(), latents[DRAWN].double()
        flat = {site: z.flatten(0, 1) for site, z in latents.items()}
        repeated = batch.rows(torch.arange(batch.size).repeat(self.draws))
        found = decode(
            self.program, flat, batch.x.shape[1:], repeated.size, seed, repeated.covariates
        )
        shape = (self.draws, batch.size)
        return found.x.unflatten(0, shape).double(), found.mean.unflatten(0, shape).double()


def _quantile(ordered: Tensor, level: float) -> Tensor:
    """A quantile of S sorted draws: the value of rank level * (S + 1), between two where needed.

    The rank of one more draw among them is uniform, so that rank r leaves out r / (S + 1).
    """
    place = min(max(level * (len(ordered) + 1) - 1, 0), len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)


def _dataset(
    found: _Cells, batch: Batch, whole: Tensor, columns: Sequence[Column], about: dict[str, Any]
) -> "xarray.Dataset":
    import xarray

    dims = ["datum", *(["column"] if columns else [f"x_{i}" for i in range(batch.x.dim() - 1)])]
    observed = batch[MASK]
    # Inwards, which leaves out no whole number; the nearest one where there is none inside.
    inside = [found.lower.ceil(), found.upper.floor()]
    nearest = ((found.lower + found.upper) / 2).round()
    ends = [torch.where(inside[0] <= inside[1], end, nearest) for end in inside]
    lower = torch.where(whole, ends[0], found.lower)
    upper = torch.where(whole, ends[1], found.upper)
    tables = {
        "x": (torch.where(observed, batch.x.double(), found.value), "the data, completed"),
        "missing": (~observed, "whether the cell was missing"),
        "sd": (found.sd, "standard deviation of p(x missing | x observed)"),
        "lower": (lower, "lower end of the interval"),
        "upper": (upper, "upper end of the interval"),
        "probability": (found.probability, "of the value, where it is a code"),
    }
    units = {"missing": "1", "probability": "1"}
    made = {
        name: variable(dims, table, meaning, units.get(name, "units of x"))
        for name, (table, meaning) in tables.items()
    }
    if len(found.drawn):
        drawn = torch.where(observed, batch.x.double(), found.drawn)
        meaning = "draws of the completed data"
        made["imputation"] = variable(["draw", *dims], drawn, meaning, "units of x")
    methods = [METHODS[place] for place in found.method]
    made["method"] = variable("datum", np.array(methods), *STATISTICS["method"])
    made["certified"] = variable("datum", found.certified, *STATISTICS["certified"])
    names = {"column": [column.name for column in columns]} if columns else {}
    return xarray.Dataset(made, coords=names, attrs=attributes(about))
