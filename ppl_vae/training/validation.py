"""The score of the validation data, by which the best epoch is chosen."""

import math
from collections.abc import Mapping
from functools import cached_property

from ..data.dataset import DataSet
from ..errors import InputError
from ..evidence.scores import Estimate, summarize
from ..objectives.estimators import IMPORTANCE_WEIGHTED, check_objective
from ..objectives.forward import forward_scores
from ..programs.posterior import Posterior
from ..programs.predictions import Prediction, simulate
from ..programs.protocol import Program
from ..runtime import derived_seed
from .settings import Settings
from .step import Refit

SEED = 0
SIMULATED = 1_000  # data points that a guide is scored on where it is trained on simulations


class Validation:
    """The validation data, scored on the same draws every time.

    Arguments:
        program: The program, on its device.
        data: The data set.
        settings: Whose objective says what is best: the bound for ``iw`` and ``dreg``, otherwise
            the ELBO, or the reconstruction where the guide is a point mass.
        refit: Where the guide alone is trained, on what: on simulations, the mean of log q(z | x)
            over as many that are not trained on says what is best; on both, its sum with the bound
            on the data.

    Raises:
        InputError: If the data do not suit the program, or the program the objective.
    """

    def __init__(
        self, program: Program, data: DataSet, settings: Settings, refit: Refit | None = None
    ) -> None:
        self.posterior = Posterior(program, data.batch("validation"), data.validation.rows)
        self._on = "data" if refit is None else refit.on
        self._seed = derived_seed(settings.seed, "simulations to validate on")
        if self._on != "data":
            _require_density(self.posterior)
        check_objective(settings.objective, program, self.posterior.batch, settings.free_bits)
        self._by_bound = settings.objective in IMPORTANCE_WEIGHTED
        self._draws = settings.particles if self._by_bound else 1

    def __call__(self) -> dict[str, float]:
        """The columns ``elbo``, ``reconstruction``, ``kl`` and so on, in nats per datum.

        Raises:
            FloatingPointError: If one is not finite.
        """
        terms = self.posterior.terms(self._draws, SEED)
        estimates = summarize(terms, self.posterior.sites.is_point_mass)
        if self._draws == 1:
            estimates.pop("iw_bound", None)  # it is the ELBO then
        row = {name: estimate.mean for name, estimate in estimates.items()}
        if not all(map(math.isfinite, row.values())):
            raise FloatingPointError("the validation ELBO is not finite")
        if "elbo" in row:
            row["elbo_stderr"] = estimates["elbo"].stderr
        if self._on != "data":
            simulated, pairs = self._simulated
            forward = Estimate.of(forward_scores(simulated, pairs))
            row |= {"log_q": forward.mean, "log_q_stderr": forward.stderr}
            if not math.isfinite(forward.mean):
                raise FloatingPointError("log q(z | x) of simulated data is not finite")
        return row

    @cached_property
    def _simulated(self) -> tuple[Posterior, Prediction]:
        """Data that the model made. They are drawn when they are first needed: before a fit that
        is resumed has its weights back, it is another model."""
        program = self.posterior.program
        pairs = simulate(program, self.posterior.batch, SIMULATED, self._seed)
        return Posterior(program, pairs.batch), pairs

    def score(self, row: Mapping[str, float]) -> float:
        """What is compared between epochs; larger is better."""
        bound = row.get("iw_bound" if self._by_bound else "elbo", row["reconstruction"])
        if self._on == "data":
            return bound
        return row["log_q"] + (bound if self._on == "both" else 0.0)


def _require_density(posterior: Posterior) -> None:
    """Refuse a guide that cannot be trained on simulations.

    Raises:
        InputError: Saying why.
    """
    sites = posterior.sites
    reason = "is a point mass, which has no density" if sites.is_point_mass else sites.intractable
    if reason:
        raise InputError(
            f"the guide of {type(posterior.program).__name__}",
            f"{reason}: it cannot be trained on simulations",
            "train it on the data",
        )
