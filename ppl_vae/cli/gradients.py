"""``ppl-vae gradients``: estimators of the guide's gradient compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..choices import SplitName
from .options import DataDir, Device, JsonFlag, RunPath, Seed, Trusted

if TYPE_CHECKING:
    from ..objectives.gradients import Gradient

DATA_POINTS = 100

app = typer.Typer()


@app.command(epilog="Example: ppl-vae gradients runs/mnist --particles 5 --repeats 500")
def gradients(
    run: RunPath,
    particles: Annotated[int, typer.Option(help="Draws K for each data point.")] = 5,
    repeats: Annotated[int, typer.Option(help="Estimates of each gradient.")] = 200,
    data_points: Annotated[
        int | None,
        typer.Option(help=f"Take the gradient for the first so many (default: {DATA_POINTS})."),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Data to take.")] = "train",
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
    from ..programs.sites import Sites
    from ..progress import progress_bar
    from .opening import choose_data, open_program
    from .output import output_file, write_picture

    opened, program = open_program(run, model, device)
    file = output_file(output, opened.pictures, "gradients.png", ".png")
    batch, _ = choose_data(opened, program, "iw", data_points, split, data_dir, seed)
    batch = batch if data_points else batch.rows(slice(DATA_POINTS))
    with progress_bar("estimating gradients") as on_progress:
        found = compare_gradients(program, batch, particles, repeats, seed, on_progress)
    variances: dict[str, dict[str, float]] = {}
    for name, gradient in found.items():
        variances.setdefault(gradient.target, {})[name] = gradient.total_variance
    written = write_picture(file, lambda: gradient_variances(variances))
    about: dict[str, Any] = {"split": split, "data": batch.size}
    about |= {"particles": particles, "repeats": repeats}
    if site := Sites.of(program, batch).without_path:
        about["left out"] = f"pathwise estimators: the site {site!r} cannot be reparameterized"
    about["run"] = str(run)
    if written:
        about["output"] = str(file)
    _show(found, about, as_json)


def _show(found: dict[str, "Gradient"], about: dict[str, Any], as_json: bool) -> None:
    """Print the estimators; the first of each target is what its others are compared with."""
    from .tables import new_table, print_json, show_about
    from .terminal import Console

    first = {gradient.target: gradient for gradient in reversed(found.values())}
    rows: dict[str, dict[str, Any]] = {
        name: {
            "target": gradient.target,
            "variance": gradient.total_variance,
            # JSON has no infinity, which is that of a gradient without variance.
            "signal_to_noise": gradient.signal_to_noise if gradient.total_variance else None,
            "p_value": None
            if gradient is first[gradient.target]
            else gradient.agreement(first[gradient.target]),
        }
        for name, gradient in found.items()
    }
    if as_json:
        print_json({**about, "gradients": rows})
        return
    headings = ["total variance", "signal / noise", "p (same mean)"]
    table = new_table("gradient by the guide's parameters", ["estimator"], headings)
    for name, row in rows.items():
        noise, p_value = row["signal_to_noise"], row["p_value"]
        table.add_row(
            name,
            f"{row['variance']:.3g}",
            "" if noise is None else f"{noise:.3g}",
            "" if p_value is None else f"{p_value:.2g}",
        )
    Console().print(table)
    show_about(about)
