"""``python -m ppl_vae`` is ``ppl-vae``: neither imports from the folder that it is run in.

What Python imports before this line it may take from there: inside a stranger's run, say
``ppl-vae``.
"""

import sys

if not sys.flags.safe_path:
    sys.path.pop(0)  # that folder

from .cli import main

main()
