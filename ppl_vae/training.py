"""Fit a program to data by SVI: epochs, schedules, early stopping, divergence guard."""

import math
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from .data import DataSet, SplitName
from .engine import Engine, pays
from .errors import InputError
from .evidence import summarize
from .joint import TorchOptimizer
from .objectives import (
    IMPORTANCE_WEIGHTED,
    KLWeight,
    Objective,
    check_objective,
    make_objective,
)
from .program import Program, check_program, device_of, dtype_of
from .runs import Run
from .runtime import MAX_SEED, derived_seed, isolated, pick_device
from .sites import is_point_mass, latent_distributions
from .svi import CompiledSVI
from .weights import log_terms

VALIDATION_SEED = 0
LOOKS = 50  # at the loss in an epoch, each of which waits for a GPU


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
                raise InputError(f"{name} must be {expected}, got {getattr(self, name)!r}")

        def number(name: str) -> float:
            value = getattr(self, name)
            numeric = isinstance(value, Real) and not isinstance(value, bool)
            return float(value) if numeric else math.nan

        def whole(name: str) -> bool:
            return isinstance(getattr(self, name), Integral) and not math.isnan(number(name))

        for name in ("epochs", "batch_size", "particles"):
            require(whole(name) and number(name) >= 1, name, "a whole number of at least 1")
        for name in ("warmup_epochs", "kl_warmup_epochs", "free_bits"):
            require(0 <= number(name) < math.inf, name, "a number of at least 0")
        require(0 < number("learning_rate") < math.inf, "learning_rate", "a positive number")
        require(self.objective in get_args(Objective), "objective", f"in {get_args(Objective)}")
        require(self.engine in get_args(Engine), "engine", f"in {get_args(Engine)}")
        require(self.clip_norm is None or number("clip_norm") > 0, "clip_norm", "positive")
        patient = self.patience is None or (whole("patience") and number("patience") >= 1)
        require(patient, "patience", "a whole number of at least 1")
        require(whole("seed") and 0 <= self.seed <= MAX_SEED, "seed", "in 0 ... 2^63 - 1")
        if self.objective in IMPORTANCE_WEIGHTED:
            expected = f"2 or more for the objective {self.objective}"
            require(self.particles >= 2, "particles", expected)
            for name in ("free_bits", "kl_warmup_epochs"):
                expected = f"0 for the objective {self.objective}, which has no KL term"
                require(number(name) == 0, name, expected)


