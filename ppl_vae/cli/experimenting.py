"""``ppl-vae experiment``: the claims of the exercise, put to the test."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DataDir, ExperimentChoice, JsonFlag, Seed

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae experiment gap --quick"
    "\n\nExample: ppl-vae experiment latent-size --data-dir DIR --output latent-size"
)
def experiment(
    name: Annotated[
        ExperimentChoice,
        typer.Argument(
            help="reparameterization: is it the same law, and what does it save? latent-size: "
            "what do more units bring? reconstruction-loss: what does each call near? generate: "
            "why is an autoencoder no generative model? gap: what improves, model or guide?"
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds, not minutes: little of it, on few data.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="As in ppl-vae train, with values in [0, 1] (default: mnist; with --quick digits)."
        ),
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="The new folder (default: runs/experiments/NAME[-quick])."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the experiment at --output.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a claim about VAEs to the test: tables with errors, a figure, and what holds."""
    from ..data.sources import load_data
    from ..experiments.catalogue import perform
    from ..experiments.outcome import prepare_folder, write_outcome
    from ..progress import progress_bar
    from ..runtime import check_seed
    from .console import show_outcome

    check_seed(seed)
    default = f"{name.value}-quick" if quick else name.value
    folder = output or Path("runs") / "experiments" / default
    source = data or ("digits" if quick else "mnist")
    dataset = load_data(source, data_dir=data_dir, binarize="dynamic")
    prepare_folder(folder, overwrite)
    try:
        with progress_bar(name.value) as on_progress:
            outcome, config = perform(
                name.value,
                dataset,
                quick=quick,
                seed=seed,
                data_dir=data_dir,
                on_progress=on_progress,
            )
        files = write_outcome(folder, outcome, config)
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    show_outcome(outcome, {"files": [str(file) for file in files]}, as_json)
