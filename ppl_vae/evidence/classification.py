"""Classes that a guide finds: accuracy, calibration, and the temperature that mends it."""

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..data.batch import Batch
from ..data.classes import LABELS, UNKNOWN
from ..errors import InputError, user_code_errors
from ..programs.batches import check_batch, covariates_of
from ..programs.posterior import Data
from ..programs.protocol import Program, device_of, dtype_of, evaluation_mode, innermost
from ..programs.scoring import rows_at_once
from .scores import Estimate

CLASS_SITE = "label"  # of a guide, where it draws the class of a data point
BINS = 15  # of confidence, of as many data points each
RESAMPLES = 200
WIDEST = 10.0  # |log temperature|


@dataclass(frozen=True, repr=False)
class Classification:
    r"""q(y \| x) of N data points, and how good it is where their classes are known.

    Attributes:
        logits: log q(y \| x), of shape (N, K).
        labels: The classes, of shape (N,); -1 where one is not known.
        log_temperature: The logarithm of the temperature by which other data are calibrated, with
            its standard error (of a sandwich estimate); ``None`` if there were none.
    """

    logits: Tensor
    labels: Tensor
    log_temperature: Estimate | None = None

    def __repr__(self) -> str:
        found = (f"{name} {e.mean:.4f} ± {e.stderr:.4f}" for name, e in self.estimates().items())
        return f"Classification({', '.join(found)})"

    def probabilities(self, calibrated: bool = True) -> Tensor:
        """q(y|x) of shape (N, K), by default at the temperature, if there is one."""
        cold = self.log_temperature is None or not calibrated
        scale = 1.0 if cold else math.exp(-self.log_temperature.mean)  # type: ignore[union-attr]
        return (self.logits * scale).softmax(-1)

    def known(self, calibrated: bool) -> tuple[Tensor, Tensor]:
        """Probabilities and classes of the data whose class is known."""
        seen = self.labels != UNKNOWN
        return self.probabilities(calibrated)[seen], self.labels[seen]

    def estimates(self, seed: int = 0) -> dict[str, Estimate]:
        """What is known of the classifier, over the data whose class is known.

        - ``accuracy``: the share whose likeliest class is theirs;
        - ``brier``: the squared distance of q(y|x) from the class, summed over classes (Brier
          1950); 0 is best, 2 worst;
        - ``ece``: the expected calibration error, the mean distance of confidence and accuracy over
          15 bins of as many data each (Guo et al. 2017, eq. 3, with bins as of Nguyen & O'Connor
          2015). It is above 0 by chance alone: ``ece_by_chance`` is its mean were each confidence
          right;
        - ``brier_calibrated``, ``ece_calibrated``, ``ece_calibrated_by_chance``: the same at the
          temperature;
        - ``log_temperature``.

        Standard errors are over data; those of the calibration error are of 200 bootstrap samples.
        """
        if not (self.labels != UNKNOWN).any():
            return {}
        found: dict[str, Estimate] = {}
        for calibrated in (False, True)[: 1 if self.log_temperature is None else 2]:
            probabilities, labels = self.known(calibrated)
            ending = "_calibrated" if calibrated else ""
            confidence, guess = probabilities.max(-1)
            correct = (guess == labels).double()
            if not calibrated:
                found["accuracy"] = Estimate.of(correct)
            found[f"brier{ending}"] = Estimate.of(brier(probabilities, labels))
            found |= _calibration_errors(f"ece{ending}", confidence, correct, seed)
        if self.log_temperature is not None:
            found["log_temperature"] = self.log_temperature
        return found


def classify(
    program: Program, data: Data, calibrate_on: Data | None = None
) -> Classification | None:
    r"""The classes of data by the guide's q(y \| x), and how well it knows them.

    Temperature scaling (Guo et al. 2017, section 4.2) divides the logits of all classes by one
    number, which maximizes the likelihood of the classes of other data.

    Arguments:
        program: One whose guide draws the class at a categorical site ``label``, where ``y`` is -1.
        data: A batch of ``x`` and, where they are known, of classes ``y``.
        calibrate_on: Other data with classes.

    Returns:
        The classification; ``None`` if the program is not such a one.

    Raises:
        InputError: If the data are not what the program takes.

    Example:
        >>> from ppl_vae.models import SemiSupervisedVAE
        >>> m2 = SemiSupervisedVAE((5,), latent_dim=2, hidden=(8,), classes=3)
        >>> classify(m2, torch.zeros(7, 5)).probabilities().shape
        torch.Size([7, 3])
    """
    logits = class_logits(program, data)
    if logits is None:
        return None
    temperature = None
    if calibrate_on is not None and LABELS in (other := Batch.of(calibrate_on)):
        known = other.rows(other[LABELS] != UNKNOWN)
        if known.size:
            found = class_logits(program, known)
            assert found is not None
            temperature = fit_temperature(found, known[LABELS])
    labels = Batch.of(data).get(LABELS, torch.full((len(logits),), UNKNOWN))
    return Classification(logits, labels.cpu(), temperature)


