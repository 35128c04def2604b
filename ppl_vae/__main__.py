"""``python -m ppl_vae`` is ``ppl-vae``, but that Python then imports from the folder that it is run
in: inside of a stranger's run, say ``ppl-vae``, or ``python -P -m ppl_vae``."""

from .cli import main

main()
