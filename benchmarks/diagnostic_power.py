"""False alarms and power: how often does each question give an alarm, without a fault and with one?

    python benchmarks/diagnostic_power.py                        # 100 seeds, all models
    python benchmarks/diagnostic_power.py --seeds 5 --model linear-gaussian
    python benchmarks/diagnostic_power.py --output answers.jsonl  # a line a seed; goes on there
    python benchmarks/diagnostic_power.py --first 3  # without NUTS

Faults are put into guides that are exact (probabilistic PCA, and what exact_programs.py has) or
well fitted (a VAE on digits), and each question is asked anew for each seed, of new data and new
draws. An exact guide is given to all questions, and a fault to the one that should catch it; in the
first ASIDE seeds all are asked of all, NUTS among them, which takes most of the time. A cell is the
number of seeds with caution or fail, and of those with fail; of how many, where not all were asked;
a dash is a question that was not.
"""

import argparse
import json
import multiprocessing
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from exact_programs import PROGRAMS
from power_faults import Faulty
from torch import Tensor, nn

import ppl_vae
from ppl_vae.diagnostics.calibration import ask_calibration
from ppl_vae.diagnostics.certificate import ask_certificate
from ppl_vae.diagnostics.collapse import ask_collapse
from ppl_vae.diagnostics.coverage import ask_coverage
from ppl_vae.diagnostics.gaps import ask_gaps
from ppl_vae.diagnostics.generation import ask_generation
from ppl_vae.diagnostics.local import ask_local
from ppl_vae.diagnostics.reference import compare_with
from ppl_vae.errors import InputError
from ppl_vae.inference.nuts import sample_posterior
from ppl_vae.models import VAE, LinearGaussian
from ppl_vae.runtime import derived_seed

QUESTIONS = (
    "coverage",
    "calibration",
    "gaps",
    "reference",
    "collapse",
    "generation",
    "certificate",
    "local",
)
SHOULD_CATCH = {
    "none": "",
    "scale 1 % too small": "",
    "scale halved": "calibration",
    "scale doubled": "calibration",
    "mean shifted by sd/2": "calibration",
    "one unit collapsed": "collapse",
    "correlation ignored": "gaps",
    "collapsed to the prior": "collapse",
    "another prior": "calibration",
    "mean off for 5 % of the data": "local",
    "shifts that average to zero": "local",
    "one of two modes missed": "certificate",
    "overfitted encoder": "certificate",
    "units permuted": "calibration",
}
# Ranks of a class are coarse: ties are broken at random, and what is off for some data is made up
# for by others.
COARSE = ("scale halved", "scale doubled", "mean shifted by sd/2")
CATCHERS_OF = {"classes": dict.fromkeys(COARSE, "certificate")}
# What a model's posterior can have: a class has no scale, one unit cannot be permuted.
NOT_OF = {
    "linear-gaussian": {"one of two modes missed"},
    "digits-vae": {"one of two modes missed"},
    "hierarchy": {"one of two modes missed", "another prior", "correlation ignored"},
    "classes": {"one unit collapsed", "another prior", "correlation ignored"},
    "curve": {"one unit collapsed", "another prior", "correlation ignored", "units permuted"},
}
MODELS = tuple(NOT_OF)
Answer = tuple[str, float | None, float | None]
OTHER_POSTERIOR = ("correlation ignored", "another prior")  # than that of the first NUTS run
HELD_OUT, TRAIN, DRAWS, SIMULATIONS = 1000, 1000, 400, 3000
COVERED, GAP_POINTS, NUTS_POINTS = 300, 20, 4  # data of those held out
# Of a guide whose weights are all equal these have no chance in them.
WEIGHTS = {"coverage", "gaps", "certificate"}
EQUAL_WEIGHTS = ("linear-gaussian", "hierarchy", "classes")
ASIDE = 3  # seeds in which all questions are asked of all faults
CORRELATION = 0.9
FITTED: dict[str, Tensor] = {}  # weights of the VAE, in processes that have been given them