@dataclass
class History:
    """What happened in a fit.

    Attributes:
        epochs: One row for each epoch: the validation ``elbo``, ``reconstruction`` and ``kl`` in
            nats per datum, the training ``loss``, rates and times.
        best_epoch: The epoch whose weights the program ends with.
        stopped_early: Whether patience ran out.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False


def fit(
    program: Program,
    data: DataSet,
    settings: Settings | None = None,
    *,
    run: Run | None = None,
    progress: bool = True,
) -> History:
    """Fit a program by stochastic variational inference, in place.

    Each step is one of :class:`ppl_vae.CompiledSVI` with Adam; after each epoch the validation data
    are scored, and the weights that scored best are the ones kept.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`. It is moved to the device.
        data: What to fit it to.
        settings: How to fit it.
        run: A run directory to keep weights and metrics in.
        progress: Whether to show a progress bar on standard error.

    Returns:
        The history of the fit.

    Raises:
        InputError: If program and data do not fit together, before any step; or if the loss
            becomes infinite or NaN, after the last good weights have been restored.

    Example:
        >>> from ppl_vae import load_data
        >>> from ppl_vae.models import LinearGaussian
        >>> data = load_data("digits")
        >>> ppca = LinearGaussian(data.shape, latent_dim=2)
        >>> history = fit(ppca, data, Settings(epochs=2), progress=False)
        >>> history.epochs[1]["elbo"] > history.epochs[0]["elbo"]
        True
    """
    settings = settings or Settings()
    if not isinstance(data, DataSet):
        raise InputError(f"data must be a DataSet, as make_data gives, not {type(data).__name__}")
    device = pick_device(settings.device)
    if settings.batch_size > len(data.train):
        raise InputError(
            f"{data.source}: {len(data.train)} training data are fewer than a batch of "
            f"{settings.batch_size}: lower the batch size"
        )
    program.to(device)
    for split in get_args(SplitName):
        check_program(program, data.fixed(split), getattr(data, split).rows)
    fitting = _Fit(program, data, settings)
    if run is not None:
        run.start()
    history = History()
    with (
        isolated(settings.seed, device),
        warnings.catch_warnings(),
        _progress_bar(progress) as bar,
    ):
        # Pyro warns of a NaN loss, which here ends the fit, and of parameters that are frozen.
        warnings.filterwarnings("ignore", "Encountered|.*requires_grad=False", UserWarning)
        task = bar.add_task(
            "", total=settings.epochs * fitting.steps_per_epoch, loss="", figures=""
        )
        fitting.on_look = lambda steps, loss: bar.update(
            task, advance=steps, loss=f"loss {loss:.2f}"
        )
        fitting.svi.gradients.on_compile = lambda begins: bar.update(
            task, figures="compiling the step, once" if begins else ""
        )
        best = _Best(program, run)
        for epoch in range(1, settings.epochs + 1):
            bar.update(task, description=f"epoch {epoch}/{settings.epochs}")
            try:
                row = {"epoch": epoch, **fitting.epoch()}
            except KeyboardInterrupt:
                best.restore()
                raise
            except FloatingPointError as error:
                best.restore()
                raise InputError(
                    f"{error} in epoch {epoch}, and the weights of epoch {history.best_epoch} are "
                    f"kept: try learning_rate {settings.learning_rate / 4:g}, a clip_norm of 100, "
                    "more warmup_epochs, or look for outliers in the data"
                ) from None
            history.epochs.append(row)
            if best.offer(row.get(fitting.criterion, row["reconstruction"])):
                history.best_epoch = epoch
            if run is not None:
                run.log(row)
            bar.update(task, figures=_figures(row))
            if settings.patience and epoch - history.best_epoch >= settings.patience:
                history.stopped_early = True
                break
        best.restore()
    return history


class _Fit:
    """The moving parts of one fit."""

    def __init__(self, program: Program, data: DataSet, settings: Settings) -> None:
        self.program, self.data, self.settings = program, data, settings
        self.objective = make_objective(settings.objective, settings.particles)
        self.device = device_of(program)
        self.parameters = [p for p in program.parameters() if p.requires_grad]
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=torch.tensor(settings.learning_rate, device=self.device)
            if on_gpu
            else settings.learning_rate,
            fused=True,
            capturable=on_gpu,
        )
        if settings.clip_norm is not None:
            self.optimizer.register_step_pre_hook(self._clip)
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        weighs_kl = settings.kl_warmup_epochs > 0 or settings.free_bits > 0
        self.kl_weight = KLWeight(settings.free_bits) if weighs_kl else None
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(derived_seed(settings.seed, "data"))
        self.validation = data.fixed("validation")
        self.point_mass = is_point_mass(*latent_distributions(program, self.validation))
        self.criterion = "iw_bound" if settings.objective in IMPORTANCE_WEIGHTED else "elbo"
        check_objective(settings.objective, program, self.validation)
        self.svi = CompiledSVI(
            program.model,
            program.guide,
            TorchOptimizer(self.optimizer),
            self.objective.loss,
            self._loss_and_grads,
            engine=self._engine(),
        )
        self.steps = 0
        self.on_look: Any = None

    def _engine(self) -> Engine:
        """What ``"auto"`` comes to, now that the number of steps is known."""
        if self.settings.engine != "auto":
            return self.settings.engine
        batch = self.data.train.x[: self.settings.batch_size]
        compiles = pays(self.settings.epochs * self.steps_per_epoch, batch.numel())
        return "compiled" if compiles else "eager"

    def _loss_and_grads(self, model: Any, guide: Any, x: Tensor) -> Any:
        with self.kl_weight or nullcontext():
            return self.objective.loss_and_grads(model, guide, x)

    def _clip(self, *args: Any) -> None:
        # Pyro's losses are sums over the batch, and so are their gradients.
        assert self.settings.clip_norm is not None
        nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm * self.batch_size)

    def _rate(self, step: int) -> float:
        """Share of the highest rate: a linear rise, then half a cosine."""
        total = self.settings.epochs * self.steps_per_epoch
        warmup = min(self.settings.warmup_epochs * self.steps_per_epoch, total / 2)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    def epoch(self) -> dict[str, float]:
        """One pass over the training data and one over the validation data.

        Raises:
            FloatingPointError: If the loss, or the validation ELBO, is not finite.
        """
        start = time.perf_counter()
        rate = self.optimizer.param_groups[0]["lr"]
        loss, seen, looked = 0.0, 0, 0
        unseen = torch.zeros((), dtype=torch.float64, device=self.device)
        every = math.ceil(self.steps_per_epoch / LOOKS)
        batches = self.data.batches(self.settings.batch_size, self.generator)
        for number, batch in enumerate(batches, start=1):
            unseen += self.step(batch)
            seen += len(batch)
            if number % every == 0 or number == self.steps_per_epoch:
                loss += unseen.item()
                unseen.zero_()
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the loss became {loss}")
                self.on_look(number - looked, loss / seen)
                looked = number
        return {
            **self.validate(),
            "loss": loss / len(self.data.train),
            "learning_rate": float(rate),
            "kl_weight": 1.0 if self.kl_weight is None else self.kl_weight.weight,
            "seconds": time.perf_counter() - start,
        }

    def step(self, batch: Tensor) -> Any:
        """One step of SVI; returns the loss in nats, summed over the batch."""
        x = batch.to(self.device, dtype_of(self.program))
        if self.kl_weight is not None:
            ramp = self.settings.kl_warmup_epochs * self.steps_per_epoch
            self.kl_weight.weight = min(1.0, (self.steps + 1) / (ramp + 1))
        self.batch_size = len(x)
        loss = self.svi.update(x)
        self.schedule.step()
        self.steps += 1
        return loss

    def validate(self) -> dict[str, float]:
        """Score the validation data, on the same draws every time."""
        draws = self.settings.particles if self.criterion == "iw_bound" else 1
        terms = log_terms(self.program, self.validation, draws, VALIDATION_SEED)
        figures = summarize(terms, self.point_mass)
        if draws == 1:
            figures.pop("iw_bound", None)  # it is the ELBO then
        row = {name: estimate.mean for name, estimate in figures.items()}
        if not all(map(math.isfinite, row.values())):
            raise FloatingPointError("the validation ELBO is not finite")
        if "elbo" in row:
            row["elbo_stderr"] = figures["elbo"].stderr
        return row


class _Best:
    """The best weights so far, in memory and in the run directory."""

    def __init__(self, program: Program, run: Run | None) -> None:
        self.program, self.run, self.score = program, run, -math.inf
        self._keep()

    def offer(self, score: float) -> bool:
        """Keep the program's present weights if they score better; say whether they did."""
        if score <= self.score:
            return False
        self.score = score
        self._keep()
        return True

    def restore(self) -> None:
        """Put the best weights back into the program."""
        self.program.load_state_dict(self.weights)

    def _keep(self) -> None:
        self.weights = {k: v.detach().clone() for k, v in self.program.state_dict().items()}
        if self.run is not None:
            self.run.save_weights(self.program)


def _figures(row: dict[str, float]) -> str:
    if "elbo" not in row:
        return f"validation reconstruction {row['reconstruction']:.2f} nats"
    return f"validation ELBO {row['elbo']:.2f} = {row['reconstruction']:.2f} - {row['kl']:.2f} nats"


def _progress_bar(visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(compact=True),
        TextColumn("left  {task.fields[loss]}  {task.fields[figures]}"),
        console=Console(stderr=True),
        disable=not visible,
    )