def class_logits(program: Program, data: Data) -> Tensor | None:
    r"""log q(y \| x) of shape (N, K), in double precision; ``None`` if the guide has no classes."""
    batch = check_batch(program, data)
    taken = covariates_of(program)[1]
    if taken is not None and LABELS not in taken:
        return None
    with user_code_errors(program, batch.x.shape[1:]), evaluation_mode(program, seed=0):
        if _class_distribution(program, batch.rows(slice(1))) is None:
            return None
        unknown = Batch({**batch, LABELS: torch.full((batch.size,), UNKNOWN)})
        parts = []
        for part in unknown.split(rows_at_once(program, batch.x)):
            q = _class_distribution(program, part)
            assert q is not None
            parts.append(q.logits.double().cpu())
    return torch.cat(parts)


def _class_distribution(program: Program, batch: Batch) -> Any:
    placed = batch.to(device_of(program), dtype_of(program))
    node: Any = placed.call(poutine.trace(program.guide).get_trace).nodes.get(CLASS_SITE)
    q = None if node is None else innermost(node["fn"])
    return q if isinstance(q, dist.Categorical) else None


def fit_temperature(logits: Tensor, labels: Tensor) -> Estimate:
    """The logarithm of the temperature that maximizes the likelihood of classes.

    The likelihood is concave in the inverse temperature, so that its slope is bisected. Where all
    are right the best temperature is 0, and the lowest of exp(-10) is returned.

    Arguments:
        logits: Of shape (N, K).
        labels: Classes of shape (N,).

    Example:
        >>> torch.manual_seed(0) and None
        >>> logits = torch.randn(10_000, 3).double()
        >>> labels = torch.distributions.Categorical(logits=logits).sample()
        >>> found = fit_temperature(2 * logits, labels)  # too sure, by a factor of 2
        >>> abs(found.mean - math.log(2)) < 4 * found.stderr
        True
    """
    if not len(labels):
        raise InputError("labels", "are not known, so that nothing can be calibrated")
    own = logits.gather(1, labels[:, None])[:, 0]

    def slopes(log_temperature: float) -> tuple[Tensor, Tensor]:
        p = (logits * math.exp(-log_temperature)).softmax(-1)
        mean = (p * logits).sum(-1)
        return own - mean, (p * (logits - mean[:, None]).square()).sum(-1)

    low, high = -WIDEST, WIDEST
    while high - low > 1e-9:
        middle = (low + high) / 2
        hotter = slopes(middle)[0].mean() < 0  # the likelihood falls with the inverse temperature
        low, high = (middle, high) if hotter else (low, middle)
    slope, curvature = slopes(low)
    # Of the inverse temperature, relative to it.
    error = (slope.square().mean() / len(slope)).sqrt() / curvature.mean() * math.exp(low)
    return Estimate(low, error.item(), len(slope))


def brier(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The Brier score of each data point, of shape (N,).

    Example:
        >>> brier(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 0]))
        tensor([0.5000, 2.0000])
    """
    own = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities - own).square().sum(-1)


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> tuple[Tensor, ...]:
    """Mean confidence, accuracy and size of bins of as many data each, sorted by confidence.

    Example:
        >>> confidence = torch.tensor([0.5, 0.7, 0.8, 1.0])
        >>> reliability(confidence, torch.tensor([1.0, 0.0, 1.0, 1.0]), bins=2)
        (tensor([0.6000, 0.9000]), tensor([0.5000, 1.0000]), tensor([2., 2.]))
    """
    order = confidence.argsort(stable=True)
    parts = [part for part in order.tensor_split(bins) if len(part)]
    sizes = torch.tensor([float(len(part)) for part in parts])
    means = (torch.stack([t[part].mean() for part in parts]) for t in (confidence, correct))
    return (*means, sizes)


def _calibration_error(confidence: Tensor, correct: Tensor) -> float:
    told, found, sizes = reliability(confidence, correct)
    return float(((told - found).abs() * sizes).sum() / sizes.sum())


def _calibration_errors(
    name: str, confidence: Tensor, correct: Tensor, seed: int
) -> dict[str, Estimate]:
    """The error and its spread over bootstrap samples, and that of classes drawn as is told."""
    generator, size = torch.Generator().manual_seed(seed), len(correct)
    resampled, by_chance = [], []
    for _ in range(RESAMPLES):
        rows = torch.randint(size, (size,), generator=generator)
        resampled.append(_calibration_error(confidence[rows], correct[rows]))
        drawn = torch.rand(size, generator=generator, dtype=torch.double) < confidence
        by_chance.append(_calibration_error(confidence, drawn.double()))
    error = torch.tensor(resampled, dtype=torch.double).std().item()
    chance = torch.tensor(by_chance, dtype=torch.double)
    return {
        name: Estimate(_calibration_error(confidence, correct), error, size),
        f"{name}_by_chance": Estimate(chance.mean().item(), chance.std().item(), size),
    }
