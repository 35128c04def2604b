"""``ppl-vae refit``: train the guide of a run again, or another one, while the model stays."""

from typing import Annotated, Any

import typer

from ..choices import GuideData, Objective
from .options import (
    DataDir,
    Device,
    EngineOption,
    JsonFlag,
    NewGuide,
    NewRun,
    Overwrite,
    RunPath,
    Seed,
    Trusted,
    in_fit,
    in_model,
    sizes,
)

DRAWS = 100
COMPARED = ("elbo", "reconstruction", "kl", "iw_bound", "kl_to_posterior")

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae refit runs/mnist --guide full --on both --epochs 20"
    "\n\nExample: ppl-vae train --resume runs/mnist-refit"
)
def refit(
    run: RunPath,
    guide: NewGuide = None,
    encoder_hidden: Annotated[
        str | None, in_model(help="Widths of the encoder's hidden layers (default: the same).")
    ] = None,
    components: Annotated[
        int | None, in_model(help="Components of a mixture guide (default: the same).")
    ] = None,
    on: Annotated[
        GuideData,
        in_fit(
            help="data: maximize --objective on the training data; simulations: log q(z|x) of "
            "pairs that the model draws, which covers, and is calibrated by construction; both: "
            "their sum."
        ),
    ] = "data",
    epochs: Annotated[int, in_fit(help="Passes over the training data, at most.")] = 20,
    batch_size: Annotated[int, in_fit(help="Data points in a step, at most.")] = 128,
    learning_rate: Annotated[float, in_fit(help="Highest learning rate of Adam.")] = 2e-3,
    objective: Annotated[Objective, in_fit(help="Of the data; as for ppl-vae train.")] = "elbo",
    particles: Annotated[int, in_fit(help="Draws for each data point in a step.")] = 1,
    engine: EngineOption = "auto",
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "auto",
    model: Trusted = None,
    output: NewRun = None,
    overwrite: Overwrite = False,
    as_json: JsonFlag = False,
) -> None:
    """Train the guide alone; p(x, z) stays, to the bit. Compare with before, on the same draws."""
    from ..programs.batches import match_data
    from ..training.settings import Settings
    from .fitting import fit_or_stop
    from .model_options import check_arguments
    from .opening import beside, make_successor, open_data, open_program

    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        objective=objective,
        particles=particles,
        seed=seed,
        device=device,
        engine=engine,
    )
    opened, parent = open_program(run, model, device)
    widths = sizes("encoder_hidden", encoder_hidden)
    chosen = {"guide": guide, "encoder_hidden": widths, "components": components}
    changes = {name: value for name, value in chosen.items() if value is not None}
    check_arguments(type(parent), changes)
    path, dataset = output or beside(opened.path, "refit"), open_data(opened, data_dir)
    child, program = make_successor(
        opened, parent, dataset, changes, settings, path, data_dir, overwrite
    )
    history = fit_or_stop(child, program, dataset, settings, on=on, parent=parent)
    about = {
        "split": "test",
        "draws": DRAWS,
        "on": on,
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "parent": str(run),
        "run": str(path),
    }
    batch = match_data(program, dataset).batch("test", seed)
    _compare((parent, program), batch, seed, about, as_json)


def _compare(
    programs: tuple[Any, Any], batch: Any, seed: int, about: dict[str, Any], as_json: bool
) -> None:
    """Show what two guides give the same data, from the same seed, and the difference in pairs."""
    from ..evidence.scores import Estimate, score
    from ..progress import progress_bar
    from .tables import print_json, show_pairs

    with progress_bar(f"scoring {batch.size} data points twice") as on_progress:

        def halved(share: float, note: str) -> None:
            on_progress(share / 2, note)

        before, after = (score(p, batch, DRAWS, seed, halved).per_datum for p in programs)
    pairs = {
        name: (
            Estimate.of(before[name]),
            Estimate.of(after[name]),
            Estimate.of(after[name] - before[name]),
        )
        for name in COMPARED
        if name in before and name in after
    }
    if as_json:
        titles = ("before", "after", "difference")
        tables = {
            title: {name: estimates[place].as_dict() for name, estimates in pairs.items()}
            for place, title in enumerate(titles)
        }
        print_json({**about, **tables})
        return
    show_pairs(pairs, about)
