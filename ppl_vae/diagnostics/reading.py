"""The answers read together: what is wrong first, and what that means for whoever uses the fit.

One table of rules, :data:`RULES`. Of each subject the first rule that holds is the one that speaks:
the cause, then what can be done with the latents, with samples and with log p(x).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from .verdicts import Grade, Verdict

Subject = Literal["cause", "latents", "samples", "evidence"]

SIMULATED = ("calibration", "certificate")  # the guide, on data that the model makes
OBSERVED = ("coverage", "gaps", "reference")  # the guide, on the data at hand
GUIDE = (*SIMULATED, *OBSERVED, "collapse")
MODEL = ("generation", "misspecification")


@dataclass(frozen=True)
class Answers:
    """The grades of a diagnosis, some of which may not be there.

    Attributes:
        verdicts: By question.
    """

    verdicts: Mapping[str, Verdict]

    def grade(self, question: str) -> Grade:
        """Its grade; ``"cannot say"`` of a question that was not asked."""
        verdict = self.verdicts.get(question)
        return "cannot say" if verdict is None else verdict.grade

    def fail(self, *questions: str) -> bool:
        """Whether one of them fails."""
        return any(self.grade(question) == "fail" for question in questions)

    def fault(self, *questions: str) -> bool:
        """Whether one of them is given caution or fails."""
        return any(self.grade(question) in ("caution", "fail") for question in questions)

    def clear(self, *questions: str) -> bool:
        """Whether one of them passes, and none has a fault."""
        passed = any(self.grade(question) == "pass" for question in questions)
        return passed and not self.fault(*questions)

    def unanswered(self) -> str:
        """The questions that were asked and have no answer."""
        return ", ".join(q for q, v in self.verdicts.items() if v.grade == "cannot say")

    def gap(self) -> str:
        """The statistic of the gaps."""
        verdict = self.verdicts.get("gaps")
        return "" if verdict is None else verdict.statistic_text.removesuffix("nats per datum")


@dataclass(frozen=True)
class Rule:
    """What to say of a subject.

    Attributes:
        subject: The subject.
        holds: When; of the rules on a subject the first that holds counts.
        says: The sentence; ``{gap}`` and ``{unanswered}`` stand for what :class:`Answers` has.
    """

    subject: Subject
    holds: Callable[[Answers], bool]
    says: str


RULES: tuple[Rule, ...] = (
    Rule(
        "cause",
        lambda a: a.fail("collapse"),
        "The guide has collapsed: it ignores the data, though the model uses its latents. Mend "
        "this first, for what else is wrong follows from it.",
    ),
    Rule(
        "cause",
        lambda a: a.fault("collapse"),
        "The guide ignores latent units that the model uses. Mend this first, for it is enough "
        "to make it another distribution than the posterior.",
    ),
    Rule(
        "cause",
        lambda a: not any(a.clear(q) or a.fault(q) for q in (*GUIDE, *MODEL)),
        "No question could be answered, so that nothing is known.",
    ),
    Rule(
        "cause",
        lambda a: a.fail(*MODEL) and not a.fail(*GUIDE) and a.fault(*GUIDE),
        "The model is what is wrong first: what it generates is unlike these data. The guide is "
        "off too, by less.",
    ),
    Rule(
        "cause",
        lambda a: a.fault(*SIMULATED) and a.fault("coverage"),
        "The guide is what is wrong: it is too narrow, or leaves out a part of the posterior, "
        "on data that the model makes and on these.",
    ),
    Rule(
        "cause",
        lambda a: a.fault(*SIMULATED) and a.fault(*OBSERVED) and a.clear("coverage"),
        "The guide is what is wrong: it is too wide or shifted, or lacks a mode, on data that the "
        "model makes and on these; where it has draws, their weights have no heavy tail.",
    ),
    Rule(
        "cause",
        lambda a: a.fault(*SIMULATED) and a.fault(*OBSERVED),
        "The guide is what is wrong: it is not the posterior, on data that the model makes and "
        "on these.",
    ),
    Rule(
        "cause",
        lambda a: a.fault(*SIMULATED),
        "The guide is what is wrong: on data that the model makes it is not the posterior; on "
        "these data no fault of it was found.",
    ),
    Rule(
        "cause",
        lambda a: a.clear(*SIMULATED) and a.fault(*OBSERVED) and a.fault(*MODEL),
        "The model is what is wrong first: the guide fits data that the model makes, and is off "
        "on these, which are unlike them.",
    ),
    Rule(
        "cause",
        lambda a: a.clear(*SIMULATED) and a.fault(*OBSERVED),
        "The guide fits data that the model makes, as far as ranks can tell, and is off on "
        "these: its family is too small for some of them, or it was fitted to others.",
    ),
    Rule(
        "cause",
        lambda a: a.fault(*OBSERVED),
        "The guide is what is wrong: on these data it is not the posterior.",
    ),
    Rule(
        "cause",
        lambda a: a.fault(*MODEL) and a.clear(*SIMULATED, *OBSERVED),
        "The model is what is wrong: the guide is its posterior, as far as was seen, but what "
        "it generates is unlike these data.",
    ),
    Rule(
        "cause",
        lambda a: a.fault(*MODEL),
        "The model is what is wrong: what it generates is unlike these data. Of the guide "
        "little is known.",
    ),
    Rule("cause", lambda a: not a.unanswered(), "No fault was found."),
    Rule(
        "cause",
        lambda a: True,
        "No fault was found, but some questions have no answer: {unanswered}.",
    ),
    Rule(
        "latents",
        lambda a: a.fail("collapse"),
        "Do not use z: it says nothing of x.",
    ),
    Rule(
        "latents",
        lambda a: a.fail(*SIMULATED, "reference"),
        "Do not use means or intervals of z as they are: they are off by half a posterior "
        "standard deviation, or as much as that; take them from NUTS.",
    ),
    Rule(
        "latents",
        lambda a: a.fail("coverage", "gaps"),
        "Do not use intervals of z as they are: a part of the posterior may be missing from them.",
    ),
    Rule(
        "latents",
        lambda a: a.fault("collapse"),
        "Use the units of z that depend on the data; of those ignored it says nothing.",
    ),
    Rule(
        "latents",
        lambda a: a.fault(*SIMULATED, *OBSERVED),
        "Use z for pictures and as features, but its intervals with caution: they are off by a "
        "quarter of a posterior standard deviation, or as much as that.",
    ),
    Rule(
        "latents",
        lambda a: a.clear(*SIMULATED, *OBSERVED) and a.fault("misspecification"),
        "Use z and its intervals, which are those of the model; of data that are unlike the "
        "model's they say little.",
    ),
    Rule(
        "latents",
        lambda a: a.clear(*SIMULATED) and a.clear(*OBSERVED),
        "Use z and its intervals as they are.",
    ),
    Rule(
        "latents",
        lambda a: a.clear(*SIMULATED, *OBSERVED),
        "Use z and its intervals, bearing in mind that only some questions have an answer.",
    ),
    Rule("latents", lambda a: True, "Whether z can be used is not known."),
    Rule(
        "samples",
        lambda a: a.fail("generation"),
        "Do not take samples of the model for data.",
    ),
    Rule(
        "samples",
        lambda a: a.fault(*MODEL),
        "Samples of the model differ from data in what was measured: use them with caution.",
    ),
    Rule(
        "samples",
        lambda a: a.clear("generation"),
        "Samples of the model are like data, in all that was measured.",
    ),
    Rule("samples", lambda a: True, "Whether samples of the model are like data is not known."),
    Rule(
        "evidence",
        lambda a: a.fault("gaps") and a.fault("coverage"),
        "The ELBO is {gap} nats below log p(x), or more, and the guide's importance weights are "
        "unreliable: compare models by annealed bounds.",
    ),
    Rule(
        "evidence",
        lambda a: a.fault("gaps") and a.clear("coverage"),
        "The ELBO is {gap} nats below log p(x): compare models by the importance-weighted "
        "bound, whose weights have no heavy tail.",
    ),
    Rule(
        "evidence",
        lambda a: a.fault("gaps"),
        "The ELBO is {gap} nats below log p(x), or more: do not compare models by it.",
    ),
    Rule(
        "evidence",
        lambda a: a.clear("gaps") and a.fault(*SIMULATED, "reference"),
        "The ELBO is near the bounds on log p(x) that were found; where the guide leaves out a "
        "part of the posterior, both are too low.",
    ),
    Rule(
        "evidence",
        lambda a: a.clear("gaps"),
        "The ELBO is log p(x), but for a gap that does not matter.",
    ),
    Rule(
        "evidence",
        lambda a: a.clear("coverage") and not a.fault(*SIMULATED),
        "How far the ELBO is below log p(x) is not known; importance weights are reliable, and "
        "their bound is the one to compare models by.",
    ),
    Rule(
        "evidence",
        lambda a: a.fault("coverage"),
        "How far the ELBO is below log p(x) is not known, and importance weights are "
        "unreliable: compare models by annealed bounds.",
    ),
    Rule("evidence", lambda a: True, "How far the ELBO is below log p(x) is not known."),
)


def read(verdicts: Mapping[str, Verdict]) -> str:
    """Read verdicts together, in one paragraph.

    Arguments:
        verdicts: By question, as :attr:`ppl_vae.Diagnosis.verdicts` has them; any may be missing.

    Returns:
        What is wrong first, then what that means for using z, samples and log p(x).

    Example:
        >>> passed = Verdict("?", "pass", "...")
        >>> read({key: passed for key in ("coverage", "calibration", "gaps", "generation")})
        'No fault was found. Use z and its intervals as they are. Samples of the model are like...
    """
    answers = Answers(verdicts)
    words = {"gap": answers.gap().strip(), "unanswered": answers.unanswered()}
    return " ".join(chosen.says.format(**words) for chosen in chosen_rules(answers))


def chosen_rules(answers: Answers) -> list[Rule]:
    """The rule that speaks on each subject, in order."""
    chosen: dict[str, Rule] = {}
    for rule in RULES:
        if rule.subject not in chosen and rule.holds(answers):
            chosen[rule.subject] = rule
    return list(chosen.values())
