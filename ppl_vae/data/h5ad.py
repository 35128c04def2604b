"""AnnData's .h5ad files: counts of single cells, and what is known of cells."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory, regular_size, tell_lack_of_memory
from .blocks import are_whole
from .reading import Reading
from .table import LABEL_COLUMN, Table

SPARSE = ("csr_matrix", "csc_matrix")


def read_h5ad(path: Path, reading: Reading | None = None) -> dict[str, Any]:
    """The :class:`.Table` in an AnnData file: ``X`` or a layer, with the names of cells and genes.

    Classes are a column of ``obs``.

    Raises:
        InputError: If anndata is not installed, the file is broken or has no such layer or column,
            or the matrix, made dense, does not fit into memory.
    """
    reading = reading or Reading()
    regular_size(path)
    try:
        import h5py
        from anndata.io import read_elem
    except ModuleNotFoundError as error:
        remedy = "install it: pip install 'ppl-vae[anndata]'"
        raise InputError(path, f"needs the package {error.name}", remedy) from None
    try:
        with h5py.File(path, "r") as file:
            place = "X" if reading.layer is None else f"layers/{reading.layer}"
            if place not in file:
                known = ", ".join(file["layers"]) if "layers" in file else ""
                raise InputError(path, f"has no {place}", f"its layers are {known or '(none)'}")
            _refuse_large(path, file[place])
            matrix = read_elem(file[place])
            obs, genes = read_elem(file["obs"]), [*map(str, read_elem(file["var"]).index)]
    except InputError:
        raise
    except Exception as error:  # whatever a broken file makes the readers raise
        tell_lack_of_memory(error, path)
        reason = first_line(error)
        raise InputError(path, f"is no AnnData file ({reason})", "save it again") from None
    x = np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
    return {"x": _table(x, obs, genes, reading, path)}


def _refuse_large(path: Path, matrix: Any) -> None:
    """Refuse a matrix that is too large when it is dense, before it is read."""
    sparse = matrix.attrs.get("encoding-type") in SPARSE
    shape = matrix.attrs["shape"] if sparse else matrix.shape
    kind = matrix["data"].dtype if sparse else matrix.dtype
    stored = 0 if not sparse else len(matrix["data"]) * (kind.itemsize + 8)
    size = math.prod(map(int, shape)) * max(4, kind.itemsize)
    refuse_beyond_memory(stored + size, path, "take fewer cells or genes")


def _table(x: np.ndarray, obs: Any, genes: list[str], reading: Reading, path: Path) -> Table:
    if x.ndim != 2 or x.dtype.kind not in "buif" or not x.size:
        raise InputError(path, f"has a matrix of shape {x.shape} and type {x.dtype}", "mend it")
    if len({*genes}) < len(genes):
        raise InputError(path, "has two genes of one name", "make names unique in var")
    name = LABEL_COLUMN if reading.label is None else reading.label
    labels = None
    if name in obs:
        column = obs[name].astype(object)
        labels = column.where(column.notna(), None).to_numpy()
    kept = [place for place, g in enumerate(genes) if not reading.schema.get(g, {}).get("drop")]
    x = x if len(kept) == len(genes) else x[:, kept]
    said = {g: reading.schema[g]["kind"] for g in genes if "kind" in reading.schema.get(g, {})}
    counts = bool(x.min(initial=0) >= 0) and are_whole(x)
    kinds = {genes[place]: said.get(genes[place], "count") for place in kept} if counts else said
    return Table(
        tuple(genes[place] for place in kept),
        x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False),
        kinds,
        labels=labels,
        row_names=tuple(map(str, obs.index)),
        present=(*genes, *map(str, obs.columns)),
    )
