"""``ppl-vae evaluate | diagnose | report | gradients``: how good a fit is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .options import (
    DataDir,
    Device,
    EstimatorChoice,
    JsonFlag,
    RunPath,
    Seed,
    SplitChoice,
    StartChoice,
    Trusted,
    in_annealing,
    in_diagnosis,
)

GRADIENT_POINTS = 100

app = typer.Typer()


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
    chains: Annotated[int | None, in_annealing(help="Chains for each datum (16).")] = None,
    temperatures: Annotated[
        int | None, in_annealing(help="Steps from start to posterior (500).")
    ] = None,
    start: Annotated[
        StartChoice | None,
        in_annealing(
            help="Anneal from the prior (which is the default), or from q(z|x), which takes fewer "
            "temperatures."
        ),
    ] = None,
    split: Annotated[SplitChoice | None, typer.Option(help="Data to score (test).")] = None,
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
    from ..evidence import results
    from ..evidence.annealing import Annealing
    from .console import estimate_with_progress, output_file, show
    from .opening import choose_data, open_program

    choices = {"chains": chains, "temperatures": temperatures, "start": start and start.value}
    given: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    annealing = Annealing(**given)
    if given and estimator is EstimatorChoice.iw:
        raise InputError(f"--{min(given)} was given, but iw does not anneal: take ais or bdmc")
    if split and estimator is EstimatorChoice.bdmc:
        raise InputError("--split was given, but bdmc draws its own data: leave it out")
    split = split or SplitChoice.test
    opened, program = open_program(run, model, device)
    batch, rows = choose_data(
        opened, program, estimator.value, data_points, split.value, data_dir, seed
    )
    name = f"{'simulated' if rows is None else split.value}-{estimator.value}.nc"
    file = output_file(output, opened.results, name, ".nc")
    results.refuse_taken(file)
    _, scores = estimate_with_progress(estimator.value, program, batch, draws, seed, annealing)
    about: dict[str, Any] = {
        "split": "simulated" if rows is None else split.value,
        "estimator": estimator.value,
        "draws": draws,
    }
    if estimator is not EstimatorChoice.iw:
        about |= {name: getattr(annealing, name) for name in ("chains", "temperatures", "start")}
    about |= {"seed": seed, "run": str(run)}
    figures, ledger = scores.estimates(), scores.ledger() if scores.likelihood else None
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
    from ..diagnostics.diagnosis import Effort, write_diagnosis
    from ..diagnostics.report import write_report
    from ..runtime import check_seed
    from ..storage.files import make_folder
    from .console import diagnose_with_progress, show_verdicts
    from .opening import open_data, open_program

    effort, seed = (
        Effort(data_points, draws, simulations, gap_points, nuts_points),
        check_seed(seed),
    )
    opened, program = open_program(run, model, device)
    dataset = open_data(opened, data_dir)
    opened.metrics()  # which the report shows: better refused now than then
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
    from ..diagnostics.diagnosis import read_diagnosis
    from ..diagnostics.report import write_report
    from ..runs.directory import Run
    from .console import output_file, show

    opened = Run.open(run)
    opened.metrics()
    file = output_file(output, opened.path, opened.report.name, ".html")
    write_report(file, read_diagnosis(opened.results), opened)
    show({}, {"report": str(file)}, as_json=False)


@app.command(epilog="Example: ppl-vae gradients runs/mnist --particles 5 --repeats 500")
def gradients(
    run: RunPath,
    particles: Annotated[int, typer.Option(help="Draws K for each datum.")] = 5,
    repeats: Annotated[int, typer.Option(help="Estimates of each gradient.")] = 200,
    data_points: Annotated[
        int | None, typer.Option(help="Take the gradient for the first so many data (100).")
    ] = None,
    split: Annotated[SplitChoice, typer.Option(help="Data to take.")] = SplitChoice.train,
    output: Annotated[Path | None, typer.Option(help="A .png file (default: in RUN).")] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare estimators of the guide's gradient: do they agree, and how noisy is each?"""
    from ..objectives.gradients import compare_gradients
    from ..plots.figures import gradient_variances
    from ..progress import progress_bar
    from .console import output_file, show_gradients, write_output
    from .opening import choose_data, open_program

    opened, program = open_program(run, model, device)
    file = output_file(output, opened.pictures, "gradients.png", ".png")
    batch, _ = choose_data(opened, program, "iw", data_points, split.value, data_dir, seed)
    batch = batch if data_points else batch.rows(slice(GRADIENT_POINTS))
    with progress_bar("estimating gradients") as on_progress:
        found = compare_gradients(program, batch, particles, repeats, seed, on_progress)
    variances: dict[str, dict[str, float]] = {}
    for name, gradient in found.items():
        variances.setdefault(gradient.target, {})[name] = gradient.total_variance
    write_output(file, lambda: gradient_variances(variances))
    about = {"split": split.value, "data": batch.size, "particles": particles, "repeats": repeats}
    show_gradients(found, {**about, "run": str(run), "output": str(file)}, as_json)
