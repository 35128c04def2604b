"""The score of the validation data, by which the best epoch is chosen."""

import math
from collections.abc import Mapping

from ..data.dataset import DataSet
from ..evidence.scores import summarize
from ..objectives.estimators import IMPORTANCE_WEIGHTED, check_objective
from ..programs.posterior import Posterior
from ..programs.protocol import Program
from .settings import Settings

SEED = 0


class Validation:
    """The validation data, scored on the same draws every time.

    Arguments:
        program: The program, on its device.
        data: The data set.
        settings: Whose objective says what is best: the bound for ``iw`` and ``dreg``, otherwise
            the ELBO, or the reconstruction where the guide is a point mass.

    Raises:
        InputError: If the data do not suit the program, or the program the objective.
    """

    def __init__(self, program: Program, data: DataSet, settings: Settings) -> None:
        self.posterior = Posterior(program, data.batch("validation"), data.validation.rows)
        check_objective(settings.objective, program, self.posterior.batch)
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
        return row

    def score(self, row: Mapping[str, float]) -> float:
        """What is compared between epochs; larger is better."""
        return row.get("iw_bound" if self._by_bound else "elbo", row["reconstruction"])
