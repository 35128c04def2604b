"""``ppl-vae evaluate``: the ELBO, its terms, and bounds on log p(x)."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..choices import Estimator, SplitName, Start
from ..errors import InputError
from .options import DataDir, Device, JsonFlag, RunPath, Seed, Trusted, in_annealing

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae evaluate runs/mnist --draws 1000 --json"
    "\n\nExample: ppl-vae evaluate runs/mnist --estimator bdmc --data-points 20"
)
def evaluate(
    run: RunPath,
    estimator: Annotated[
        Estimator,
        typer.Option(
            help="Bounds on log p(x). iw: importance weighting of draws from q(z|x); refined: of "
            "draws from guides refined for each data point too; ais: annealed importance sampling "
            "too; bdmc: annealing in both directions, on data drawn from the model."
        ),
    ] = "iw",
    draws: Annotated[int, typer.Option(help="Draws from q(z|x) for each data point.")] = 100,
    data_points: Annotated[
        int | None,
        typer.Option(
            help="Score the first so many (default: iw all, refined 1000, ais 100, bdmc 50)."
        ),
    ] = None,
    chains: Annotated[int | None, in_annealing(help="Chains for each data point (16).")] = None,
    temperatures: Annotated[
        int | None, in_annealing(help="Steps from the start to the posterior (500).")
    ] = None,
    start: Annotated[
        Start | None,
        in_annealing(
            help="Anneal from the prior (the default), from the guide q(z|x), which needs fewer "
            "temperatures, or from half of each (mixture)."
        ),
    ] = None,
    split: Annotated[SplitName | None, typer.Option(help="Data to score (default: test).")] = None,
    output: Annotated[
        Path | None, typer.Option(help="An .nc file; a .json goes beside it (default: in RUN).")
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate every term of log p(x) = ELBO + KL(q(z|x) || p(z|x)), with standard errors.

    Of a model with classes, also how good they are, before and after they are calibrated.
    """
    from ..evidence import results
    from ..evidence.annealing import Annealing
    from ..storage.tensors import digest_of
    from .opening import choose_data, classified, open_program
    from .output import output_file
    from .shares import how_many
    from .tables import show, show_classification

    choices = {"chains": chains, "temperatures": temperatures, "start": start}
    given: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    annealing = Annealing(**given)
    anneals = estimator in ("ais", "bdmc")
    if given and not anneals:
        problem = f"was given, but {estimator} does not anneal"
        raise InputError(min(given), problem, "choose ais or bdmc")
    if split and estimator == "bdmc":
        raise InputError("split", "was given, but bdmc draws its own data", "leave it out")
    opened, program = open_program(run, model, device)
    batch, rows = choose_data(
        opened, program, estimator, data_points, split or "test", data_dir, seed
    )
    scored = "simulated" if rows is None else split or "test"
    file = output_file(output, opened.results, f"{scored}-{estimator}.nc", ".nc")
    results.refuse_taken(file)
    scores = _scores(estimator, program, batch, draws, annealing, seed)
    about: dict[str, Any] = {"split": scored, "estimator": estimator, "draws": draws}
    if anneals:
        about |= {name: getattr(annealing, name) for name in choices}
    about |= {"seed": seed, "run": str(run), **how_many()}
    estimates, ledger = scores.estimates(), scores.ledger() if scores.likelihood else None
    kept = {**about, "weights": digest_of(program.state_dict())}
    summary = results.as_json(estimates, kept, ledger)
    dataset = results.as_dataset(scores, rows, kept)
    found = None
    if rows is not None:
        found = classified(opened, program, batch, split or "test", data_dir, seed)
    classes: dict[str, Any] = {}
    if found is not None:
        names = opened.config.data.get("label_names") or None
        dataset = results.with_classes(dataset, found, names)
        summary["classification"] = results.as_json(found.estimates(seed), {})
        classes = {"classification": summary["classification"]} if as_json else {}
    files = results.write_results(file, dataset, summary)
    written = [str(file) for file in files]
    if found is not None and found.estimates(seed):
        picture = opened.pictures / f"{scored}-reliability.png"
        written += [str(picture)] * _draw_reliability(picture, found)
    about = {**about, **classes, "results": written}
    show(estimates, about, as_json, ledger)
    if found is not None and not as_json:
        show_classification(found.estimates(seed))


def _scores(
    estimator: Estimator, program: Any, batch: Any, draws: int, annealing: Any, seed: int
) -> Any:
    """The scores of all data, by the processes that share them."""
    from ..evidence.scores import Scores
    from ..inference.estimate import conclude, estimate
    from ..progress import progress_bar
    from .shares import by_shares

    with progress_bar(f"scoring {batch.size} data points") as on_progress:
        parts = by_shares(
            batch,
            seed,
            lambda part, _, own: estimate(
                estimator, program, part, draws, annealing, own, on_progress
            ),
        )
    if len(parts) == 1:
        return parts[0][1]
    return conclude(Scores.joined([scores for _, scores in parts]), program, parts[0][0])


def _draw_reliability(file: Path, found: Any) -> bool:
    """A picture of the confidence of classes, before and after they are calibrated."""
    from ..plots.reliability import reliability_diagram
    from ..storage.files import make_folder
    from .output import write_picture

    shown = {"q(y|x)": found.known(calibrated=False)}
    if found.log_temperature is not None:
        shown["at the temperature of the validation data"] = found.known(calibrated=True)
    make_folder(file.parent)
    return write_picture(file, lambda: reliability_diagram(shown))
