"""The questions that a diagnosis asks, how each is asked, and what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from ..data.dataset import DataSet
from ..errors import check_int
from ..programs.posterior import Posterior
from ..progress import Progress
from ..runtime import derived_seed
from .calibration import QUESTION as CALIBRATION
from .calibration import ask_calibration
from .certificate import QUESTION as CERTIFICATE
from .certificate import ask_certificate
from .collapse import QUESTION as COLLAPSE
from .collapse import ask_collapse
from .coverage import QUESTION as COVERAGE
from .coverage import ask_coverage
from .gaps import QUESTION as GAPS
from .gaps import ask_gaps
from .generation import QUESTION as GENERATION
from .generation import ask_generation
from .local import QUESTION as LOCAL
from .local import ask_local
from .misspecification import QUESTION as MISSPECIFICATION
from .misspecification import ask_misspecification
from .posterior_sbc import QUESTION as POSTERIOR_SBC
from .posterior_sbc import ask_posterior_sbc
from .quantities import Quantity
from .reference import QUESTION as REFERENCE
from .reference import ask_reference
from .verdicts import DiagnosticResult


@dataclass(frozen=True)
class Effort:
    """How much work to put into a diagnosis.

    Attributes:
        data_points: Test data for coverage, collapse and generation: the first so many.
        draws: Draws from the guide for each data point.
        simulations: Data points to simulate for calibration, and for each of the other questions
            that compare with the model's own data; with the default, an exact guide passes
            calibration in 99 % of seeds with up to fifty units.
        gap_points: Data points whose gap is decomposed: the first so many.
        nuts_points: Data points given to NUTS: the first so many.

    Raises:
        InputError: If one is less than 1.
    """

    data_points: int = 1000
    draws: int = 1000
    simulations: int = 4000
    gap_points: int = 200
    nuts_points: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            object.__setattr__(self, name, check_int(name, value))  # NumPy's have no JSON


def questions_of(
    posterior: Callable[[], Posterior],
    data: DataSet,
    effort: Effort,
    seed: int,
    quantities: Mapping[str, Quantity],
) -> dict[str, tuple[str, Callable[[Progress], DiagnosticResult], float]]:
    """Each question, how it is asked, and its cost in evaluations of the model at one draw."""
    seeds = partial(derived_seed, seed)
    n, draws = min(len(data.test), effort.data_points), effort.draws
    gap_points, nuts_points = min(n, effort.gap_points), min(n, effort.nuts_points)
    return {
        "coverage": (
            COVERAGE,
            lambda progress: ask_coverage(posterior(), draws, seeds("coverage"), progress),
            n * draws,
        ),
        "calibration": (
            CALIBRATION,
            lambda progress: ask_calibration(
                posterior(), effort.simulations, seeds("calibration"), progress
            ),
            effort.simulations * 100,
        ),
        "gaps": (
            GAPS,
            lambda progress: ask_gaps(posterior()[:gap_points], draws, seeds("gaps"), progress),
            gap_points * (24000 + 4 * draws),
        ),
        "reference": (
            REFERENCE,
            lambda progress: ask_reference(posterior()[:nuts_points], seeds("reference"), progress),
            1.5e6 + 1.5e5 * nuts_points,
        ),
        "collapse": (
            COLLAPSE,
            lambda progress: ask_collapse(posterior(), seeds("collapse"), progress),
            300 * n,
        ),
        "generation": (
            GENERATION,
            lambda progress: ask_generation(
                posterior(),
                data.batch("train", seed),
                seeds("generation"),
                progress,
                quantities,
                [column.name for column in data.columns],
            ),
            5 * len(data.train) + 150 * n + 2e5,
        ),
        **_simulated_questions(posterior, n, effort.simulations, seeds),
    }


def _simulated_questions(
    posterior: Callable[[], Posterior], n: int, m: int, seeds: Callable[[str], int]
) -> dict[str, tuple[str, Callable[[Progress], DiagnosticResult], float]]:
    """Those about data that the model simulates: how far is q off, where, and does that matter
    for the observed data?"""
    return {
        "certificate": (
            CERTIFICATE,
            lambda progress: ask_certificate(posterior(), m, seeds("certificate"), progress),
            20 * m,
        ),
        "local": (
            LOCAL,
            lambda progress: ask_local(posterior(), m, seeds("local"), progress),
            100 * m,
        ),
        "misspecification": (
            MISSPECIFICATION,
            lambda progress: ask_misspecification(
                posterior(), m, seeds("misspecification"), progress
            ),
            30 * (2 * m + n),
        ),
        "posterior_sbc": (
            POSTERIOR_SBC,
            lambda progress: ask_posterior_sbc(posterior(), seeds("posterior_sbc"), progress),
            50 * n,
        ),
    }
