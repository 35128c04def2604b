"""The commands of the shell. torch is imported inside them, so that ``--help`` answers at once."""
