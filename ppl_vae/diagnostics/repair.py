"""Repair of a posterior: diagnose it, refit its guide, refine what is left, and compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray

from ..data.dataset import DataSet
from ..errors import InputError, check_type, first_line
from ..inference.codes import Codes
from ..inference.infer import infer_blocks
from ..inference.nuts import sample_posterior
from ..inference.refine import refine
from ..programs.batches import match_data
from ..programs.posterior import Posterior
from ..programs.protocol import Program, require_program
from ..programs.sites import Latents
from ..progress import OnProgress, Progress
from ..runs.directory import Run
from ..runtime import check_seed, derived_seed
from ..training.refit import refit_guide
from ..training.settings import Settings
from . import calibration, coverage, gaps, reference
from .questions import Effort
from .verdicts import Verdict, Z, advice, grade, needed, share

QUESTIONS = {
    "coverage": coverage.QUESTION,
    "calibration": calibration.QUESTION,
    "gaps": gaps.QUESTION,
    "reference": reference.QUESTION,
}
"""Those that are about the guide, and that a better guide changes."""

Column = dict[str, Verdict]
"""A verdict for each of :data:`QUESTIONS`."""


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    Attributes:
        program: The program with the guide that was the best.
        columns: Verdicts ``"before"``, and after each remedy that was applied: ``"refit"``, and
            ``"refined"``, which speaks of guides that :func:`ppl_vae.infer` refines for each data
            point.
        improved: Whether the refit guide is better than the one before.
        refused: Why there was no refit, if it was refused.
    """

    program: Program
    columns: Mapping[str, Column]
    improved: bool
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        """All verdicts as plain data, for JSON."""
        columns = {n: {q: v.as_dict() for q, v in c.items()} for n, c in self.columns.items()}
        return {"improved": self.improved, "refused": self.refused, "columns": columns}


def repair(
    program: Program,
    data: DataSet,
    successor: Program | None = None,
    settings: Settings | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    run: Run | None = None,
    on_progress: OnProgress | None = None,
) -> Repair:
    """Make the guide better while the model stays as it is, to the bit, and show by how much.

    The guide is diagnosed. Unless it passes, a successor is trained on the data and on what the
    model makes (:func:`ppl_vae.refit_guide`), and kept if a question is better, by more than three
    standard errors or in its grade, and none is worse. What then does not pass is asked of guides
    refined for each data point (:meth:`ppl_vae.Posterior.refine`), which :func:`ppl_vae.infer` and
    ``ppl-vae encode`` use.

    Arguments:
        program: The fitted program; it stays as it is.
        data: The data that it was fitted to. The questions are about its test data.
        successor: A program whose model is the same and whose guide is to be trained, such as one
            of a richer family; by default none, and refinement is the only remedy.
        settings: How to train it.
        effort: How much work to put into each diagnosis.
        seed: Seed of everything random.
        run: A run directory to keep the refit in.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Returns:
        Verdicts before and after. A refit that is refused, such as that of a guide which shares
        parameters with its model, is left out, with the reason.

    Raises:
        InputError: If an argument is not what it should be, or program and data do not conform.
    """
    effort = Effort() if effort is None else effort
    check_type("effort", effort, Effort)
    settings = Settings() if settings is None else settings
    check_type("settings", settings, Settings)
    if successor is not None:
        require_program(successor)
    data, seed = match_data(program, data), check_seed(seed)
    batch = data.batch("test", seed).rows(slice(effort.data_points))
    rows = data.test.rows[: effort.data_points]
    progress = Progress(on_progress)
    examiner = _Examiner(Posterior(program, batch, rows), effort, seed, progress.part(0.2))
    columns = {"before": examiner.ask(examiner.posterior, progress.part(0.2))}
    best, last, refused = program, columns["before"], ""
    if successor is not None and not _passes(last):
        training = progress.part(0.2)
        try:
            refit_guide(
                successor,
                data,
                settings,
                on="both",
                parent=program,
                run=run,
                on_progress=training.advance,
                progress=False,
            )
        except InputError as error:
            refused = str(error)
        else:
            posterior = Posterior(successor, batch, rows)
            columns["refit"] = examiner.ask(posterior, progress.part(0.2))
            if _is_better(columns["refit"], last):
                best, last = successor, columns["refit"]
    if not _passes(last):
        refined = examiner.ask_refined(Posterior(best, batch, rows), progress.part(0.2))
        columns["refined"] = refined | {"calibration": last["calibration"]}
    progress.finish()
    return Repair(best, columns, improved=best is not program, refused=refused)


