"""What a GPU does otherwise than a processor: run here on the first GPU, if there is one."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

import ppl_vae
from ppl_vae import CompiledSVI, Posterior, Run, Settings, fit
from ppl_vae.models import VAE, LinearGaussian
from ppl_vae.runtime import isolated, pick_device
from ppl_vae.training.trainer import Trainer

from .resuming import DATA, assert_same, new, stop_after

DEVICE = pick_device()
ON_GPU = DEVICE.type == "cuda"
pytestmark = [] if ON_GPU else pytest.mark.slow
X = (torch.rand(24, 5, generator=torch.Generator().manual_seed(1)) > 0.5).float().to(DEVICE)


def vae(**options):
    return VAE((5,), latent_dim=2, hidden=(8,), **options).to(DEVICE)


def svi_of(kind, program, **options):
    optim = pyro.optim.Adam({"lr": 0.01})
    return kind(program.model, program.guide, optim, Trace_ELBO(), **options)


def losses(kind, start, steps, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    program = copy.deepcopy(start)
    svi = svi_of(kind, program, **options)
    return [svi.step(X) for _ in range(steps)], program, svi


def recordings(svi):
    """The CUDA graphs of a CompiledSVI."""
    graphs = [shape.graph for shape in svi.gradients.shapes._known.values()]
    return [graph.recording for graph in graphs if graph and graph.recording]


def test_compiled_steps_are_svis_on_the_same_draws():
    start = vae()
    expected, stock, _ = losses(SVI, start, 40)
    found, ours, svi = losses(CompiledSVI, start, 40, engine="compiled")
    assert found == pytest.approx(expected, rel=1e-4)
    for name, value in stock.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    assert len(recordings(svi)) == ON_GPU


def test_draws_of_a_graph_are_new_each_time_and_follow_the_generator():
    program = vae()
    svi = svi_of(CompiledSVI, program, engine="compiled")
    pyro.set_rng_seed(0)
    values = [svi.evaluate_loss(X) for _ in range(6)]
    assert svi.losses.graphs == 1
    assert len(set(values)) == 6
    pyro.set_rng_seed(0)
    assert [svi.evaluate_loss(X) for _ in range(6)] == pytest.approx(values, rel=1e-5)
    state = torch.cuda.get_rng_state() if ON_GPU else torch.get_rng_state()
    once = svi.evaluate_loss(X)
    torch.cuda.set_rng_state(state) if ON_GPU else torch.set_rng_state(state)
    assert svi.evaluate_loss(X) == once


def test_a_graph_reads_parameters_where_they_lie():
    program = vae()
    svi = svi_of(CompiledSVI, program, engine="compiled")
    for _ in range(5):
        svi.step(X)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.mul_(0.5)
    twin = copy.deepcopy(program)
    pyro.set_rng_seed(0)
    found = svi.step(X)
    pyro.set_rng_seed(0)
    assert found == pytest.approx(svi_of(SVI, twin).evaluate_loss(X), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.5, "kl_warmup_epochs": 2, "free_bits": 0.1},
        {"objective": "iw", "particles": 2},
    ],
    ids=str,
)
def test_a_compiled_fit_that_is_stopped_goes_on_to_the_same_bits(tmp_path, monkeypatch, options):
    settings = Settings(epochs=3, batch_size=16, engine="compiled", **options)
    program = vae()
    start = copy.deepcopy(program)
    fit(program, DATA, settings, run=new(tmp_path / "a", program, settings), progress=False)
    stop_after(monkeypatch, 25)
    run = new(tmp_path / "b", start, settings)
    with pytest.raises(KeyboardInterrupt):
        fit(start, DATA, settings, run=run, progress=False)
    fit(vae(), DATA, settings, run=Run.open(run.path), resume=True, progress=False)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_the_steps_of_a_fit_are_one_cuda_graph():
    settings = Settings(epochs=2, batch_size=16, engine="compiled", clip_norm=0.5)
    with isolated(0, DEVICE):
        trainer = Trainer(vae(), DATA, settings)
        trainer.epoch()
        assert len(recordings(trainer.svi_step.svi)) == ON_GPU


def test_evidence_is_that_of_the_dense_gaussian():
    program = LinearGaussian((5,), latent_dim=2).to(DEVICE)
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    program.set_exact_guide()
    bound = ppl_vae.evaluate(program, ppl_vae.Batch(x=x), draws=10)["iw_bound"]
    assert bound.mean == pytest.approx(program.evidence(x).mean().item(), rel=1e-4)


def test_every_question_is_answered():
    program = vae()
    fit(program, DATA, Settings(epochs=1), progress=False)
    assert Posterior(program, DATA.batch("test")).draw(10)["z"].device.type == "cpu"
    effort = ppl_vae.Effort(simulations=50, gap_points=4, nuts_points=1)
    diagnosis = ppl_vae.diagnose(program, DATA, effort)
    assert all(verdict.grade for verdict in diagnosis.verdicts.values())
    assert {tensor.device.type for tensor in program.state_dict().values()} == {DEVICE.type}


@pytest.mark.slow
def test_the_benchmark_of_gpus_runs_at_a_small_size(tmp_path):
    output = tmp_path / "gpu.json"
    script = Path(__file__).parents[1] / "benchmarks/gpu.py"
    command = [sys.executable, str(script), "--dry-run", "--output", str(output)]
    subprocess.run([*command, "--only", "training", "--only", "evidence"], check=True)
    subprocess.run([*command, "--only", "speed"], check=True)
    found = json.loads(output.read_text())
    assert found["evidence"]["images"] > 0
    assert math.isfinite(found["training"]["validation_elbo"])
    assert found["speed"]["20"]["ours_over"]
