"""Tables of bad inputs, one case a rule: how it comes about, and what must be named."""

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
        culprit: The argument, as Python or the command line spells it, or the file that the one
            line must name.
        spoil: What is done to the folder before.
    """

    id: str
    words: Sequence[Any]
    culprit: str
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
        culprit: What the culprit of the error must contain.
    """

    of: str
    id: str
    call: Callable[["World"], Any]
    culprit: str


@dataclass(frozen=True)
class World:
    """What calls are made on.

    Attributes:
        vae: Fitted to ``data``, with a Gaussian likelihood.
        autoencoder: A guide without a density.
        data: A table of 4 columns.
        x: Its test data.
        run: A run directory of ``vae``.
        folder: An empty folder.
    """

    vae: Any
    autoencoder: Any
    data: Any
    x: Any
    run: Path
    folder: Path
