"""From a guide to certified draws: for each data point, by the cheapest step that passes."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from ..choices import Family, Target
from ..errors import InputError, check_int
from ..evidence.annealing import Annealing, anneal_posterior, transitions
from ..programs.per_datum import JointGaussian
from ..programs.posterior import Data, Posterior
from ..programs.protocol import Program
from ..programs.sites import Latents
from ..progress import OnProgress, Progress
from ..runtime import check_seed, derived_seed
from ..storage.arviz_io import with_places
from ..storage.memory import refuse_beyond_memory
from .codes import METHODS, Codes
from .copies import move_copies
from .nuts import LEAST_ESS, mixed, mixing, sample_posterior
from .refine import refine
from .weights import Weighted, weigh

if TYPE_CHECKING:
    import xarray  # an extra

# Enough for the error of a mean to be 5 % of a standard deviation (Vehtari et al. 2021, of chains).
WEIGHTED_DRAWS, MORE = 1000, 4  # draws, and how many times as many where that helps
LONGER = 300  # steps of refinement, where fewer did not do
HALF = 0.5  # of these come from elsewhere
ANNEALING = Annealing(chains=1024, temperatures=25, leapfrog_steps=5, start="mixture")
REACH: dict[Target, int] = {"guide": 1, "refined": 3, "certified": 5}  # steps
NUTS_ROWS = 64  # data points that share a run
PILOT, WORTH = 16, 0.5  # data points; share that must pass
BLOCK_ELEMENTS = 2**25  # of all weighted draws in flight


def infer(
    program: Program,
    data: Data,
    draws: int = 1000,
    target: Target = "certified",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Any:
    r"""Draw from p(z | x), and say for which data points the draws can be relied on.

    For each data point the first of these steps is taken whose draws pass:

    1. the guide, weighted;
    2. a normal guide of independent units, refined for that data point, weighted;
    3. one of correlated units, likewise; if it fails, once more with three times the steps;
    4. annealing to the posterior, from half that guide and half the prior (Neal 2001);
    5. NUTS from four draws of the prior (Hoffman & Gelman 2014).

    Weighted draws pass if Pareto k-hat is below its threshold and the effective sample size at
    least 400 (Vehtari et al. 2024); chains if R-hat is below 1.01 and the effective sample size of
    bulk and tail at least 400 (Vehtari et al. 2021). With the guide's draws go a fifth as many of
    the prior, so that a mode which the guide misses shows where the prior hits it. What passes is
    resampled to equal weights, and draws that are copies of another are moved by a few Metropolis
    steps. A step that a program does
    not allow, such as refinement of a discrete latent, is left out; where no step passes,
    ``certified`` is false and the draws are those of the last one.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, \*data_shape), or a batch of ``x`` and covariates.
        draws: Draws to return for each data point.
        target: How far to go: ``"guide"`` takes step 1 alone, ``"refined"`` the first three,
            ``"certified"`` all.
        seed: Seed of everything random.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Returns:
        ``arviz.InferenceData``: ``posterior``, the draws by site; ``inference``, for each data
        point its ``method``, ``certified``, ``k_hat``, ``ess``, ``r_hat``, ``log_evidence`` and the
        latter's error; as attributes, why steps were left out.

    Raises:
        InputError: If the program does not conform, an argument is out of its range, or the guide
            is a point mass and cannot be refined.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(4, 5, dtype=torch.float64)
        >>> found = infer(ppca, x, draws=100)
        >>> found.posterior["z"].shape, bool(found.inference["certified"].all())
        ((1, 100, 4, 2), True)
        >>> log_p = found.inference["log_evidence"].values
        >>> bool(abs(log_p - ppca.evidence(x).detach().numpy()).max() < 0.2)
        True
    """
    posterior, seed = Posterior(program, data), check_seed(seed)
    parts = list(infer_blocks(posterior, draws, target, seed, Progress(on_progress)))
    about = {"target": target, "draws": draws, "seed": seed}
    return Codes.joined(parts).inference_data(posterior.rows, about)


def encode(
    program: Program,
    data: Data,
    target: Target = "certified",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> "xarray.Dataset":
    r"""The posterior mean and standard deviation of z, and log p(x), of each data point.

    They come from the weighted draws, or chains, that :func:`infer` would take; no draws are kept.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, \*data_shape), or a batch of ``x`` and covariates.
        target: How far to go; see :func:`infer`.
        seed: Seed of everything random.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Returns:
        Along ``datum``: for each latent site ``SITE_mean`` and ``SITE_sd``, and the statistics that
        :func:`infer` has in its group ``inference``.

    Raises:
        InputError: As :func:`infer` does.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(4, 5, dtype=torch.float64)
        >>> encode(ppca, x, "guide")["z_mean"].shape
        (4, 2)
    """
    posterior, seed = Posterior(program, data), check_seed(seed)
    parts = list(infer_blocks(posterior, 1, target, seed, Progress(on_progress)))
    found = Codes.joined(parts).dataset().assign_coords(datum=posterior.rows.numpy())
    return with_places(found)


def infer_blocks(
    posterior: Posterior, draws: int, target: Target, seed: int, progress: Progress
) -> Iterator[Codes]:
    """:func:`infer`, some data points at a time, so that memory does not grow with the data."""
    draws = check_int("draws", draws)
    if target not in get_args(Target):
        raise InputError("target", f"must be one of {get_args(Target)}, got {target!r}")
    with posterior.evaluation_mode(seed):
        units = sum(z[0, 0].numel() for z in posterior[:1].sample(1, "prior").values())
    refuse_beyond_memory(4 * draws * units, f"draws={draws} for each data point", "take fewer")
    at_once = BLOCK_ELEMENTS // units  # draws of all data points in flight
    size = max(1, min(at_once // max(draws, WEIGHTED_DRAWS), len(posterior)))
    work = progress.part(1.0, total=len(posterior))
    for index, first in enumerate(range(0, len(posterior), size)):
        part = posterior[first : first + size]
        of_part = derived_seed(seed, f"infer {index}")
        yield _Escalation(part, draws, of_part, at_once).run(target, work.part(len(part)))


class _Found:
    """What steps have found so far of N data points; a later step replaces what one before it did.

    Attributes:
        codes: All of it, once there is any.
        copies: Which draws are copies of another, of shape (S, N).
    """

    def __init__(self, size: int, draws: int, seed: int) -> None:
        self.size, self.draws = size, draws
        self.codes: Codes | None = None
        self.copies = torch.zeros(draws, size, dtype=torch.bool)
        self.generator = torch.Generator().manual_seed(seed)

    def weighted(self, place: int, weighted: Weighted, rows: Tensor) -> Tensor:
        """Write down what weighted draws tell of some data points. What passed."""
        evidence, error = weighted.evidence()
        about = {"log_evidence": evidence, "log_evidence_error": error, "k_hat": weighted.k_hat}
        return self._take(place, rows, weighted.passes(LEAST_ESS), weighted, about)

    def chains(self, place: int, drawn: Latents, rows: Tensor) -> Tensor:
        """Write down what chains tell of some data points. What passed."""
        found = mixing(drawn)
        r_hat, ess = (torch.as_tensor(values) for values in found)
        flat = {site: z.flatten(0, 1).cpu() for site, z in drawn.items()}
        equal = torch.zeros(next(iter(flat.values())).shape[:2], dtype=torch.double)
        kept = Weighted(flat, equal, equal - math.log(len(equal)), torch.nan * ess, ess)
        return self._take(place, rows, torch.as_tensor(mixed(*found)), kept, {"r_hat": r_hat})

    def separate(self, posterior: Posterior, weighted: Weighted, rows: Tensor, seed: int) -> None:
        """Move the copies among the draws of some data points."""
        assert self.codes is not None
        latents = self.codes.latents
        drawn = {site: z[:, rows] for site, z in latents.items()}
        for site, z in move_copies(posterior, weighted, drawn, self.copies[:, rows], seed).items():
            latents[site][:, rows] = z

    def _take(
        self,
        place: int,
        rows: Tensor,
        passed: Tensor,
        found: Weighted,
        statistics: Mapping[str, Tensor],
    ) -> Tensor:
        latents, self.copies[:, rows] = found.resampled(self.draws, self.generator)
        if self.codes is None:
            self.codes = Codes.blank(self.size, latents)
        codes = self.codes
        for site, z in latents.items():
            codes.latents[site][:, rows] = z.to(codes.latents[site].dtype)
        for table, values in zip((codes.mean, codes.sd), found.moments(), strict=True):
            for site, z in values.items():
                table[site][rows] = z.double()
        codes.k_hat[rows] = codes.r_hat[rows] = torch.nan
        for name, statistic in {"ess": found.ess, **statistics}.items():
            getattr(codes, name)[rows] = statistic.double()
        codes.method[rows], codes.certified[rows] = place, passed
        return passed


class _Escalation:
    """The steps, for a few data points at once: each step takes those that none before passed."""

    def __init__(self, posterior: Posterior, draws: int, seed: int, at_once: int) -> None:
        self.posterior, self.draws, self.seed = posterior, draws, seed
        self.left = torch.arange(len(posterior))
        self.place, self.is_last, self.refined = 0, False, posterior
        self.left_out: dict[str, str] = {}
        self.at_once = at_once
        self.found = _Found(len(posterior), draws, derived_seed(seed, "resampling"))

    def run(self, target: Target, progress: Progress) -> Codes:
        """Take steps until all data points have passed, or there are no more."""
        steps: list[tuple[Callable[[Progress], None], float]] = [
            (self._guide, 0.1),
            (self._diagonal, 0.2),
            (self._full, 0.4),
            (self._anneal, 0.15),
            (self._sample, 0.15),
        ]
        for self.place, (step, share) in enumerate(steps[: REACH[target]]):
            self.is_last = self.place == REACH[target] - 1
            if len(self.left):
                try:
                    step(progress.part(share))
                except InputError as error:
                    name = METHODS[self.place].replace(" ", "_")
                    self.left_out[name] = f"{error.culprit} {error.problem}"
        codes = self.found.codes
        if codes is not None and REACH[target] > 1:
            rows = self.left[codes.method[self.left] == 0]
            if len(rows):  # which no step after the first could take
                self.place = 0
                self._weigh(self.posterior[rows], rows, Progress(), more=True)
        progress.finish()
        if codes is None:
            raise InputError("the posterior", f"has no draws: {'; '.join(self.left_out.values())}")
        codes.left_out = self.left_out
        return codes

    def _guide(self, progress: Progress) -> None:
        self._try(
            progress, lambda rows, work: self._weigh(self.posterior[rows], rows, work, self.is_last)
        )

    def _diagonal(self, progress: Progress) -> None:
        def refined(rows: Tensor, work: Progress) -> Tensor:
            found = self._refine("diagonal", rows, work.part(0.8))
            return self._weigh(found, rows, work.part(0.2), self.is_last)

        self._try(progress, refined)

    def _try(self, progress: Progress, step: Callable[[Tensor, Progress], Tensor]) -> None:
        """Take a step for some; for the rest, which the next one would pass too, if it is worth it
        or there is no next one."""
        work = progress.part(1.0, total=len(self.left))
        for rows in (self.left[:PILOT], self.left[PILOT:]):
            if len(rows):
                passed = step(rows, work.part(len(rows)))
                if passed.double().mean() < WORTH and not self.is_last:
                    break

    def _full(self, progress: Progress) -> None:
        # What a few steps did not refine, more steps from other draws often do.
        for steps, share in ((None, 0.7), (LONGER, 0.3)):
            if len(rows := self.left):
                work = progress.part(share)
                refined = self._refine("full", rows, work.part(0.8), steps)
                passed = self._weigh(refined, rows, work.part(0.2), more=steps is not None)
                self.refined = refined[~passed]

    def _refine(
        self, family: Family, rows: Tensor, progress: Progress, steps: int | None = None
    ) -> Posterior:
        seed = self._seed(f"{family}, steps {steps}", rows)
        return refine(self.posterior[rows], family, steps, seed=seed, progress=progress)

    def _weigh(self, posterior: Posterior, rows: Tensor, progress: Progress, more: bool) -> Tensor:
        """Weigh the draws of a guide. What passed.

        Where they are but too few, take more: if the next step would cost more than these.
        """
        work = progress.part(1.0, total=len(posterior) * WEIGHTED_DRAWS)
        weighted = weigh(posterior, WEIGHTED_DRAWS, self._seed("weigh", rows), work)
        passed = self._weighted(posterior, weighted, rows)
        few = ~passed & (weighted.ess >= LEAST_ESS / MORE) & more
        if not isinstance(posterior.program, JointGaussian):
            # Draws at twice the scale mend a heavy tail; more of the same do not.
            few &= weighted.passes(LEAST_ESS / MORE)
        if few.any():
            seed = self._seed("weigh more", rows)
            again = posterior[few.nonzero()[:, 0]]
            weighted = weigh(again, MORE * WEIGHTED_DRAWS, seed, defensive=HALF)
            passed[few] = self._weighted(again, weighted, rows[few])
        return passed

    def _weighted(self, posterior: Posterior, weighted: Weighted, rows: Tensor) -> Tensor:
        """Take weighted draws of some data points. What passed."""
        passed = self._passed(rows, self.found.weighted(self.place, weighted, rows))
        chosen = passed.nonzero()[:, 0]
        if len(chosen):
            seed, some = self._seed("copies", rows), posterior[chosen]
            self.found.separate(some, weighted.rows(chosen), rows[chosen], seed)
        return passed

    def _anneal(self, progress: Progress) -> None:
        work = progress.part(1.0, transitions(len(self.left), ANNEALING))
        start = self.refined if len(self.refined) == len(self.left) else self.posterior[self.left]
        run = anneal_posterior(start, ANNEALING, self._seed("anneal", self.left), work, keep=True)
        weighted = Weighted.of(run.latents, run.log_weight)
        self._passed(self.left, self.found.weighted(self.place, weighted, self.left))

    def _sample(self, progress: Progress) -> None:
        rows, posterior = self.left, self.posterior[self.left]
        work = progress.part(1.0, total=len(posterior))
        for first in range(0, len(posterior), NUTS_ROWS):
            some = slice(first, first + NUTS_ROWS)
            seed = self._seed("NUTS", rows[some])
            drawn = sample_posterior(posterior[some], seed, work.part(len(rows[some])))
            self._passed(rows[some], self.found.chains(self.place, drawn, rows[some]))

    def _passed(self, rows: Tensor, passed: Tensor) -> Tensor:
        """Go on with what did not pass."""
        self.left = self.left[~torch.isin(self.left, rows[passed])]
        return passed

    def _seed(self, purpose: str, rows: Tensor) -> int:
        """Of some data points, whose draws are not those of others in the same step."""
        return derived_seed(self.seed, f"{purpose}, step {self.place}, from {int(rows[0])}")
