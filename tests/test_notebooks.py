"""Every notebook runs from top to bottom, at the small size, and is committed with its outputs."""

import inspect
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .conftest import load_benchmark

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SHORT_CHAINS = """
from ppl_vae.inference import nuts
nuts.WARMUP, nuts.DRAWS, nuts.MOST_R_HAT, nuts.LEAST_ESS = 60, 60, 10.0, 1
"""


LONG = ("03_posterior_diagnostics", "04_your_own_model", "05_counts")


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=pytest.mark.slow if f.stem in LONG else ()) for f in NOTEBOOKS],
    ids=lambda file: file.stem,
)
# Jupyter's own libraries leave sockets and event loops to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_runs_from_top_to_bottom(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_NOTEBOOKS", "small")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two workers share two cores
    notebook = nbformat.read(file, as_version=4)
    if file.stem != "03_posterior_diagnostics":  # which shows that chains mix
        notebook.cells.insert(0, nbformat.v4.new_code_cell(SHORT_CHAINS))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_is_committed_with_its_outputs(file):
    code = [c for c in nbformat.read(file, as_version=4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    assert not any(o.get("name") == "stderr" for c in code for o in c.outputs)
    assert any("image/png" in o.get("data", {}) for c in code for o in c.outputs)
    assert file.stat().st_size < 1_000_000


def test_the_counts_are_those_of_the_benchmark():
    """Neither imports the other: a notebook is read alone."""
    file = next(file for file in NOTEBOOKS if file.stem == "05_counts")
    cell = next(c for c in nbformat.read(file, as_version=4).cells if c.id == "simulate")
    benchmark = inspect.getsource(load_benchmark("single_cells").simulate)
    assert cell.source.splitlines()[1:] == benchmark.splitlines()[1:]
