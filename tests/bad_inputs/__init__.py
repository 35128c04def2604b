"""Tables of bad inputs, about one for each rule: how each comes about, and what is at fault."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def nothing(folder: Path) -> None:
    """Nothing to set up."""


@dataclass(frozen=True)
class Line:
    """A command line that must be refused.

    Attributes:
        id: What the case is called.
        words: The command line, in a folder that holds a run ``run`` and its data ``t.npy``.
        culprit: The option, file or value that the error must name; ``None`` if its name is free.
        spoil: What is done to the folder before.
    """

    id: str
    words: Sequence[Any]
    culprit: str | None = None
    spoil: Callable[[Path], Any] = nothing

    @property
    def command(self) -> str:
        return str(self.words[0])


@dataclass(frozen=True)
class Call:
    """A call that must be refused.

    Attributes:
        of: The public name, or the model, that it is a call of.
        id: What is wrong.
        call: The call, given a :class:`World`.
        culprit: The culprit of the error; ``None`` if its name is free.
    """

    of: str
    id: str
    call: Callable[["World"], Any]
    culprit: str | None = None


@dataclass(frozen=True)
class World:
    """What calls are made on.

    Attributes:
        vae: Fitted to ``data``, with a Gaussian likelihood.
        autoencoder: A guide without a density.
        conditional: Takes ``y`` beside ``x``.
        data: A table of 4 columns.
        x: Its test data.
        run: A run directory of ``vae``.
        folder: An empty folder.
    """

    vae: Any
    autoencoder: Any
    conditional: Any
    data: Any
    x: Any
    run: Path
    folder: Path
