"""What to do about a diagnosis: commands, chosen by what was found.

One table of remedies, and one of rules, :data:`RULES`, which say when each is worth its cost.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xarray

from ..errors import shell_word
from ..runs.config import Config, in_memory
from ..training.settings import Settings
from .reading import GUIDE, MODEL, OBSERVED, SIMULATED, Answers
from .verdicts import Verdict

OF_TRAIN = {
    *("latent_dim", "hidden", "channels", "activation", "likelihood", "likelihood_scale"),
    *("guide", "prior", "encoder_hidden", "components"),
}
"""Arguments of programs that are options of ``ppl-vae train``."""
OF_DATA = {"columns", "levels"}
"""Arguments of programs that ``ppl-vae train`` finds in the data."""


@dataclass(frozen=True)
class Remedy:
    """Something that can be done about a verdict.

    Attributes:
        key: Its name.
        command: The command line, where ``{run}`` stands for the run directory, ``{epochs}`` for
            twice the epochs that it was fitted for, ``{same}`` for the options of its fit, and
            ``{another}`` for a new run directory.
        call: The same from Python.
        changes: What it should change.
        cost: What it takes.
    """

    key: str
    command: str
    call: str
    changes: str
    cost: str

    def of(self, path: Path, config: Config) -> "Remedy":
        """The remedy of a run, whose command is ready to be pasted."""
        command = self.command.format(
            run=shell_word(path),
            another=shell_word(f"{path}-warm-up"),
            epochs=2 * int(config.settings.get("epochs", 0)),
            same=_options(config),
        )
        return replace(self, command=command)


def _options(config: Config) -> str:
    """The options of the fit that a config records, but for its output."""
    data, settings = config.data, config.settings
    module, _, name = config.program.rpartition(":")
    model = name.lower() if module.startswith("ppl_vae.models") else config.program
    model = {"lineargaussian": "linear-gaussian"}.get(model, model)
    source = "FILE" if in_memory(data) else data["source"]
    chosen = {"data": source, "binarize": data["binarize"], "model": model}
    if data.get("data_dir"):
        chosen["data_dir"] = data["data_dir"]
    plain = asdict(Settings())
    chosen |= {n: value for n, value in settings.items() if value != plain.get(n)}
    chosen |= {n: value for n, value in config.arguments.items() if n not in OF_DATA}
    words = []
    for name, value in chosen.items():
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if name != "kl_warmup_epochs":
            words.append(f"--{name.replace('_', '-')} {shell_word(text)}")
    return " ".join(words)


REMEDIES = {
    remedy.key: remedy
    for remedy in (
        Remedy(
            "refit-full",
            "ppl-vae refit {run} --guide full --on both",
            "ppl_vae.refit_guide(richer, data, on='both', parent=program)",
            "a guide with correlations: the approximation gap, and coverage",
            "about a fit",
        ),
        Remedy(
            "refit",
            "ppl-vae refit {run} --on both",
            "ppl_vae.refit_guide(program, data, on='both')",
            "the guide trained on, the model as it is: the amortization gap, and calibration",
            "about a fit",
        ),
        Remedy(
            "refit-simulations",
            "ppl-vae refit {run} --on simulations",
            "ppl_vae.refit_guide(program, data, on='simulations')",
            "a guide trained on what the model makes, which covers: calibration",
            "about a fit",
        ),
        Remedy(
            "certify",
            "ppl-vae encode {run} --method certified",
            "ppl_vae.infer(program, batch)",
            "z of each data point by inference that passes or says that it does not, whatever the "
            "guide",
            "about a tenth of a second a data point, more for the few that need annealing or NUTS",
        ),
        Remedy(
            "evaluate-refined",
            "ppl-vae evaluate {run} --estimator refined",
            "Posterior(program, batch).refine('full').log_weight(draws)",
            "a bound on log p(x) that does not suffer from the guide",
            "about a tenth of a second a data point",
        ),
        Remedy(
            "warm-up",
            "ppl-vae train {same} --kl-warmup-epochs 5 --output {another}",
            "ppl_vae.fit(program, data, Settings(kl_warmup_epochs=..., ...))",
            "another fit, whose guide does not learn to ignore x before the decoder uses z",
            "a fit",
        ),
        Remedy(
            "extend",
            "ppl-vae train --resume {run} --epochs {epochs}",
            "ppl_vae.fit(program, data, Settings(epochs=..., ...), run=run, resume=True)",
            "the fit goes on: what the model generates, and the ELBO",
            "as long as the fit has taken",
        ),
        Remedy(
            "score",
            "ppl-vae score {run}",
            "ppl_vae.infer(program, batch).inference['log_evidence']",
            "log p(x) of each data point, and which are unlike the training data",
            "about a tenth of a second a data point",
        ),
        Remedy(
            "more",
            "ppl-vae diagnose {run} --data-points 10000 --simulations 16000 --gap-points 1000",
            "ppl_vae.diagnose(program, data, Effort(data_points=10000, simulations=16000))",
            "narrower intervals, so that what cannot be said now can be",
            "about four times this diagnosis",
        ),
    )
}
"""The remedies by their keys."""


@dataclass(frozen=True)
class Found:
    """What remedies are chosen by.

    Attributes:
        answers: The grades.
        takes: The arguments that the program's class takes.
        approximation: The share of the gap that the family costs; ``None`` if it is not known.
    """

    answers: Answers
    takes: frozenset[str]
    approximation: float | None

    @property
    def richer(self) -> bool:
        """Whether a richer family can be had, and the gap does not speak against it."""
        return "guide" in self.takes and (self.approximation is None or self.approximation > 0.25)

    @property
    def trainable(self) -> bool:
        """Whether training the guide on may help: not all of the gap is its family's."""
        return self.approximation is None or self.approximation < 0.75


