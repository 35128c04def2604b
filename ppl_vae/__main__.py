"""``python -m ppl_vae`` is ``ppl-vae``."""

from .cli import main

main()
