"""The command line."""

from rave_dist.cli.main import app, command

__all__ = ["app", "command"]
