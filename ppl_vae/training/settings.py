"""How to fit: the settings of :func:`ppl_vae.fit`, each in its range."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import get_args

from ..choices import Engine, Objective
from ..errors import InputError, check_int
from ..objectives.estimators import IMPORTANCE_WEIGHTED
from ..runtime import check_seed

SMALLEST = 5e-324  # of positive numbers


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        epochs: Passes over the training data, at most.
        batch_size: Data in a step.
        learning_rate: Adam's highest rate; it falls to 0 along a cosine.
        warmup_epochs: Epochs over which the rate rises to it from 0.
        objective: ``"elbo"``, ``"analytic-kl"``, ``"stl"``, ``"iw"`` or ``"dreg"``; see
            ``make_objective``.
        particles: Draws for each datum and step.
        kl_warmup_epochs: Epochs over which the weight of the KL term rises from 0 to 1.
        free_bits: KL below which a latent site goes unpunished, in nats per datum.
        clip_norm: Bound on the norm of the gradient, in nats per datum; ``None`` for none.
        patience: Epochs without a better validation ELBO before stopping; ``None`` never stops.
        seed: Seed of data order, binarization and draws.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        engine: ``"compiled"`` runs steps without Pyro, ``"eager"`` each through it, ``"auto"``
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
        def require(valid: bool, name: str, expected: str) -> None:
            if not valid:
                raise InputError(name, f"must be {expected}, got {getattr(self, name)!r}")

        def keep(name: str, value: float) -> None:
            object.__setattr__(self, name, value)  # NumPy's numbers have no JSON

        def number(name: str, least: float, expected: str) -> None:
            value = getattr(self, name)
            real = isinstance(value, Real) and not isinstance(value, bool)
            require(real and least <= value < math.inf, name, expected)
            keep(name, float(value))

        for name in ("epochs", "batch_size", "particles", "patience"):
            if name != "patience" or self.patience is not None:
                keep(name, check_int(name, getattr(self, name)))
        for name in ("warmup_epochs", "kl_warmup_epochs", "free_bits"):
            number(name, 0.0, "a number of at least 0")
        number("learning_rate", SMALLEST, "a positive number")
        if self.clip_norm is not None:
            number("clip_norm", SMALLEST, "positive")
        require(self.objective in get_args(Objective), "objective", f"in {get_args(Objective)}")
        require(self.engine in get_args(Engine), "engine", f"in {get_args(Engine)}")
        keep("seed", check_seed(self.seed))
        require(isinstance(self.device, str), "device", "a name such as 'auto' or 'cpu'")
        if self.objective in IMPORTANCE_WEIGHTED:
            expected = f"2 or more for the objective {self.objective}"
            require(self.particles >= 2, "particles", expected)
            for name in ("free_bits", "kl_warmup_epochs"):
                expected = f"0 for the objective {self.objective}, which has no KL term"
                require(getattr(self, name) == 0, name, expected)
