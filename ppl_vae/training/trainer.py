"""SVI on a data set, step by step, with states that can be checked, kept and gone back to."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..choices import Engine
from ..compiled.engine import worth_compiling
from ..compiled.fused import TorchOptimizer
from ..compiled.svi import CompiledSVI
from ..data.dataset import DataSet
from ..evidence.scores import summarize
from ..objectives.estimators import IMPORTANCE_WEIGHTED, check_objective, make_objective
from ..objectives.kl_weight import KLWeight
from ..programs.protocol import Program, device_of, dtype_of
from ..programs.sites import is_point_mass, latent_distributions
from ..programs.weights import log_terms
from ..runtime import derived_seed
from .settings import Settings

VALIDATION_SEED = 0
LOOKS = 50  # at the loss in an epoch, each of which waits for a GPU
STEPS_TO_KEEP = 50  # before a state is worth its copy
STRIKES, SLOWER = 3, 0.1  # divergences in a row that end a fit; what one does to the rate

UNSOUND = "a gradient was not finite"  # or a statistic of a layer

State = tuple[dict[str, Tensor], dict[str, Any]]


class DivergenceWarning(UserWarning):
    """A fit went back to an earlier step, and goes on at a lower rate."""


class Trainer:
    """The moving parts of one fit.

    Where the loss is finite, and so are weights and moments, their state is kept, every
    :data:`STEPS_TO_KEEP` steps and after each epoch. Where one of them is not, or the validation
    ELBO is not, weights and moments go back to the state kept last, at a tenth of the rate, while
    data and draws go on. The second time in a row, they go back to the best weights, and Adam
    starts afresh; the third time ends the fit.

    Arguments:
        program: The program, on its device.
        data: What to fit it to.
        settings: How.

    Attributes:
        best: The weights with the highest score so far.
        on_look: Called with the number of steps since it was called last, and the mean loss.
        on_snapshot: Called when a state has been kept.
    """

    def __init__(self, program: Program, data: DataSet, settings: Settings) -> None:
        self.program, self.data, self.settings = program, data, settings
        self.objective = make_objective(settings.objective, settings.particles)
        self.device = device_of(program)
        self.parameters = [p for p in program.parameters() if p.requires_grad]
        on_gpu = self.device.type == "cuda"
        rate = settings.learning_rate
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=torch.tensor(rate, device=self.device) if on_gpu else rate,
            fused=True,
            capturable=on_gpu,
        )
        if settings.clip_norm is not None:
            self.optimizer.register_step_pre_hook(self._clip)
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
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
        self.best, self.score = self._weights(), -math.inf
        self._were_finite = self._finite_buffers()  # a mask may hold infinities
        self.steps, self.slower, self.num_divergences, self.last_rollback = 0, 1.0, 0, 0
        self._begin_epoch()
        self.kept: State = ({}, {})
        self.on_look: Callable[[int, float], None] = lambda steps, loss: None
        self.on_snapshot: Callable[[], None] = lambda: None

    def _begin_epoch(self) -> None:
        self.batches, self.seen, self.loss, self.seconds = 0, 0, 0.0, 0.0
        self._before_order = self.generator.get_state()

    def _engine(self) -> Engine:
        """What ``"auto"`` comes to, now that the number of steps is known."""
        if self.settings.engine != "auto":
            return self.settings.engine
        batch = self.data.train.x[: self.settings.batch_size]
        compiles = worth_compiling(self.settings.epochs * self.steps_per_epoch, batch.numel())
        return "compiled" if compiles else "eager"

    def _loss_and_grads(self, model: Any, guide: Any, x: Tensor) -> Any:
        with self.kl_weight or nullcontext():
            return self.objective.loss_and_grads(model, guide, x)

    def _clip(self, *args: Any) -> None:
        # Pyro's losses are sums over the batch, and so are their gradients.
        assert self.settings.clip_norm is not None
        nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm * self.batch_size)

    def _share(self, step: int) -> float:
        """Share of the highest rate: a linear rise, then half a cosine."""
        total = self.settings.epochs * self.steps_per_epoch
        warmup = min(self.settings.warmup_epochs * self.steps_per_epoch, total / 2)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

    def _rate(self, step: int) -> float:
        return self.settings.learning_rate * self._share(step) * self.slower

    def epoch(self) -> dict[str, float]:
        """What is left of a pass over the training data, and one over the validation data.

        Raises:
            FloatingPointError: If it diverged three times in a row.
        """
        start = time.perf_counter() - self.seconds
        if not self.kept[0]:
            self.keep()
        unseen = torch.zeros((), dtype=torch.float64, device=self.device)
        looked, every = self.batches, math.ceil(self.steps_per_epoch / LOOKS)
        for batch in self._batches():
            unseen += self.step(batch)
            self.batches += 1
            last = self.batches == self.steps_per_epoch
            if self.batches % every and not last:
                continue
            self.check_loss(unseen.item(), looked)
            unseen.zero_()
            looked, self.seconds = self.batches, time.perf_counter() - start
            if not last and self.steps - self.kept[1]["steps"] >= STEPS_TO_KEEP:
                self.keep()
        row = {
            **self._validated(),
            "loss": self._mean_loss(),
            "learning_rate": self._rate(self.steps - self.batches),
            "kl_weight": 1.0 if self.kl_weight is None else self.kl_weight.weight,
            "seconds": time.perf_counter() - start,
        }
        self._begin_epoch()
        return row

    def _batches(self) -> Any:
        """The batches of this epoch that are left, as they would have come."""
        if self.batches == 0:
            order = self.data.order(self.generator)
        else:
            now = self.generator.get_state()
            self.generator.set_state(self._before_order)
            order = self.data.order(self.generator)
            self.generator.set_state(now)
        size = self.settings.batch_size
        return self.data.batches(size, self.generator, order[self.batches * size :])

    def step(self, batch: Tensor) -> Any:
        """One step of SVI; returns the loss in nats, summed over the batch."""
        x = batch.to(self.device, dtype_of(self.program))
        if self.kl_weight is not None:
            ramp = self.settings.kl_warmup_epochs * self.steps_per_epoch
            self.kl_weight.weight = min(1.0, (self.steps + 1) / (ramp + 1))
        (group,) = self.optimizer.param_groups
        rate = self._rate(self.steps)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # where a CUDA graph reads it
        else:
            group["lr"] = rate
        self.batch_size = len(x)
        loss = self.svi.update(x)
        self.steps += 1
        return loss

    def check_loss(self, loss: float, looked: int) -> None:
        """See whether the loss, summed over the batches since ``looked``, is finite."""
        total, size = len(self.data.train), self.settings.batch_size
        if math.isfinite(loss):
            self.loss += loss
            self.seen += min(self.batches * size, total) - looked * size
        else:
            self.roll_back(f"the loss became {loss}")
        self.on_look(self.batches - looked, self._mean_loss())

    def _mean_loss(self) -> float:
        return self.loss / self.seen if self.seen else math.nan

    def _validated(self) -> dict[str, float]:
        """Score the validation data, with the newest weights that can be scored."""
        while True:
            try:
                if not self._is_sound():
                    raise FloatingPointError(UNSOUND)
                return self.validate()
            except FloatingPointError as error:
                self.roll_back(str(error))

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

    def update_best(self, score: float) -> bool:
        """Keep the present weights as the best if they score better; say whether they did."""
        better = score > self.score
        if better:
            self.best, self.score = self._weights(), score
        return better

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.program.state_dict().items()}

    def _moments(self) -> dict[str, Tensor]:
        """Adam's counts and moments, by the place of their parameter."""
        return {
            f"{place}/{name}": value
            for place, parameter in enumerate(self.parameters)
            for name, value in self.optimizer.state[parameter].items()
        }

    def _buffers(self) -> dict[str, Tensor]:
        return dict(cast(nn.Module, self.program).named_buffers())

    def _unstored(self) -> dict[str, Tensor]:
        """Buffers that are not persistent, and so in no ``state_dict``."""
        stored = self.program.state_dict()
        return {name: value for name, value in self._buffers().items() if name not in stored}

    def _finite_buffers(self) -> set[str]:
        floating = {k: v for k, v in self._buffers().items() if v.is_floating_point()}
        return {name for name, value in floating.items() if bool(value.isfinite().all())}

    def _is_sound(self) -> bool:
        buffers = [value for name, value in self._buffers().items() if name in self._were_finite]
        tensors = [*self.parameters, *self._moments().values(), *buffers]
        return bool(torch.stack([t.isfinite().all().to(self.device) for t in tensors]).all())

    def keep(self) -> None:
        """Keep the present state, unless a gradient has made it useless."""
        if not self._is_sound():
            self.roll_back(UNSOUND)
            return
        if self.steps > self.last_rollback:
            self.num_divergences = 0
        tensors = {f"program/{name}": value for name, value in self._weights().items()}
        tensors |= {f"moments/{name}": value.clone() for name, value in self._moments().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"buffers/{k}": v.detach().clone() for k, v in self._unstored().items()}
        tensors |= {"random/cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors |= {"random/cuda": torch.cuda.get_rng_state(self.device)}
        tensors |= {"random/order": self._before_order, "random/data": self.generator.get_state()}
        plain = {name: getattr(self, name) for name in _COUNTS}
        self.kept = (tensors, {**plain, "engine": self.svi.gradients.state()})
        self.on_snapshot()

    def restore(self, state: State) -> None:
        """Go on from a state that was kept, perhaps by another process.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: If it is not that of such a fit.
        """
        tensors, plain = state
        for name in _COUNTS:
            if type(plain[name]) is not type(getattr(self, name)) or plain[name] != plain[name]:
                raise TypeError(f"{name} is {plain[name]!r}")
        if not 0 <= plain["batches"] <= min(self.steps_per_epoch - 1, plain["steps"]):
            raise ValueError(f"{plain['batches']} batches of an epoch were done")
        if not (0 <= plain["num_divergences"] < STRIKES and 0 < plain["slower"] <= 1):
            raise ValueError(f"it had diverged {plain['num_divergences']} times in a row")
        self._require_fit(tensors)
        self.generator.set_state(tensors["random/data"])
        torch.set_rng_state(tensors["random/cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"], self.device)
        self.svi.gradients.restore(plain["engine"])
        self._put_back(tensors)
        for name in _COUNTS:
            setattr(self, name, plain[name])
        self.best, self._before_order, self.kept = best_of(tensors), tensors["random/order"], state

    def _require_fit(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse tensors of other sizes: a fused optimizer would write beyond their memory."""
        like = {f"program/{name}": tensor for name, tensor in self._weights().items()}
        like |= {f"best/{name}": tensor for name, tensor in self._weights().items()}
        like |= {f"buffers/{name}": tensor for name, tensor in self._unstored().items()}
        for place, parameter in enumerate(self.parameters):
            # Adam has none of a parameter that never had a gradient.
            if f"moments/{place}/step" in tensors:
                like |= {f"moments/{place}/{kind}": parameter for kind in ("exp_avg", "exp_avg_sq")}
                like[f"moments/{place}/step"] = torch.tensor(0.0, dtype=torch.float32)
        if odd := like.keys() ^ {name for name in tensors if name.split("/")[0] in _SIZED}:
            raise ValueError(f"{min(odd)} is missing, or not known")
        for name, own in like.items():
            if (tensors[name].shape, tensors[name].dtype) != (own.shape, own.dtype):
                raise ValueError(f"{name} is of another shape or type")

    def finish(self) -> None:
        """Put the best weights into the program."""
        self.program.load_state_dict(self.best)

    def _put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """Change weights, buffers and moments in place, for graphs that read them."""
        self.program.load_state_dict(_inside(tensors, "program/"))
        moments, unstored = _inside(tensors, "moments/"), self._unstored()
        for name, value in _inside(tensors, "buffers/").items():
            unstored[name].copy_(value)
        for name, value in self._moments().items():
            if name not in moments:
                value.zero_()
        for name, value in moments.items():
            place, _, kind = name.partition("/")
            parameter = self.parameters[int(place)]
            present = self.optimizer.state[parameter]
            if kind in present:
                present[kind].copy_(value)
            else:
                present[kind] = value.to(parameter.device, copy=True)

    def roll_back(self, cause: str) -> None:
        self.num_divergences, self.last_rollback = self.num_divergences + 1, self.steps
        if self.num_divergences >= STRIKES:
            raise FloatingPointError(f"{cause}, {STRIKES} times in a row")
        tensors, plain = self.kept
        if self.num_divergences == 1:
            self._put_back(tensors)
            target = f"step {plain['steps']}"
        else:
            self._put_back({f"program/{name}": value for name, value in self.best.items()})
            target = "the best weights"
        self.slower *= SLOWER
        warnings.warn(
            f"{cause} by step {self.steps}: back to {target}, and on at {self.slower:g} of the "
            "learning rate",
            DivergenceWarning,
            stacklevel=2,
        )


_SIZED = ("program", "best", "buffers", "moments")
_COUNTS = (
    *("steps", "slower", "num_divergences", "last_rollback", "score"),
    *("batches", "seen", "loss", "seconds"),  # of the epoch
)


def best_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The best weights, of the tensors of a state."""
    return _inside(tensors, "best/")


def _inside(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