@dataclass(frozen=True)
class Rule:
    """When a remedy is worth its cost.

    Attributes:
        remedy: The key of the remedy.
        questions: The questions that it is for.
        holds: When, given what was found, beside a fault in one of these questions.
    """

    remedy: str
    questions: tuple[str, ...]
    holds: Callable[[Found], bool] = lambda found: True


RULES = (
    Rule("warm-up", ("collapse",), lambda f: f.answers.fail("collapse")),
    Rule("refit-full", (*OBSERVED, *SIMULATED, "local", "posterior_sbc"), lambda f: f.richer),
    Rule(
        "refit",
        (*OBSERVED, *SIMULATED, "collapse", "local", "posterior_sbc"),
        lambda f: f.trainable,
    ),
    Rule(
        "refit-simulations",
        (*SIMULATED, "local"),
        lambda f: not f.answers.fault(*OBSERVED),
    ),
    Rule("certify", (*GUIDE, "local", "posterior_sbc")),
    Rule("evaluate-refined", ("gaps", "coverage")),
    Rule("extend", ("generation",)),
    Rule("score", MODEL),
)
"""In the order in which they are worth trying."""


def choose(
    verdicts: Mapping[str, Verdict],
    takes: frozenset[str],
    gaps: xarray.Dataset | None = None,
    all_data: bool = False,
) -> dict[str, list[Remedy]]:
    """The remedies of each question, the likeliest first; none for one that passes.

    Arguments:
        verdicts: By question.
        takes: The arguments that the program's class takes.
        gaps: The group that the question of gaps rests on, if it was answered.
        all_data: Whether all test data were used, so that more can be had of simulations alone.

    Example:
        >>> fault = Verdict("Do the guide's draws cover the posterior?", "fail", "they do not")
        >>> found = choose({"coverage": fault}, frozenset({"guide"}))
        >>> [remedy.key for remedy in found["coverage"]]
        ['refit-full', 'refit', 'certify', 'evaluate-refined']
    """
    found = Found(Answers(verdicts), takes, _approximation(gaps))
    chosen: dict[str, list[Remedy]] = {}
    more = (*SIMULATED, "local") if all_data else tuple(verdicts)
    for question, verdict in verdicts.items():
        if verdict.grade in ("caution", "fail"):
            rules = [rule for rule in RULES if question in rule.questions and rule.holds(found)]
            chosen[question] = [REMEDIES[rule.remedy] for rule in rules]
        elif verdict.grade == "cannot say" and verdict.value is not None and question in more:
            chosen[question] = [REMEDIES["more"]]
    return chosen


def _approximation(gaps: Any) -> float | None:
    if gaps is None or "approximation_gap" not in gaps:
        return None
    family, whole = (float(gaps[name].mean()) for name in ("approximation_gap", "gap"))
    return family / whole if whole > 0 else None


def possible(chosen: Mapping[str, list[Remedy]], config: Config) -> dict[str, list[Remedy]]:
    """The remedies that a run allows.

    Where the guide alone was fitted, or nothing was, there is no fit of the model to go on with;
    and a program that was made by hand, or whose data were read in a way of their own, no options
    make again.
    """
    lost: set[str] = set()
    if config.parent or not config.settings:
        lost = {"extend", "warm-up"}
    elif not config.arguments.keys() <= OF_TRAIN | OF_DATA or config.data.get("reading"):
        lost = {"warm-up"}
    return {q: [r for r in found if r.key not in lost] for q, found in chosen.items()}


def distinct(
    chosen: Mapping[str, list[Remedy]], path: Path | None = None, config: Config | None = None
) -> list[tuple[Remedy, list[str]]]:
    """Each remedy once, with the questions that it is for; of a run, if there is one.

    Example:
        >>> found = distinct({"gaps": [REMEDIES["refit"]], "local": [REMEDIES["refit"]]})
        >>> [(remedy.key, questions) for remedy, questions in found]
        [('refit', ['gaps', 'local'])]
    """
    chosen = chosen if config is None else possible(chosen, config)
    order = {rule.remedy: place for place, rule in enumerate(RULES)}
    wanted: dict[str, list[str]] = {}
    for question, remedies in chosen.items():
        for remedy in remedies:
            wanted.setdefault(remedy.key, []).append(question)
    keys = sorted(wanted, key=lambda key: order.get(key, len(order)))
    found = [REMEDIES[key] for key in keys]
    if path is not None and config is not None:
        found = [remedy.of(path, config) for remedy in found]
    return [(remedy, wanted[remedy.key]) for remedy in found]
