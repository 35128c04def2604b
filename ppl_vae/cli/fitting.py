"""``ppl-vae train``."""

import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .options import (
    BinarizeChoice,
    Data,
    DataDir,
    Device,
    Engine,
    EngineChoice,
    JsonFlag,
    ObjectiveChoice,
    Seed,
    in_data,
    in_fit,
    in_model,
    sizes,
)

TRAIN_DRAWS = 100
WITH_RESUME = {"--resume", "--model", "--data-dir", "--tensorboard", "--json"}

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae train --model vae --data mnist --data-dir DIR --epochs 20 --seed 1 "
    "--output runs/mnist"
    "\n\nExample: ppl-vae train --resume runs/mnist"
)
def train(
    context: typer.Context,
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
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this directory, as if it had never stopped. With it go "
            "--model (code of your own), --data-dir, --tensorboard and --json."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit a model to data, and show how good it is on data it has not seen."""
    from ..data.sources import load_data
    from ..programs.references import build_program
    from ..runs.config import Config
    from ..runs.directory import Run
    from ..training.settings import Settings
    from .opening import check_arguments, choose_binarization, find_model, reopen

    if resume is not None:
        given = _given(context)
        if stray := given - WITH_RESUME:
            raise InputError(
                f"--resume goes on with {resume} as it began: leave out {', '.join(sorted(stray))}"
            )
        code = model if "--model" in given else None
        reopened = reopen(resume, code, data_dir)
        _fit_and_show(*reopened, tensorboard=tensorboard, as_json=as_json, resume=True)
        return
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
    chosen = {
        "latent_dim": latent_dim,
        "hidden": sizes("hidden", hidden),
        "channels": sizes("channels", channels),
        "activation": activation,
        "likelihood": likelihood,
        "likelihood_scale": likelihood_scale,
    }
    arguments = {name: value for name, value in chosen.items() if value is not None}
    kind, reference = find_model(model)
    check_arguments(kind, arguments)
    choice = choose_binarization(binarize.value, data, kind, arguments)
    dataset = load_data(data, data_dir=data_dir, binarize=choice)
    program = build_program(kind, dataset.shape, arguments, seed)
    path = output or Path("runs") / f"{Path(data).stem}-{kind.__name__.lower()}"
    config = Config.of(reference, arguments, dataset, settings, data_dir)
    run = Run.create(path, config, overwrite=overwrite)
    _fit_and_show(
        run, program, dataset, settings, tensorboard=tensorboard, as_json=as_json, resume=False
    )


def _given(context: typer.Context) -> set[str]:
    """The options on the command line, as they are written there."""
    return {
        parameter.opts[0]
        for parameter in context.command.params
        if (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    }


def _fit_and_show(
    run: Any,
    program: Any,
    dataset: Any,
    settings: Any,
    *,
    tensorboard: bool,
    as_json: bool,
    resume: bool,
) -> None:
    from ..plots.pictures import draw_pictures
    from ..programs.batches import match_data
    from ..storage.files import make_folder
    from ..training.fit import fit
    from ..training.tensorboard import TensorBoard
    from .console import estimate_with_progress, show

    # What ends a job politely, as schedulers do before they kill it, is an interrupt too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with TensorBoard(run.events) if tensorboard else nullcontext() as on_epoch:
            history = fit(program, dataset, settings, run=run, resume=resume, on_epoch=on_epoch)
    except KeyboardInterrupt:
        words = "nothing was written"
        if run.has_weights():
            words = (
                f"{run.path} holds the best weights up to here; go on with: ppl-vae train --resume "
                f"{run.path}"
            )
        typer.echo(f"interrupted: {words}", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    dataset = match_data(program, dataset)
    batch = dataset.batch("test", settings.seed)
    _, scores = estimate_with_progress("iw", program, batch, TRAIN_DRAWS, settings.seed)
    make_folder(run.pictures)
    pictures = draw_pictures(program, dataset, history.epochs, run.pictures, settings.seed)
    about = {
        "split": "test",
        "draws": TRAIN_DRAWS,
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "run": str(run.path),
        "pictures": [str(file) for file in pictures],
    }
    show(scores.estimates(), about, as_json)
