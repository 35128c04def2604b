"""How to fit: the settings of :func:`ppl_vae.fit`, each in its range."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import get_args

from ..choices import Engine, Objective
from ..errors import InputError, check_int
from ..objectives.estimators import IMPORTANCE_WEIGHTED
from ..runtime import check_seed

SMALLEST = 5e-324  # positive number


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        epochs: Passes over the training data, at most.
        batch_size: Data points in a step; all, where there are fewer.
        learning_rate: Adam's highest learning rate; it falls to 0 along a cosine.
        warmup_epochs: Epochs over which it rises to that from 0.
        objective: ``"elbo"``, ``"analytic-kl"``, ``"stl"``, ``"iw"`` or ``"dreg"``; see
            ``make_objective``.
        particles: Draws for each datum and step.
        kl_warmup_epochs: Epochs over which the weight of the KL term rises from 0 to 1.
        free_bits: KL up to which a latent site is not penalized, in nats per datum.
        clip_norm: Bound on the norm of the gradient, in nats per datum; ``None`` for none.
        patience: Epochs without a better validation ELBO before stopping; ``None`` never stops.
        seed: Seed of data order, binarization and draws.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        engine: ``"compiled"`` runs steps without Pyro, ``"eager"`` runs each through it, ``"auto"``
            compiles where there are steps enough; see :class:`ppl_vae.CompiledSVI`.

    Raises:
        InputError: If a value is out of its range, or two contradict each other.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    warmup_epochs: float = 1.0
    objective: Objective = "elbo"
    particles: int = 1
    kl_warmup_epochs: float = 0.0
    free_bits: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    engine: Engine = "auto"

    def __post_init__(self) -> None:
        # NumPy's numbers, which JSON does not know, become Python's.
        for name in ("epochs", "batch_size", "particles", "patience"):
            if name != "patience" or self.patience is not None:
                self._set(name, check_int(name, getattr(self, name)))
        for name in ("warmup_epochs", "kl_warmup_epochs", "free_bits"):
            self._set(name, self._number(name, 0.0, "a number of at least 0"))
        for name in ("learning_rate", "clip_norm"):
            if name != "clip_norm" or self.clip_norm is not None:
                self._set(name, self._number(name, SMALLEST, "a positive number"))
        self._set("seed", check_seed(self.seed))
        for name, choices in (("objective", get_args(Objective)), ("engine", get_args(Engine))):
            self._require(getattr(self, name) in choices, name, f"one of {', '.join(choices)}")
        self._require(isinstance(self.device, str), "device", "a name such as 'auto' or 'cpu'")
        if self.objective in IMPORTANCE_WEIGHTED:
            expected = f"2 or more for the objective {self.objective}"
            self._require(self.particles >= 2, "particles", expected)
            for name in ("free_bits", "kl_warmup_epochs"):
                expected = f"0 for the objective {self.objective}, which has no KL term"
                self._require(getattr(self, name) == 0, name, expected)

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def _require(self, valid: bool, name: str, expected: str) -> None:
        if not valid:
            raise InputError(name, f"must be {expected}, got {getattr(self, name)!r}")

    def _number(self, name: str, least: float, expected: str) -> float:
        value = getattr(self, name)
        is_real = isinstance(value, Real) and not isinstance(value, bool)
        self._require(is_real and least <= value < math.inf, name, expected)
        return float(value)
