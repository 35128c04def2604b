"""The shell: ``ppl-vae train | evaluate | diagnose | report | gradients | sample | reconstruct``.

torch is imported inside the commands, so that ``--help`` answers at once.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from .errors import InputError
from .options import (
    BinarizeChoice,
    Data,
    DataDir,
    Device,
    Engine,
    EngineChoice,
    EstimatorChoice,
    JsonFlag,
    ObjectiveChoice,
    Output,
    RunPath,
    Seed,
    SplitChoice,
    StartChoice,
    Trusted,
    in_annealing,
    in_data,
    in_diagnosis,
    in_fit,
    in_model,
    sizes,
)

TRAIN_DRAWS = 100

app = typer.Typer(
    help="Variational autoencoders as Pyro programs: fit by SVI, evaluate, diagnose, generate.",
    epilog="Example: ppl-vae train --data digits --latent-dim 2 --epochs 150 --output runs/digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line: exit code 0, 2 for the user's input, 1 for a fault of ours."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(f"warning: {escape(str(message))}")
            app()
    except InputError as error:
        _say(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(2)


@app.command(
    epilog="Example: ppl-vae train --model vae --data mnist --data-dir DIR --epochs 20 --seed 1 "
    "--output runs/mnist"
)
def train(
    data: Data = "digits",
    data_dir: DataDir = None,
    binarize: Annotated[
        BinarizeChoice,
        in_data(help="auto: dynamic where a named set meets a Bernoulli likelihood."),
    ] = BinarizeChoice.auto,
    model: Annotated[
        str,
        in_model(help="vae, autoencoder, linear-gaussian; package.module:Class; file.py:Class."),
    ] = "vae",
    latent_dim: Annotated[int | None, in_model(help="Latent variables (vae: 50).")] = None,
    hidden: Annotated[str | None, in_model(help="Widths of layers (vae: 500,500).")] = None,
    channels: Annotated[
        str | None, in_model(help="Channels of convolutions, like 32,64 (vae: none).")
    ] = None,
    activation: Annotated[
        str | None, in_model(help="silu (vae), tanh or relu, between layers.")
    ] = None,
    likelihood: Annotated[
        str | None, in_model(help="bernoulli (vae), continuous-bernoulli, gaussian, laplace.")
    ] = None,
    likelihood_scale: Annotated[
        float | None, in_model(help="Scale of gaussian or laplace, fixed (vae: learned).")
    ] = None,
    epochs: Annotated[int, in_fit(help="Passes over the data, at most.")] = 20,
    batch_size: Annotated[int, in_fit(help="Data in a step.")] = 128,
    learning_rate: Annotated[float, in_fit(help="Adam's highest rate.")] = 2e-3,
    warmup_epochs: Annotated[float, in_fit(help="Epochs for the rate to rise.")] = 1.0,
    objective: Annotated[
        ObjectiveChoice,
        in_fit(help="ELBO; with analytic KL; sticking the landing; importance-weighted; its DReG."),
    ] = ObjectiveChoice.elbo,
    particles: Annotated[int, in_fit(help="Draws for each datum and step.")] = 1,
    kl_warmup_epochs: Annotated[float, in_fit(help="Epochs for the KL's weight to rise.")] = 0.0,
    free_bits: Annotated[float, in_fit(help="Unpunished KL, nats per latent site.")] = 0.0,
    clip_norm: Annotated[
        float | None, in_fit(help="Bound on the gradient's norm, nats per datum.")
    ] = None,
    patience: Annotated[
        int | None, in_fit(help="Stop after this many epochs without a better validation ELBO.")
    ] = None,
    engine: Engine = EngineChoice.auto,
    seed: Seed = 0,
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option(help="The new run directory (default: runs/DATA-MODEL).")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run at --output.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard events too.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit a model to data, and show how good it is on data it has not seen."""
    from .composition import build_program, check_arguments, choose_binarization, find_model
    from .console import estimate_with_progress, show
    from .pictures import draw_pictures
    from .runs import Config, Run
    from .sources import load_data
    from .training import Settings, fit

    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_epochs=warmup_epochs,
        objective=objective.value,
        particles=particles,
        kl_warmup_epochs=kl_warmup_epochs,
        free_bits=free_bits,
        clip_norm=clip_norm,
        patience=patience,
        seed=seed,
        device=device,
        engine=engine.value,
    )
    given = {
        "latent_dim": latent_dim,
        "hidden": sizes("hidden", hidden),
        "channels": sizes("channels", channels),
        "activation": activation,
        "likelihood": likelihood,
        "likelihood_scale": likelihood_scale,
    }
    arguments = {name: value for name, value in given.items() if value is not None}
    kind, reference = find_model(model)
    check_arguments(kind, arguments)
    choice = choose_binarization(binarize.value, data, kind, arguments)
    dataset = load_data(data, data_dir=data_dir, binarize=choice)
    program = build_program(kind, dataset.shape, arguments, seed)
    path = output or Path("runs") / f"{Path(data).stem}-{kind.__name__.lower()}"
    config = Config.of(reference, arguments, dataset, settings, data_dir)
    run = Run.create(path, config, overwrite=overwrite, tensorboard=tensorboard)
    try:
        history = fit(program, dataset, settings, run=run)
    except KeyboardInterrupt:
        _say(f"interrupted: {path} holds the best weights up to here")
        raise typer.Exit(130) from None
    x = dataset.fixed("test", seed)
    _, scores = estimate_with_progress("iw", program, x, TRAIN_DRAWS, seed)
    pictures = draw_pictures(program, dataset, history.epochs, run.pictures, seed)
    about = {
        "split": "test",
        "draws": TRAIN_DRAWS,
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "run": str(run.path),
        "pictures": [str(file) for file in pictures],
    }
    show(scores.estimates(), about, as_json)