class Sheared(nn.Module):
    """A VAE in other coordinates, z = C y, whose posterior has correlations that it is told of."""

    mixing: Tensor

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae: Any = vae
        self.data_shape = vae.data_shape
        tril = torch.linalg.cholesky(torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]]))
        self.register_buffer("mixing", tril)  # y = mixing z

    def model(self, x: Tensor) -> Any:
        """p(x, y), with a prior that makes p(x) what it was."""
        pyro.module(f"sheared-{id(self)}", self)
        with pyro.plate("data", len(x)):
            prior = dist.MultivariateNormal(self.vae.prior.loc, scale_tril=self.mixing)
            y = pyro.sample("z", prior)
            z = torch.linalg.solve_triangular(self.mixing, y.unsqueeze(-1), upper=False).squeeze(-1)
            p = self.vae.likelihood(self.vae.decoder(z))
            return pyro.sample("x", p.to_event(len(self.vae.data_shape)), obs=x)

    def guide(self, x: Tensor) -> Any:
        """The VAE's own guide, in these coordinates."""
        pyro.module(f"sheared-{id(self)}", self)
        with pyro.plate("data", len(x)):
            from ppl_vae.models.networks import positive

            loc, raw_scale = self.vae.encoder(x).chunk(2, dim=-1)
            tril = self.mixing * positive(raw_scale).unsqueeze(-2)
            mean = (self.mixing @ loc.unsqueeze(-1)).squeeze(-1)
            return pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=tril))


def move_prior(program: Any, by: float) -> None:
    """Shift the mean of a standard normal prior."""
    owner, name = (program.prior, "loc") if isinstance(program, VAE) else (program, "prior_loc")
    setattr(owner, name, getattr(owner, name) + by)


