"""``ppl-vae train``: fit a model to data."""

import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..choices import Objective
from ..errors import InputError
from .options import (
    BinarizeChoice,
    Data,
    DataDir,
    DecimalOption,
    Device,
    EngineOption,
    Grey,
    Header,
    IndexColumn,
    JsonFlag,
    Label,
    Layer,
    Levels,
    Resize,
    SchemaFile,
    Seed,
    Separator,
    choose_reading,
    in_data,
    in_fit,
    in_model,
    sizes,
)
from .recipes import tell_differences, use_recipe
from .terminal import LOG

DRAWS = 100
WITH_RESUME = {"--resume", "--epochs", "--model", "--data", "--data-dir", "--tensorboard", "--json"}

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae train --model vae --data mnist --data-dir DIR --epochs 20 --seed 1 "
    "--output runs/mnist"
    "\n\nExample: ppl-vae train --resume runs/mnist"
    "\n\nExample: ppl-vae train --resume runs/mnist --epochs 40"
    "\n\nExample: ppl-vae train --config runs/mnist --seed 2 --output runs/again"
)
def train(
    context: typer.Context,
    data: Data = "digits",
    data_dir: DataDir = None,
    binarize: Annotated[
        BinarizeChoice,
        in_data(
            help="Grey values to zeros and ones: once (fixed), or anew in each epoch (dynamic); "
            "auto: dynamic for a named data set and a Bernoulli likelihood, else none."
        ),
    ] = "auto",
    separator: Separator = None,
    decimal: DecimalOption = None,
    header: Header = None,
    index_column: IndexColumn = None,
    label: Label = None,
    layer: Layer = None,
    levels: Levels = None,
    resize: Resize = None,
    grey: Grey = False,
    schema: SchemaFile = None,
    labels: Annotated[
        int | None,
        in_data(help="Hide all training labels but so many, as many of each class (by --seed)."),
    ] = None,
    model: Annotated[
        str,
        in_model(
            help="vae, autoencoder, linear-gaussian, not-miwae, conditional-vae, "
            "semi-supervised-vae; package.module:Class; file.py:Class."
        ),
    ] = "vae",
    latent_dim: Annotated[
        int | None,
        in_model(
            help="Number of latent variables (vae: 50; for images of 32x32 and more, 32 for each "
            "halving until a side has 8 pixels)."
        ),
    ] = None,
    hidden: Annotated[
        str | None, in_model(help="Widths of the hidden layers (vae: 500,500).")
    ] = None,
    channels: Annotated[
        str | None,
        in_model(
            help="Channels of convolutions, like 32,64 (vae: none; for images of 32x32 and more, "
            "one for each halving, unless layers are named)."
        ),
    ] = None,
    activation: Annotated[
        str | None, in_model(help="Between layers: silu (vae), tanh or relu.")
    ] = None,
    likelihood: Annotated[
        str | None,
        in_model(
            help="p(x|z): bernoulli (vae, images), continuous-bernoulli, gaussian, laplace, "
            "student-t, lognormal, poisson, negative-binomial, zero-inflated-negative-binomial, "
            "categorical, ordered, discretized-logistic, discretized-logistic-mixture; columns: "
            "each by its kind (vae, tables)."
        ),
    ] = None,
    likelihood_scale: Annotated[
        float | None, in_model(help="Fixed scale of gaussian, or one like it (vae: learned).")
    ] = None,
    guide: Annotated[
        str | None,
        in_model(
            help="q(z|x): diagonal (vae), full, low-rank, mixture (all normal), flow, spline."
        ),
    ] = None,
    prior: Annotated[
        str | None, in_model(help="p(z): standard (vae), mixture (both normal), vamp, or flow.")
    ] = None,
    encoder_hidden: Annotated[
        str | None,
        in_model(help="Widths of the encoder's hidden layers, if not --hidden, like 1000,1000."),
    ] = None,
    components: Annotated[
        int | None,
        in_model(help="Components of a mixture guide, and of a mixture or vamp prior (vae: 10)."),
    ] = None,
    epochs: Annotated[
        int | None,
        in_fit(
            help="Passes over the training data, at most (default: 20; of small data, enough for "
            "1,000 steps, up to 200)."
        ),
    ] = None,
    batch_size: Annotated[int, in_fit(help="Data points in a step, at most.")] = 128,
    learning_rate: Annotated[float, in_fit(help="Highest learning rate of Adam.")] = 2e-3,
    warmup_epochs: Annotated[float, in_fit(help="Epochs in which the rate rises.")] = 1.0,
    objective: Annotated[
        Objective,
        in_fit(
            help="The ELBO, also with the KL in closed form (analytic-kl) or the gradient of "
            "sticking the landing (stl); the importance-weighted bound (iw), also with doubly "
            "reparameterized gradients (dreg)."
        ),
    ] = "elbo",
    particles: Annotated[int, in_fit(help="Draws for each data point in a step.")] = 1,
    kl_warmup_epochs: Annotated[
        float, in_fit(help="Epochs in which the weight of the KL rises.")
    ] = 0.0,
    free_bits: Annotated[
        float, in_fit(help="KL that costs nothing, in nats per latent site.")
    ] = 0.0,
    clip_norm: Annotated[
        float | None, in_fit(help="Bound on the norm of the gradient, in nats per datum.")
    ] = None,
    patience: Annotated[
        int | None, in_fit(help="Stop after this many epochs without a better validation ELBO.")
    ] = None,
    engine: EngineOption = "auto",
    seed: Seed = 0,
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option(help="The new run directory (default: runs/DATA-MODEL).")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run at --output.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard events as well.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue the run in this directory, as if it had never stopped. With a larger "
            "number of --epochs, it goes on at the learning rates that a fit of so many has from "
            "there: not the same as from scratch. It takes --model (code of your own), --data-dir, "
            "--tensorboard and --json besides."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--config",
            callback=use_recipe,
            is_eager=True,
            help="A TOML file of options (latent-dim = 20), or a run, to be fitted as it was; what "
            "stands on the command line has the last word.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit a model to data, and show how good it is on test data."""
    from ..data.inspection import DataWarning
    from ..data.known_labels import keep_labels
    from ..data.sources import load_data
    from ..programs.references import build_program
    from ..runs.config import Config
    from ..runs.directory import Run
    from ..training.processes import Processes
    from ..training.settings import Settings
    from .model_options import (
        arguments_of_data,
        check_arguments,
        check_columns,
        choose_binarization,
        enough_epochs,
        find_model,
    )

    if resume is not None:
        _continue(context, resume)
        return
    given = {f.name: context.params[f.name] for f in fields(Settings)}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    chosen = {
        "latent_dim": latent_dim,
        "hidden": sizes("hidden", hidden),
        "channels": sizes("channels", channels),
        "activation": activation,
        "likelihood": likelihood,
        "likelihood_scale": likelihood_scale,
        "guide": guide,
        "prior": prior,
        "encoder_hidden": sizes("encoder_hidden", encoder_hidden),
        "components": components,
    }
    arguments = {name: value for name, value in chosen.items() if value is not None}
    kind, reference = find_model(model)
    check_arguments(kind, arguments)
    choice = choose_binarization(binarize, data, kind, arguments)
    reading = choose_reading(
        separator, decimal, header, index_column, label, layer, levels, resize, grey, schema
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*too far from zero", DataWarning)  # said below
        dataset = load_data(data, data_dir=data_dir, binarize=choice, reading=reading)
    check_columns(dataset, kind)
    if labels is not None:
        dataset = keep_labels(dataset, labels, seed)
    if epochs is None:
        settings = replace(settings, epochs=enough_epochs(len(dataset.train), settings))
    arguments = arguments_of_data(kind, arguments, dataset)
    tell_differences(recipe, arguments, context.params)
    program = build_program(kind, dataset.shape, arguments, seed)
    path = output or Path("runs") / f"{Path(data).stem}-{kind.__name__.lower()}"
    config = Config.of(reference, arguments, dataset, settings, data_dir)
    first = Processes.launched().is_first
    run = Run.create(path, config, overwrite=overwrite) if first else None
    _fit_and_show(
        run, program, dataset, settings, tensorboard=tensorboard, as_json=as_json, resume=False
    )


def _continue(context: typer.Context, path: Path) -> None:
    """Go on with a run, for more epochs if that is asked for."""
    from ..training.processes import Processes
    from .opening import move_data, reopen

    given, said, processes = _given(context), context.params, Processes.launched()
    if processes.count > 1 and (changes := given & {"--data", "--epochs"}):
        problem = f"changes {path}, which one process does for all"
        raise InputError(min(changes), problem, "say it first without torchrun")
    if stray := given - WITH_RESUME:
        names = ", ".join(sorted(stray))
        raise InputError("resume", f"continues {path} as it began", f"leave out {names}")
    if "--data" in given:
        move_data(path, said["data"], said["data_dir"])
    own = said["model"] if "--model" in given else None
    reopened = reopen(path, own, said["data_dir"])
    if "--epochs" in given:
        _extend(path, said["epochs"])
        reopened = reopen(path, own, said["data_dir"])
    processes.join()  # none reads what the first begins to write
    shown = {name: said[name] for name in ("tensorboard", "as_json")}
    _fit_and_show(*reopened, **shown, resume=True)


def _given(context: typer.Context) -> set[str]:
    """The options on the command line, as flags."""
    return {
        parameter.opts[0]
        for parameter in context.command.params
        if (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    }


def _extend(path: Path, epochs: int) -> None:
    """Let a run go on for more epochs, and say what that means."""
    from ..training.extend import extend

    run = extend(path, epochs)
    before = run.config.epochs_before[-1]
    LOG.info(
        f"{path} goes on at the learning rates that a fit of {epochs} epochs has from here; what "
        f"is done was fitted at the lower ones of {before}, so that it is not the same as {epochs} "
        "epochs from scratch"
    )


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
    from ..diagnostics.fit_quality import judge_fit
    from ..inference.estimate import estimate
    from ..plots.pictures import draw_pictures
    from ..programs.batches import match_data
    from ..progress import progress_bar
    from ..storage.files import make_folder
    from ..training.processes import Processes
    from .fitting import fit_or_stop
    from .tables import show

    history = fit_or_stop(run, program, dataset, settings, tensorboard=tensorboard, resume=resume)
    if not Processes.launched().is_first:
        return
    dataset = match_data(program, dataset)
    batch = dataset.batch("test", settings.seed)
    with progress_bar(f"scoring {batch.size} data points") as on_progress:
        _, scores = estimate(
            "iw", program, batch, DRAWS, seed=settings.seed, on_progress=on_progress
        )
    quality = judge_fit(program, dataset, history, settings, scores)
    make_folder(run.pictures)
    pictures = draw_pictures(program, dataset, history.epochs, run.pictures, settings.seed)
    about = {
        "split": "test",
        "draws": DRAWS,
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "run": str(run.path),
        "pictures": [str(file) for file in pictures],
    }
    estimates = scores.estimates()
    if quality.independent is not None:
        estimates["independent_columns"] = quality.independent
    if as_json:
        about["warnings"] = list(quality.warnings)
    show(estimates, about, as_json)
    for words in quality.warnings:
        LOG.warning("%s", words)
