"""Diagnose a program: ten questions, each answered by a verdict, kept as InferenceData."""

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from torch import Tensor

from ..data.dataset import DataSet
from ..errors import InputError, check_type, first_line
from ..labels import variable
from ..programs.batches import match_data
from ..programs.conformance import check_shapes
from ..programs.posterior import Posterior
from ..programs.protocol import Program
from ..programs.scoring import DRAW_BYTES
from ..progress import OnProgress, Progress
from ..runtime import check_seed, derived_seed
from ..storage import arviz_io
from ..storage.files import make_folder, replacing
from ..storage.memory import read_text, refuse_beyond_memory
from ..storage.tensors import digest_of
from .groups import data_groups, shown_groups
from .quantities import Quantity, check_quantities
from .questions import Effort, questions_of
from .reading import read
from .remedies import Remedy, choose
from .verdicts import DiagnosticResult, Verdict

RESULT, DIGEST = "diagnosis.nc", "sha256"
REMEDY = "diagnose-again"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The verdicts on a posterior, and what they rest on.

    Attributes:
        verdicts: One for each question: ``coverage``, ``calibration``, ``gaps``, ``reference``,
            ``collapse``, ``generation``, ``certificate``, ``local``, ``misspecification``,
            ``posterior_sbc``.
        inference_data: ``arviz.InferenceData``: ArviZ's own groups for some of the data,
            ``diagnostics`` of each data point, and a group for each question.
        about: Program, data, seed and effort.
    """

    verdicts: Mapping[str, Verdict]
    inference_data: Any
    about: dict[str, Any]

    @property
    def reading(self) -> str:
        """The verdicts read together: what is wrong first, and what that means for using z,
        samples and log p(x)."""
        return read(self.verdicts)

    @property
    def remedies(self) -> dict[str, list[Remedy]]:
        """What can be done about each question that does not pass, the likeliest first."""
        groups = self.inference_data
        gaps = groups["gaps"] if "gaps" in groups.groups() else None
        takes = frozenset(str(self.about.get("takes", "")).split(", "))
        all_data = self.about.get("held_out", 0) < self.about.get("data_points", 0)
        return choose(self.verdicts, takes, gaps, all_data)

    def as_dict(self) -> dict[str, Any]:
        """The reading, the verdicts, their remedies and ``about`` as plain data for JSON."""
        verdicts = {key: verdict.as_dict() for key, verdict in self.verdicts.items()}
        remedies = {key: [asdict(r) for r in found] for key, found in self.remedies.items()}
        return {**self.about, "reading": self.reading, "verdicts": verdicts, "remedies": remedies}

    def __repr__(self) -> str:
        grades = (f"{key}: {verdict.grade}" for key, verdict in self.verdicts.items())
        return f"Diagnosis({', '.join(grades)})"

    def __str__(self) -> str:
        lines = [f"{v.grade.upper():10}  {v.question} {v.meaning}" for v in self.verdicts.values()]
        return "\n".join([self.reading, *lines])


def diagnose(
    program: Program,
    data: DataSet,
    effort: Effort | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    quantities: Mapping[str, Quantity] | None = None,
    questions: Collection[str] | None = None,
) -> Diagnosis:
    r"""Find out how far q(z|x) can be trusted, on data that the fit has not seen.

    Ten questions are asked. One that cannot be answered has the verdict ``"cannot say"``, with the
    reason, and the others are asked all the same.

    Arguments:
        program: The fitted program; see :class:`ppl_vae.Program`.
        data: The data set that it was fitted to. The questions are about its test data; its
            training data show whether the model copies them.
        effort: How much work to put into it.
        seed: Seed of everything random.
        on_progress: Told of the share of the work that has been done, and of the question at work.
        quantities: What you would compare between data and draws from the model, beside what is
            compared in any case: functions of ``x``, of shape (N, \*data_shape), to one number for
            each data point, of shape (N,), by name.
        questions: Which to ask, by the keys of :attr:`Diagnosis.verdicts`; by default all.

    Raises:
        InputError: If there is no such question, ``program`` is not a program, ``data`` not a data
            set that it takes, or a quantity does not give one finite number for each data point.

    Example:
        >>> import torch
        >>> from ppl_vae import make_data
        >>> from ppl_vae.models import LinearGaussian
        >>> torch.manual_seed(0)
        <...>
        >>> ppca = LinearGaussian((5,))
        >>> ppca.set_exact_guide()
        >>> data = make_data(ppca.model(size=1000).detach())
        >>> diagnosis = diagnose(ppca, data, Effort(draws=400, nuts_points=2))
        >>> diagnosis.verdicts["coverage"].grade, diagnosis.verdicts["calibration"].grade
        ('pass', 'pass')
    """
    examination = Examination(program, data, effort, seed, quantities)
    return examination.concluded(examination.answer(questions, on_progress))


class Examination:
    """The questions about a program, for who asks some of them here and others elsewhere.

    Its arguments are those of :func:`diagnose`, which asks all of them. Their seeds do not depend
    on which others are asked.
    """

    def __init__(
        self,
        program: Program,
        data: DataSet,
        effort: Effort | None = None,
        seed: int = 0,
        quantities: Mapping[str, Quantity] | None = None,
    ) -> None:
        effort, self.seed = Effort() if effort is None else effort, check_seed(seed)
        check_type("effort", effort, Effort)
        self.program, self.data, self.effort = program, match_data(program, data), effort
        self.batch = self.data.batch("test", seed).rows(slice(effort.data_points))
        rows = self.data.test.rows[: effort.data_points]
        check_shapes(program, self.batch)
        own = check_quantities(quantities, self.batch.x)
        _refuse_effort(effort, self.batch.x)

        @cache
        def posterior() -> Posterior:
            return Posterior(program, self.batch, rows)  # where it fails, none has an answer

        self._posterior = posterior
        self._asked = questions_of(posterior, self.data, effort, self.seed, own)

    def shares(self, count: int) -> list[list[str]]:
        """The questions in so many parts, none of which takes much longer than the others."""
        parts: list[list[str]] = [[] for _ in range(count)]
        spent = [0.0] * count
        for cost, key in sorted(((cost, key) for key, (_, _, cost) in self._asked.items()))[::-1]:
            least = spent.index(min(spent))
            parts[least].append(key)
            spent[least] += cost
        return parts

    def answer(
        self, questions: Collection[str] | None = None, on_progress: OnProgress | None = None
    ) -> dict[str, DiagnosticResult]:
        """Ask questions, by default all. One that cannot be answered has a verdict that says so.

        Raises:
            InputError: If there is no such question.
        """
        asked = {key: self._asked[key] for key in _chosen(questions, self._asked)}
        progress = Progress(on_progress, sum(cost for _, _, cost in asked.values()))
        answers = {}
        for key, (question, ask, cost) in asked.items():
            progress.advance(0.0, key)
            answers[key] = _answer(question, ask, progress.part(cost))
        return answers

    def concluded(self, answers: Mapping[str, DiagnosticResult]) -> Diagnosis:
        """The diagnosis that answers make together."""
        answers = {key: answers[key] for key in self._asked if key in answers}
        groups = _groups(answers, self.data, self.batch.size)
        left_out = ""
        try:
            shown = shown_groups(
                self._posterior(), derived_seed(self.seed, "shown"), groups["diagnostics"]
            )
            groups |= shown
        except Exception as error:  # as in _answer
            groups |= data_groups(self.batch)
            left_out = f"there are no draws: {type(error).__name__}: {first_line(error)}"
        about: dict[str, Any] = {
            "program": type(self.program).__name__,
            "data": self.data.source,
            "seed": self.seed,
            "held_out": self.batch.size,
            "weights": digest_of(self.program.state_dict()),
            "takes": ", ".join(inspect.signature(type(self.program)).parameters),
            **asdict(self.effort),
            **({"left_out": left_out} if left_out else {}),
        }
        verdicts = {key: answer.verdict for key, answer in answers.items()}
        return Diagnosis(verdicts, arviz_io.as_inference_data(groups, about), about)


def _chosen(questions: Collection[str] | None, known: Collection[str]) -> list[str]:
    """The keys of the questions to ask, in their order."""
    for name in questions or ():
        if name not in known:
            raise InputError("questions", f"must be of {', '.join(known)}, got {name!r}")
    return [key for key in known if questions is None or key in questions]


def _refuse_effort(effort: Effort, x: Tensor) -> None:
    """Refuse what memory cannot hold, before the first question is asked."""
    gap_points = min(len(x), effort.gap_points)  # all draws for all of them, from four guides
    taken = 4 * effort.draws * gap_points * DRAW_BYTES
    refuse_beyond_memory(taken, f"draws={effort.draws}", "take fewer")
    # Each is a data point, its mean, and a hundred draws at least.
    taken = effort.simulations * 8 * (2 * x[0].numel() + 100)
    refuse_beyond_memory(taken, f"simulations={effort.simulations}", "take fewer")


def _answer(
    question: str, ask: Callable[[Progress], DiagnosticResult], progress: Progress
) -> DiagnosticResult:
    """Ask a question, and turn an error into a verdict."""
    try:
        return ask(progress)
    except InputError as error:
        return DiagnosticResult(Verdict(question, "cannot say", str(error)))
    except Exception as error:  # whatever the user's code, or a library below, raises
        reason = f"it met {type(error).__name__}: {first_line(error)}"
        return DiagnosticResult(Verdict(question, "cannot say", reason))
    finally:
        progress.finish()


def _groups(
    answers: Mapping[str, DiagnosticResult], data: DataSet, count: int
) -> dict[str, xarray.Dataset]:
    """The groups of all answers, with all that is known of each data point in one."""
    groups = {name: group for answer in answers.values() for name, group in answer.groups.items()}
    per_datum = groups.pop("diagnostics", xarray.Dataset())
    per_datum = per_datum.assign_coords(datum=np.arange(count))
    if "gaps" in groups:
        groups["gaps"] = groups["gaps"].assign_coords(
            datum=np.arange(groups["gaps"].sizes["datum"])
        )
        names = ("gap", "refined_elbo", "approximation_gap", "amortization_gap")
        of_all = groups["gaps"][[name for name in names if name in groups["gaps"]]]
        per_datum = per_datum.merge(of_all.reindex(datum=per_datum["datum"]))
    per_datum["row"] = variable(
        "datum", data.test.rows[:count], "row of the array that the data point came from"
    )
    if data.test.labels is not None:
        per_datum["label"] = variable("datum", data.test.labels[:count], "class index")
        # As JSON: netCDF reads a list of one back as its element.
        per_datum.attrs["label_names"] = json.dumps(data.label_names)
    return {**groups, "diagnostics": per_datum}


def write_diagnosis(folder: Path, diagnosis: Diagnosis) -> list[Path]:
    """Write ``diagnosis.nc`` (InferenceData) and ``diagnosis.json`` (verdicts) to a folder.

    Returns:
        The files written.

    Raises:
        InputError: If they cannot be written.
    """
    file = folder / RESULT
    beside = file.with_suffix(".json")
    make_folder(folder)
    with replacing(file, beside) as (netcdf, plain):
        arviz_io.write_inference_data(netcdf, diagnosis.inference_data)
        found = diagnosis.as_dict()
        signed = {**found, DIGEST: _digest(netcdf, found)}
        plain.write_text(json.dumps(signed, indent=2) + "\n", encoding="utf-8")
    return [file, beside]


def read_diagnosis(folder: Path) -> Diagnosis:
    """Read what :func:`write_diagnosis` wrote.

    Raises:
        InputError: If it is not there, is broken, or was changed since.
    """
    file = folder / RESULT
    beside = file.with_suffix(".json")
    for path in (file, beside):
        if not path.is_file():
            raise InputError(path, "is not there, or is not a file", REMEDY)
    refuse_beyond_memory(file.stat().st_size, str(file), REMEDY)
    try:
        about = json.loads(read_text(beside))
        digest = about.pop(DIGEST)
        # Before HDF5 opens it, which does not survive every flipped bit.
        if digest != _digest(file, about):
            raise InputError(file, f"or {beside.name} was changed since it was written", REMEDY)
        verdicts = {key: _as_verdict(fields) for key, fields in about.pop("verdicts").items()}
        about.pop("reading", None)  # it follows from them, as do the remedies
        about.pop("remedies", None)
        if not verdicts:
            raise ValueError("it holds no verdict")
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(beside, f"is broken ({first_line(error)})", REMEDY) from None
    inference_data = arviz_io.read_inference_data(file)
    if "diagnostics" not in inference_data.groups():
        raise InputError(file, "does not hold a diagnosis", REMEDY)
    return Diagnosis(verdicts, inference_data, about)


def _digest(file: Path, found: dict[str, Any]) -> str:
    """SHA-256 of the netCDF file, and of all else that is written."""
    with file.open("rb") as stream:
        sha = hashlib.file_digest(stream, "sha256")
    sha.update(json.dumps(found, sort_keys=True).encode())
    return sha.hexdigest()


def _as_verdict(fields: dict[str, Any]) -> Verdict:
    """A verdict from JSON, which has neither NaN nor infinity."""
    for name, value in fields.items():
        if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{name} of a verdict is {value}")
    try:
        return Verdict(**fields)
    except InputError as error:
        raise ValueError(str(error)) from None
