"""The command line: one file a command."""

from ..signals import handled, leave, leave_or_raise


def main() -> None:
    """Run the command line: exit code 0, 2 for the user's input, 1 for a fault of ours, 130 if it
    was interrupted, 141 if who reads its output has left."""
    with handled(leave_or_raise):
        try:
            from .app import main as run  # takes long enough to be interrupted

            run()
        except KeyboardInterrupt:  # outside of a command
            leave()