def linear_gaussian(correlated: bool = False) -> LinearGaussian:
    """Probabilistic PCA with its exact guide; the posterior of its two units has a correlation of
    0.9, or none."""
    ppca = LinearGaussian((8,), latent_dim=2)
    off = -CORRELATION if correlated else 0.0
    strength = 20.0 if correlated else 4.0
    precision = strength * torch.tensor([[1.0, off], [off, 1.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        noise = ppca.scale.square()
        basis = torch.linalg.qr(torch.randn(8, 2, generator=generator, dtype=torch.float64))[0]
        root = torch.linalg.cholesky(precision - noise * torch.eye(2, dtype=torch.float64))
        ppca.loading.copy_(basis @ root.T)
    ppca.set_exact_guide()
    return ppca


@cache
def digits_vae() -> VAE:
    """A VAE with two units, fitted to digits well enough that no question fails it."""
    vae = VAE((1, 8, 8), latent_dim=2, hidden=(200, 200))
    if FITTED:
        vae.load_state_dict(FITTED)
        return vae
    ppl_vae.fit(vae, digits_data(), ppl_vae.Settings(epochs=60), progress=False)
    train_guide(vae)
    return vae


def train_guide(vae: VAE, steps: int = 6000, rate: float = 1e-3) -> None:
    """Fit the guide alone, to data that the model makes: as many as it takes."""
    torch.manual_seed(0)
    adam = torch.optim.Adam(vae.encoder.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    objective = ppl_vae.PathwiseELBO(num_particles=4)
    for _ in range(steps):
        with torch.no_grad():
            x = vae.model(size=256)
        vae.zero_grad()
        objective.loss_and_grads(vae.model, vae.guide, x)
        adam.step()
        schedule.step()


@cache
def digits_data() -> ppl_vae.DataSet:
    return ppl_vae.load_data("digits", binarize="dynamic")


def truth(model: str, fault: str) -> Any:
    """The program that a fault is put into."""
    correlated = fault == "correlation ignored"
    if model in PROGRAMS:
        return PROGRAMS[model]()
    if model == "linear-gaussian":
        program: Any = linear_gaussian(correlated)
    else:
        program = digits_vae()
        if correlated:
            return Sheared(program)
    if fault == "another prior":
        move_prior(program, 1.0)
    return program


def held_out(model: str, fault: str, seed: int) -> tuple[Tensor, Tensor]:
    """Training and held-out data of one seed; of the model itself, but for the digits."""
    if model == "digits-vae":
        data = digits_data()
        return data.fixed("train", seed), data.fixed("test", seed)[:HELD_OUT]
    program = truth(model, "none" if fault == "another prior" else fault)
    drawn = ppl_vae.prior_predictive(program, program.data_shape, HELD_OUT + TRAIN, seed)
    return drawn.x[HELD_OUT:], drawn.x[:HELD_OUT]


def ask(
    program: Any, train: Tensor, x: Tensor, exact: Any, seed: int, asked: tuple[str, ...]
) -> dict[str, Answer]:
    """The answer to each question: grade, statistic and standard error."""

    posterior = ppl_vae.Posterior(program, x)
    questions = {
        "coverage": lambda: ask_coverage(posterior[:COVERED], DRAWS, seed),
        "calibration": lambda: ask_calibration(posterior, SIMULATIONS, seed),
        "gaps": lambda: ask_gaps(posterior[:GAP_POINTS], DRAWS, seed),
        "reference": lambda: compare_with(posterior[:NUTS_POINTS], exact, seed),
        "collapse": lambda: ask_collapse(posterior, seed),
        "generation": lambda: ask_generation(posterior, ppl_vae.Batch(x=train), seed),
        "certificate": lambda: ask_certificate(posterior, SIMULATIONS, seed),
        "local": lambda: ask_local(posterior, SIMULATIONS, seed),
    }
    answers: dict[str, Answer] = {}
    for name in asked:
        try:
            verdict = questions[name]().verdict
            answers[name] = (verdict.grade, verdict.value, verdict.error)
        except InputError:
            answers[name] = ("cannot say", None, None)
    return answers


def asked_of(model: str, fault: str, number: int) -> tuple[str, ...]:
    """The questions that a fault is put to, in one seed."""
    names: tuple[str, ...] = QUESTIONS
    without: set[str] = set()
    if number >= ASIDE and fault != "none":
        names = tuple(filter(None, [catcher(model, fault)]))
    elif number >= ASIDE and model in EQUAL_WEIGHTS:
        without |= WEIGHTS
    if number >= ASIDE or model == "classes" or fault in OTHER_POSTERIOR:
        without.add("reference")
    return tuple(name for name in names if name not in without)


def one_seed(task: tuple[str, int, tuple[str, ...]]) -> dict[str, Any]:
    """Answers by fault and question, of one seed."""
    model, number, faults = task
    torch.set_num_threads(1)
    seed, start = derived_seed(number, model), time.perf_counter()
    found: dict[str, dict[str, Answer]] = {}
    exact = None
    for fault in faults:
        program, asked = truth(model, fault), asked_of(model, fault, number)
        train, x = held_out(model, fault, seed)
        if exact is None and "reference" in asked:
            posterior = ppl_vae.Posterior(program, x[:NUTS_POINTS])
            exact = sample_posterior(posterior, derived_seed(seed, "NUTS"))
        found[fault] = ask(Faulty(program, fault), train, x, exact, seed, asked)
        if fault == "another prior":
            move_prior(program, -1.0)
    seconds = round(time.perf_counter() - start)
    return {"model": model, "seed": number, "seconds": seconds, "answers": found}


def catcher(model: str, fault: str) -> str:
    """The question that should catch a fault; none for those that do not matter."""
    return CATCHERS_OF.get(model, {}).get(fault, SHOULD_CATCH[fault])


def faults_of(model: str) -> tuple[str, ...]:
    return tuple(fault for fault in SHOULD_CATCH if fault not in NOT_OF[model])


def measure(model: str, numbers: list[int], jobs: int, output: Path | None) -> list[Any]:
    """Answers of seeds, each appended to a file as soon as it is known."""
    weights = digits_vae().state_dict() if model == "digits-vae" and numbers else {}
    tasks, found = [(model, number, faults_of(model)) for number in numbers], []
    with multiprocessing.get_context("spawn").Pool(jobs, FITTED.update, (weights,)) as pool:
        for line in pool.imap_unordered(one_seed, tasks):
            found.append(line)
            if output:
                with output.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        pool.close()
        pool.join()
    return found


def show(model: str, found: list[Any]) -> None:
    """Print the table of a model."""
    answers, seconds = [f["answers"] for f in found], sum(f["seconds"] for f in found)
    print(f"\n{model}, {len(found)} seeds, {seconds / 60:.0f} minutes of one process\n")
    print(f"| fault | {' | '.join(QUESTIONS)} |\n|{' --- |' * (1 + len(QUESTIONS))}")
    for fault in faults_of(model):
        counts = {q: Counter(a[fault].get(q, "-")[0] for a in answers) for q in QUESTIONS}
        cells = (cell(c, q == catcher(model, fault)) for q, c in counts.items())
        print(f"| {fault} | {' | '.join(cells)} |")
    alarms = sum(
        any(grade in ("caution", "fail") for grade, *_ in a["none"].values()) for a in answers
    )
    print(f"\nseeds with a false alarm on any question: {alarms}", flush=True)


def cell(grades: Counter[str], bold: bool) -> str:
    """Caution or fail, and fail, of all seeds."""
    asked = grades.total() - grades["-"]
    if not asked:
        return "-"
    text = f"{grades['caution'] + grades['fail']} ({grades['fail']})"
    text += f" of {asked}" if grades["-"] else ""
    if grades["cannot say"]:
        text += f", cannot say {grades['cannot say']}"
    return f"**{text}**" if bold else text


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    known = []
    if options.output and options.output.exists():
        known = [json.loads(line) for line in options.output.read_text().splitlines()]
    for model in options.model or MODELS:
        found = [f for f in known if f["model"] == model and f["seed"] < options.seeds]
        done = {f["seed"] for f in found}
        left = [n for n in range(options.first, options.seeds) if n not in done]
        show(model, found + measure(model, left, options.jobs, options.output))


if __name__ == "__main__":
    main()
