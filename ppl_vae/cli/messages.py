"""How the command line words an error."""

from collections.abc import Mapping

from ..errors import InputError, shell_word

REMEDIES = {
    "another-path": "choose another --output",
    "another-device": "use --device cpu",
    "binarize-or-gaussian": "rescale them, or use --binarize none and --likelihood gaussian",
    "code-beside": "if you trust what lies here, begin with ppl-vae --path .",
    "column-names": "give the name of a column that there is: ppl-vae inspect shows them",
    "data-dir": "place {files} in {folder}, or name another folder with --data-dir",
    "date": "make it a number, such as days since a date, or leave it out: drop = true for "
    "{column!r} in --schema FILE",
    "decimal": "say which, with --decimal . or --decimal ,",
    "diagnose-again": "run ppl-vae diagnose again",
    "fit-first": "make one with ppl-vae train",
    "drop-or-encode": "encode it as numbers or text, or drop it",
    "header": "say --header or --no-header",
    "index-or-data": "say --index-column {column}, or the kind of {column!r} in --schema FILE",
    "leave-out": "leave it out: drop = true for {column!r} in --schema FILE",
    "leave-out-or-index": "leave it out: drop = true for {column!r} in --schema FILE, or say "
    "--index-column {column} if it names rows",
    "levels": "say --levels 255 if they are grey values, or --binarize none",
    "mend-or-category": 'mend it, or, if the column holds categories, say kind = "category" for '
    "{column!r} in --schema FILE",
    "mend-row": "mend the line, or say how cells are separated, with --separator",
    "other-kind": "choose another kind in --schema FILE",
    "make-grey": "convert them to one mode, or fit with ppl-vae train --grey",
    "overwrite": "choose another --output, or pass --overwrite",
    "fit-again": "fit again with ppl-vae train --overwrite",
    "resize": "crop them to one size, or fit with ppl-vae train --resize H,W",
    "resume": "continue with ppl-vae train --resume {run}",
    "resume-or-overwrite": "choose another --output, pass --overwrite, or continue it with ppl-vae "
    "train --resume {run}",
    "separator": "say which, with --separator",
    "then-resume": "{first}, then continue with ppl-vae train --resume {run}",
    "trust-program": "if you trust that code, say --model {program}",
    "write-again": "ppl-vae train --resume {run} writes it again",
}
"""The remedies of :data:`ppl_vae.errors.REMEDIES`, in commands and options."""

EXTRAS = {
    "anndata": {"anndata"},
    "data": {"pandas", "PIL", "pyarrow", "sklearn", "torchvision"},
    "diagnose": {"arviz", "h5netcdf", "h5py", "jinja2", "matplotlib", "scipy", "xarray"},
    "flows": {"zuko"},
    "tensorboard": {"tensorboard"},
}
"""Modules that the extras of the package install."""


def in_flags(error: InputError, flags: Mapping[str, str]) -> str:
    """An error in one line, which names options as they are written on the command line.

    Arguments:
        error: The error. Its culprit may be an argument, or one with its value: ``draws=100``.
        flags: The options of the command that was run, by the names of arguments.

    Example:
        >>> error = InputError("batch_size", "must be at least 1, got 0")
        >>> in_flags(error, {"batch_size": "--batch-size"})
        '--batch-size must be at least 1, got 0'
        >>> in_flags(InputError("a b", "holds a run", "resume", run="a b"), {})
        "a b holds a run: continue with ppl-vae train --resume 'a b'"
    """
    name, _, value = error.culprit.partition("=")
    culprit = f"{flags[name]} {value}".rstrip() if name in flags else None
    if "run" in error.details:
        details = error.details | {"run": shell_word(error.details["run"])}
        error = InputError(error.culprit, error.problem, error.remedy, **details)
    return error.message(REMEDIES, culprit)


def missing_extra(module: str | None) -> str | None:
    """What to install where a module is missing; ``None`` if no extra brings it.

    Example:
        >>> missing_extra("matplotlib.figure")
        "matplotlib is not installed: pip install 'ppl-vae[diagnose]'"
    """
    package = (module or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            return f"{package} is not installed: pip install 'ppl-vae[{extra}]'"
    return None
