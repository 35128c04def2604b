"""The check of a program names what breaks the contract."""

import pytest
import torch

from ppl_vae import InputError, check_program, make_data
from ppl_vae.models import VAE, Autoencoder
from ppl_vae.programs.references import find_program

from . import misfits, programs

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (misfits.NoPlate, "site 'z' outside the plate 'data' at dim -1"),
        (misfits.NoEvent, r"batch shape \(2, 2\) at site 'z'"),
        (misfits.NoDraws, "NoDraws does not run under a plate of draws around it"),
        (misfits.NoLatent, "NoLatent.model has no latent site"),
        (misfits.Frozen, "Frozen has frozen parameters only"),
        (misfits.Transposed, "parameter 'encoder.weight' that is not contiguous"),
        (misfits.Unobserved, "observes nothing, not its argument x"),
        (misfits.OtherSites, "site 'w' only in the guide"),
        (misfits.Unregistered, "parameter '.*weight' that Pyro never sees"),
        (misfits.Foreign, "parameter 'shift' that is not the module's"),
        (misfits.NoParameters, "has no parameters"),
        (misfits.NoModel, "is not a program: make it an nn.Module"),
    ],
)
def test_refuses_what_does_not_conform(kind, message):
    with pytest.raises(InputError, match=message) as caught:
        check_program(kind(), X)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_no_module():
    class Plain:
        model = guide = parameters = None

    with pytest.raises(InputError, match="Plain is not a program"):
        check_program(Plain(), X)


def test_refuses_data_of_another_shape_and_no_data():
    with pytest.raises(InputError, match=r"does not run on data of shape \(4,\)"):
        check_program(programs.Minimal(), X[:, :4])
    with pytest.raises(InputError, match="empty"):
        check_program(programs.Minimal(), X[:0])


@pytest.mark.parametrize("datum", [0, 7_123, 9_999])
def test_names_the_first_datum_outside_the_support(datum):
    x = torch.randint(2, (10_000, 5)).float()
    x[datum:, 2] = 0.25
    with pytest.raises(InputError, match=rf"datum {datum}: 0.25 lies outside .* binarize the data"):
        check_program(VAE((5,)), x)
    check_program(VAE((5,), likelihood="continuous-bernoulli"), x)


def test_counts_in_bytes_are_told_what_was_done_to_them():
    counts = torch.poisson(torch.full((60, 5), 2.0)).byte()
    check_program(programs.Counts((5,)), make_data(counts).fixed("train"))
    data = make_data(counts, levels=255)
    with pytest.raises(InputError, match="uint8 is read as levels of grey"):
        check_program(programs.Counts((5,)), data.fixed("train"))


def test_a_support_may_be_a_parameter():
    counts = torch.randint(11, (50, 5)).float()
    check_program(programs.Counts(), counts)
    counts[7, 1] = 11.0
    with pytest.raises(InputError, match="datum 7: Expected value argument"):
        check_program(programs.Counts(), counts)
    with pytest.raises(InputError, match="datum 93: Expected value argument"):
        check_program(programs.Counts(), counts, rows=torch.arange(100, 50, -1))


def test_data_must_be_a_tensor():
    with pytest.raises(InputError, match="data must be a tensor"):
        check_program(programs.Minimal(), X.numpy())


def test_support_is_checked_for_distributions_that_give_no_advice():
    class Positive(programs.Minimal):
        def model(self, x):
            import pyro
            import pyro.distributions as dist

            pyro.module(f"positive-{id(self)}", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                rate = self.decoder(z).exp()
                pyro.sample("x", dist.Exponential(rate).to_event(1), obs=x)

    x = X.abs()
    check_program(Positive(), x)
    x[3] = -1.0
    with pytest.raises(InputError, match="datum 3: Expected value argument") as caught:
        check_program(Positive(), x)
    assert "\n" not in str(caught.value)


def test_a_check_leaves_no_trace():
    import pyro

    vae, state = VAE((5,)), torch.get_rng_state()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    check_program(vae, torch.ones(3, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())


def test_finds_classes_in_modules_and_files(tmp_path):
    assert find_program("ppl_vae.models:Autoencoder") is Autoencoder
    file = tmp_path / "mine.py"
    file.write_text("from tests.programs import Minimal\nclass Mine(Minimal): pass\nother = 1\n")
    assert find_program(f"{file}:Mine").__name__ == "Mine"
    (tmp_path / "neighbour.py").write_text("from tests.programs import Minimal\n")
    file.write_text("from neighbour import Minimal\nclass Other(Minimal): pass\n")
    assert find_program(f"{file}:Other").__name__ == "Other"


def test_whatever_a_programs_code_raises_is_one_line():
    class Careless(programs.Minimal):
        def model(self, x):
            return x.no_such_thing

    with pytest.raises(InputError, match=r"does not run on data of shape \(5,\) .AttributeError: "):
        check_program(Careless(), X)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("VAE", "model must be one of .*, got 'VAE'"),
        ("nowhere.to.be:Found", "nowhere.to.be cannot be imported .ModuleNotFoundError"),
        ("{tmp}/none.py:VAE", "none.py cannot be imported .FileNotFoundError"),
        ("{tmp}/broken.py:VAE", "broken.py cannot be imported .SyntaxError"),
        ("ppl_vae.models:None", "has no class 'None'"),
        ("ppl_vae.models:PROGRAMS", "has no class 'PROGRAMS'"),
        ("ppl_vae.models:MLP", "is not a program"),
        ("subprocess:Popen", "is not a program"),
    ],
)
def test_refuses_references_that_lead_nowhere(reference, message, tmp_path):
    (tmp_path / "broken.py").write_text("class\n")
    with pytest.raises(InputError, match=message) as caught:
        find_program(reference.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)


def test_a_support_that_depends_on_a_parent_is_held_against_that_parent():
    check_program(programs.Nested(), torch.randn(40, 5))
