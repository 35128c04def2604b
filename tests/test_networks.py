"""Encoders and decoders: shapes, convolutions of any image size, refusals."""

import pytest
import torch
from torch import nn

from ppl_vae.models import MLP, VAE, Autoencoder, Decoder, Encoder
from ppl_vae.models.networks import Tanh


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (7, 5), (1, 1), (33, 6)])
@pytest.mark.parametrize("channels", [(), (4,), (4, 8), (2, 4, 8)])
def test_decoder_mirrors_encoder_at_any_image_size(size, channels):
    shape = (3, *size)
    encoder = Encoder(shape, 10, hidden=(16,), channels=channels)
    decoder = Decoder(5, shape, hidden=(16,), channels=channels)
    x = torch.randn(4, *shape)
    assert encoder(x).shape == (4, 10)
    assert decoder(torch.randn(4, 5)).shape == x.shape
    assert decoder(torch.randn(2, 4, 5)).shape == (2, *x.shape)


def test_leading_dimensions_are_independent():
    decoder = Decoder(5, (1, 9, 9), hidden=(8,), channels=(4,))
    z = torch.randn(2, 3, 5)
    torch.testing.assert_close(decoder(z)[1, 2], decoder(z[1, 2][None])[0])


def test_an_mlp_without_hidden_layers_is_linear():
    (layer,) = MLP(4, 3)
    assert isinstance(layer, nn.Linear)


@pytest.mark.parametrize("channels", [(), (4,)])
def test_hidden_layers_make_networks_that_are_not_affine(channels):
    encoder = Encoder((1, 6, 6), 3, hidden=() if channels else (16,), channels=channels)
    decoder = Decoder(3, (1, 6, 6), hidden=() if channels else (16,), channels=channels)
    for network, x in ((encoder, torch.randn(2, 1, 6, 6)), (decoder, torch.randn(2, 3))):
        middle = network(x.mean(0, keepdim=True))[0]
        assert not torch.allclose(middle, network(x).mean(0), atol=1e-4)


def test_widths_run_in_reverse_in_the_decoder():
    widths = [m.out_features for m in Decoder(2, (9,), hidden=(5, 7)).mlp if hasattr(m, "weight")]
    assert widths == [7, 5, 9]


def test_convolutions_need_images():
    with pytest.raises(ValueError, match="channels must be left out"):
        VAE((17,), channels=(8,))


def test_tanh_is_torchs():
    x = torch.linspace(-30, 30, 1001)
    torch.testing.assert_close(Tanh()(x), x.tanh(), rtol=0, atol=3e-7)
    assert torch.autograd.gradcheck(Tanh(), torch.randn(5, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_the_activation_stands_between_all_layers(kind):
    program = kind((1, 8, 8), 2, (16, 16), channels=(4,), activation="tanh")
    kinds = [type(module) for module in program.modules()]
    # A hidden layer each, a convolution each; the convolutional decoder has one more.
    assert kinds.count(Tanh) == 6
    assert not {nn.SiLU, nn.ReLU} & set(kinds)
    with pytest.raises(ValueError, match="activation must be one of silu, tanh, relu, got 'sine'"):
        kind((5,), activation="sine")


def test_tanh_layers_start_as_glorot_and_bengio_say():
    layer = MLP(300, 3, (500,), activation="tanh")[0]
    # Uniform with variance 2 / (fan in + fan out); the spread of 150,000 squares is 0.2 %.
    assert layer.weight.var().item() == pytest.approx(2 / 800, rel=0.02)
    assert (layer.bias == 0).all()