class _Examiner:
    """Asks the same questions of several guides for one model.

    p(x, z) is the same to the bit, and so are NUTS's draws and the bounds on log p(x): they are
    asked for once.
    """

    def __init__(self, posterior: Posterior, effort: Effort, seed: int, progress: Progress) -> None:
        self.posterior, self.effort, self.seed = posterior, effort, seed
        self.exact: Latents | None = None
        self.gaps: xarray.Dataset | None = None
        try:
            few = posterior[: effort.nuts_points]
            self.exact = sample_posterior(few, derived_seed(seed, "NUTS"), progress)
        except InputError as error:
            self.reason = str(error)
        progress.finish()

    def ask(self, posterior: Posterior, progress: Progress) -> Column:
        """The questions of a guide."""
        effort, seed = self.effort, self.seed
        cover, calibrate = coverage.ask_coverage, calibration.ask_calibration
        work = progress.part(0.2), progress.part(0.3)
        found = {
            "coverage": _answer("coverage", cover, posterior, effort.draws, seed, work[0]),
            "calibration": _answer(
                "calibration", calibrate, posterior, effort.simulations, seed, work[1]
            ),
        }
        return found | self._beside_others(posterior, progress.part(0.5))

    def ask_refined(self, posterior: Posterior, progress: Progress) -> Column:
        """The questions of guides refined for each data point, but for calibration."""
        parts = infer_blocks(posterior, 1, "refined", self.seed, progress.part(0.3))
        codes = Codes.joined(list(parts))
        few = posterior[: max(self.effort.gap_points, self.effort.nuts_points)]
        try:
            refined = refine(few, seed=self.seed, progress=progress.part(0.2))
        except InputError as error:
            said = {q: Verdict(QUESTIONS[q], "cannot say", str(error)) for q in QUESTIONS}
            return said | {"coverage": _uncertified(codes)}
        found = self._beside_others(refined, progress.part(0.5))
        return {"coverage": _uncertified(codes), **found}

    def _beside_others(self, posterior: Posterior, progress: Progress) -> Column:
        few, effort = posterior[: self.effort.gap_points], self.effort
        found = {"gaps": self._gap(few, progress)}
        if self.exact is None:
            return found | {"reference": Verdict(reference.QUESTION, "cannot say", self.reason)}
        beside = posterior[: effort.nuts_points]
        asked = _answer("reference", reference.compare_with, beside, self.exact, self.seed)
        return found | {"reference": asked}

    def _gap(self, posterior: Posterior, progress: Progress) -> Verdict:
        """The gap; log p(x) is bounded with the first guide, and serves for the others."""
        try:
            if self.gaps is None:
                found = gaps.ask_gaps(posterior, self.effort.draws, self.seed, progress)
                self.gaps = found.groups["gaps"]
            else:
                found = gaps.ask_gap_again(posterior, self.gaps, self.effort.draws, self.seed)
        except InputError as error:
            return Verdict(gaps.QUESTION, "cannot say", first_line(error))
        return found.verdict


def _answer(key: str, ask: Any, *arguments: Any) -> Verdict:
    try:
        verdict: Verdict = ask(*arguments).verdict
    except InputError as error:
        return Verdict(QUESTIONS[key], "cannot say", first_line(error))
    return verdict


def _uncertified(codes: Codes) -> Verdict:
    """The question of coverage, of weighted draws: for how many data points do they not pass?"""
    left = ~codes.certified.numpy()
    value, error = share(left)
    given = grade(value, error, coverage.CAUTION, coverage.FAIL)
    if given == "cannot say" and value > coverage.CAUTION:
        given = "caution"  # of these data it is known
    return Verdict(
        coverage.QUESTION,
        given,
        f"weighted draws of refined guides pass for {int(np.sum(~left))} of {len(left)} data"
        + ("; annealing and NUTS are for the others" if left.any() else ""),
        statistic="share of data whose weighted draws do not pass",
        value=value,
        error=error,
        unit="share of data",
        threshold=f"caution above {coverage.CAUTION:g}, fail above {coverage.FAIL:g}",
        source=coverage.SOURCE,
        remedy=advice(
            given, "annealing and NUTS", needed(value, error, coverage.CAUTION, len(left))
        ),
    )


RANKS = {"pass": 0, "cannot say": 1, "caution": 2, "fail": 3}


def _passes(column: Column) -> bool:
    return all(verdict.grade == "pass" for verdict in column.values())


def _is_better(after: Column, before: Column) -> bool:
    """Whether something is better, beyond chance or in its grade, and nothing worse."""
    signs = [_change(after[key], before[key]) for key in QUESTIONS]
    return max(signs) > 0 and min(signs) >= 0


def _change(after: Verdict, before: Verdict) -> int:
    """1 if a verdict is better, -1 if it is worse, 0 if there is no telling."""
    rank = RANKS[before.grade] - RANKS[after.grade]
    if rank and "cannot say" not in (after.grade, before.grade):
        return 1 if rank > 0 else -1
    if after.value is None or before.value is None:
        return 0
    error = Z * np.hypot(after.error or 0.0, before.error or 0.0)
    gained = before.value - after.value
    return int(gained > error) - int(gained < -error)
