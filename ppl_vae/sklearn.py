"""A VAE as scikit-learn has its estimators: in pipelines, cross-validation and grid searches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .choices import Objective
from .data.batch import Batch
from .data.missing import MASK
from .data.schema import Column
from .data.validation import make_data
from .evidence.scores import score
from .inference.impute import impute
from .models import VAE
from .programs.predictions import decode, posterior_predictive, prior_predictive
from .programs.references import build_program
from .training.fit import fit
from .training.settings import Settings

if TYPE_CHECKING:
    from .programs.protocol import Program

LARGEST_SEED = 2**31 - 1
LEAST_ROWS = 3  # one of them to validate by
SITE = "z"  # the latent site of a VAE


class _VAEEstimator(BaseEstimator):
    """A VAE of real columns, which are standardized inside it, and may have missing cells."""

    program_: "Program"

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        hidden: Sequence[int] = (64,),
        likelihood: str = "gaussian",
        guide: str = "diagonal",
        objective: Objective = "elbo",
        particles: int = 1,
        epochs: int = 200,
        batch_size: int = 64,
        learning_rate: float = 5e-3,
        draws: int = 100,
        random_state: Any = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.likelihood = likelihood
        self.guide = guide
        self.objective = objective
        self.particles = particles
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.draws = draws
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Fit the VAE to data of shape (N, D); a tenth of the rows choose the best epoch.

        Missing cells are NaN. ``y`` is left alone.
        """
        x = validate_data(
            self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=LEAST_ROWS
        )
        seed = self._seed = int(check_random_state(self.random_state).randint(LARGEST_SEED))
        names = [str(n) for n in getattr(self, "feature_names_in_", range(x.shape[1]))]
        columns = [_column(name, values) for name, values in zip(names, x.T, strict=True)]
        arguments = {
            "latent_dim": self.latent_dim,
            "hidden": tuple(self.hidden),
            "likelihood": self.likelihood,
            "guide": self.guide,
            "columns": [column.plain() for column in columns],
        }
        data = make_data(x, test=(x[:1], None))  # what is to be held out is the caller's choice
        self.program_ = build_program(VAE, data.shape, arguments, seed).to(torch.float64)
        settings = Settings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            objective=self.objective,
            particles=self.particles,
            seed=seed,
        )
        self.n_iter_ = len(fit(self.program_, data, settings, progress=False).epochs)
        return self

    def _batch(self, X: Any) -> Batch:  # noqa: N803
        """New data, as the VAE takes them."""
        check_is_fitted(self)
        x = validate_data(
            self, X, reset=False, dtype=np.float64, ensure_all_finite="allow-nan", copy=True
        )
        missing = np.isnan(x)
        x[missing] = 0.0
        batch = Batch(x=torch.from_numpy(x))
        return Batch(batch, **{MASK: torch.from_numpy(~missing)}) if missing.any() else batch

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = True  # bounds and imputations are Monte Carlo, if seeded
        return tags


def _column(name: str, values: np.ndarray) -> Column:
    """A real column; of one value alone, or of none, the scale is 1."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Column(name, "real")
    if known.min() == known.max():  # rounding leaves a deviation of some 1e-17
        return Column(name, "real", float(known[0]))
    return Column(name, "real", float(known.mean()), float(known.std()))


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _VAEEstimator):
    r"""The latents of a VAE as features.

    The VAE is :class:`ppl_vae.models.VAE` of real columns, and may have missing cells, NaN.

    Arguments:
        latent_dim: Number of latents L.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        likelihood: ``"gaussian"``, ``"laplace"`` or ``"student-t"``.
        guide: The family of q(z|x); see :class:`ppl_vae.models.VAE`.
        objective, particles, epochs, batch_size, learning_rate: See :class:`ppl_vae.Settings`.
        draws: Draws for each data point of :meth:`score_samples`.
        random_state: Of initial weights, the order of the data, and draws.

    Attributes:
        program_: The fitted program: all that ``ppl_vae`` does can be done with it.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x = load_iris().data
        >>> vae = VAETransformer(latent_dim=2, epochs=20, random_state=0)
        >>> vae.fit_transform(x).shape
        (150, 2)
        >>> vae.inverse_transform(vae.transform(x)).shape, vae.sample(5).shape
        ((150, 4), (5, 4))
    """

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The mean of q(z|x), of shape (N, L)."""
        found = posterior_predictive(self.program_, self._batch(X), 0)
        return found.latent_means[SITE].numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The mean of p(x|z), of shape (N, D), for latents of shape (N, L)."""
        check_is_fitted(self)
        z = torch.from_numpy(check_array(X, dtype=np.float64))
        return decode(self.program_, {SITE: z}, (self.n_features_in_,), len(z)).mean.numpy()

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """A lower bound on log p(x), of the observed cells, in nats, of shape (N,).

        It is importance weighted (Burda et al. 2016), and tighter with more draws.
        """
        found = score(self.program_, self._batch(X), self.draws, self._seed)
        return found.per_datum["iw_bound"].numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean of :meth:`score_samples`, in nats per datum; more is better."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> np.ndarray:
        """Draws from the model, of shape (n_samples, D). They are the same at each call."""
        check_is_fitted(self)
        return prior_predictive(
            self.program_, (self.n_features_in_,), n_samples, self._seed
        ).x.numpy()

    @property
    def _n_features_out(self) -> int:
        return self.latent_dim


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, _VAEEstimator):
    """Missing cells filled in with their posterior means, by :func:`ppl_vae.impute`.

    Arguments:
        latent_dim, hidden, likelihood, guide, objective, particles, epochs, batch_size,
            learning_rate, random_state: See :class:`VAETransformer`.
        draws: Draws for each data point.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 1)) * [1.0, 2.0, -1.0]
        >>> x[::5, 1] = np.nan
        >>> filled = VAEImputer(latent_dim=1, epochs=20, random_state=0).fit_transform(x)
        >>> bool(np.isnan(filled).any())
        False
    """

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The data, of shape (N, D), with the mean of p(x missing | x observed) for NaN."""
        batch = self._batch(X)
        if MASK not in batch:
            return batch.x.numpy()
        found = impute(self.program_, batch, self.draws, target="guide", seed=self._seed)
        filled: np.ndarray = found["x"].values
        return filled