@app.command(
    epilog="Example: ppl-vae evaluate runs/mnist --draws 1000 --json"
    "\n\nExample: ppl-vae evaluate runs/mnist --estimator bdmc --data-points 20"
)
def evaluate(
    run: RunPath,
    estimator: Annotated[
        EstimatorChoice,
        typer.Option(
            help="Bounds on log p(x): importance-weighted draws from q(z|x); annealing too (ais); "
            "annealing from both sides, on data drawn from the model (bdmc)."
        ),
    ] = EstimatorChoice.iw,
    draws: Annotated[int, typer.Option(help="Draws from q(z|x) for each datum.")] = 100,
    data_points: Annotated[
        int | None,
        typer.Option(help="Score so many data, the first (iw: all, ais: 100, bdmc: 50)."),
    ] = None,
    chains: Annotated[int, in_annealing(help="Chains for each datum.")] = 16,
    temperatures: Annotated[int, in_annealing(help="Steps from start to posterior.")] = 500,
    start: Annotated[
        StartChoice,
        in_annealing(help="Anneal from the prior, or from q(z|x), which takes fewer temperatures."),
    ] = StartChoice.prior,
    split: Annotated[SplitChoice, typer.Option(help="Data to score.")] = SplitChoice.test,
    output: Annotated[
        Path | None, typer.Option(help="An .nc file; a .json goes beside it (default: in RUN).")
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate every term of log p(x) = ELBO + KL(q(z|x) || p(z|x)), with standard errors."""
    from . import results
    from .annealing import Annealing
    from .composition import choose_data, open_program
    from .console import estimate_with_progress, output_file, show

    annealing = Annealing(chains=chains, temperatures=temperatures, start=start.value)
    opened, program = open_program(run, model, device)
    x, rows = choose_data(opened, estimator.value, data_points, split.value, data_dir, seed)
    name = f"{'simulated' if rows is None else split.value}-{estimator.value}.nc"
    file = output_file(output, opened.results, name, ".nc")
    results.refuse_taken(file)
    x, scores = estimate_with_progress(estimator.value, program, x, draws, seed, annealing)
    about: dict[str, Any] = {
        "split": "simulated" if rows is None else split.value,
        "estimator": estimator.value,
        "draws": draws,
    }
    if estimator is not EstimatorChoice.iw:
        about |= {"chains": chains, "temperatures": temperatures, "start": start.value}
    about |= {"seed": seed, "run": str(run)}
    figures, ledger = scores.estimates(), scores.ledger() if scores.model else None
    summary = results.as_json(figures, about, ledger)
    files = results.write_results(file, results.as_dataset(scores, rows, about), summary)
    show(figures, {**about, "results": [str(file) for file in files]}, as_json, ledger)


@app.command(
    epilog="Example: ppl-vae diagnose runs/mnist"
    "\n\nExample: ppl-vae diagnose runs/mnist --data-points 10000 --json"
)
def diagnose(
    run: RunPath,
    data_points: Annotated[int, in_diagnosis(help="Held-out data, the first.")] = 1000,
    draws: Annotated[int, in_diagnosis(help="Draws from q(z|x) for each datum.")] = 1000,
    simulations: Annotated[int, in_diagnosis(help="Data to simulate for calibration.")] = 1000,
    gap_points: Annotated[int, in_diagnosis(help="Data whose gap is decomposed.")] = 200,
    nuts_points: Annotated[int, in_diagnosis(help="Data given to NUTS.")] = 8,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask whether q(z|x) deserves belief: a verdict for each of six questions, and a report."""
    from .composition import open_data, open_program
    from .console import diagnose_with_progress, show_verdicts
    from .diagnosis import Effort, write_diagnosis
    from .files import make_folder
    from .report import write_report
    from .runtime import check_seed

    effort, seed = (
        Effort(data_points, draws, simulations, gap_points, nuts_points),
        check_seed(seed),
    )
    opened, program = open_program(run, model, device)
    dataset = open_data(opened, data_dir)
    make_folder(opened.results)
    found = diagnose_with_progress(program, dataset, effort, seed)
    files = write_diagnosis(opened.results, found)
    write_report(opened.report, found, opened)
    show_verdicts(
        found, {"results": [str(f) for f in files], "report": str(opened.report)}, as_json
    )


@app.command(epilog="Example: ppl-vae report runs/mnist --output mnist.html")
def report(
    run: RunPath,
    output: Annotated[
        Path | None, typer.Option(help="An .html file (default: report.html in RUN).")
    ] = None,
) -> None:
    """Write what ppl-vae diagnose found as one self-contained page."""
    from .console import output_file, show
    from .diagnosis import read_diagnosis
    from .report import write_report
    from .runs import Run

    opened = Run.open(run)
    file = output_file(output, run, opened.report.name, ".html")
    write_report(file, read_diagnosis(opened.results), opened)
    show({}, {"report": str(file)}, as_json=False)


@app.command(epilog="Example: ppl-vae gradients runs/mnist --particles 5 --repeats 500")
def gradients(
    run: RunPath,
    particles: Annotated[int, typer.Option(help="Draws K for each datum.")] = 5,
    repeats: Annotated[int, typer.Option(help="Estimates of each gradient.")] = 200,
    data_points: Annotated[
        int, typer.Option(help="Take the gradient for the first so many data.")
    ] = 100,
    split: Annotated[SplitChoice, typer.Option(help="Data to take.")] = SplitChoice.train,
    output: Annotated[Path | None, typer.Option(help="A .png file (default: in RUN).")] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare estimators of the guide's gradient: do they agree, and how noisy is each?"""
    from .composition import choose_data, open_program
    from .console import output_file, progress, show_gradients, write_output
    from .gradients import ESTIMATORS, compare_gradients
    from .plots import gradient_variances

    opened, program = open_program(run, model, device)
    file = output_file(output, opened.pictures, "gradients.png", ".png")
    x, _ = choose_data(opened, "iw", data_points, split.value, data_dir, seed)
    with progress("estimating gradients", len(ESTIMATORS) * repeats) as advance:
        found = compare_gradients(program, x, particles, repeats, seed, advance)
    variances: dict[str, dict[str, float]] = {}
    for name, gradient in found.items():
        variances.setdefault(gradient.target, {})[name] = gradient.total_variance
    write_output(file, lambda: gradient_variances(variances))
    about = {"split": split.value, "data": len(x), "particles": particles, "repeats": repeats}
    show_gradients(found, {**about, "run": str(run), "output": str(file)}, as_json)


@app.command(epilog="Example: ppl-vae sample runs/mnist --count 100 --output digits.png")
def sample(
    run: RunPath,
    count: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 64,
    output: Output = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Draw x itself, not the mean of p(x|z).")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw data from the model: z from the prior, then x given z."""
    from .composition import open_program
    from .console import output_file, picture_or_array, show, write_output
    from .plots import sample_overview
    from .predict import prior_predictive

    opened, program = open_program(run, model, device)
    shape = tuple(opened.config.data["shape"])
    file = output_file(output, opened.pictures, picture_or_array("samples", shape), ".png", ".npy")
    drawn = prior_predictive(program, shape, count, seed)
    values = drawn.x if noise else drawn.mean
    write_output(file, lambda: sample_overview(values, values), values)
    show({}, {"run": str(run), "count": count, "output": str(file)}, as_json)


@app.command(epilog="Example: ppl-vae reconstruct runs/mnist --count 8 --output pairs.png")
def reconstruct(
    run: RunPath,
    count: Annotated[int, typer.Option(min=1, help="Number of data.")] = 10,
    split: Annotated[SplitChoice, typer.Option(help="Data to reconstruct.")] = SplitChoice.test,
    output: Output = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Encode data, decode one draw from q(z|x), and show both."""
    from .composition import open_data, open_program
    from .console import output_file, picture_or_array, show, write_output
    from .evidence import Estimate
    from .plots import reconstruction_pairs
    from .predict import posterior_predictive

    opened, program = open_program(run, model, device)
    dataset = open_data(opened, data_dir)
    file = output_file(
        output, opened.pictures, picture_or_array("reconstructions", dataset.shape), ".png", ".npy"
    )
    x = dataset.fixed(split.value, seed)[:count]
    mean = posterior_predictive(program, x, seed).mean
    write_output(file, lambda: reconstruction_pairs(x, mean), mean)
    error = Estimate.of((x - mean).square().flatten(1).sum(1))
    about = {"split": split.value, "run": str(run), "output": str(file)}
    show({"squared_error": error}, about, as_json)


def _say(text: str) -> None:
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)
