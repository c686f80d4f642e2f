"""What a user can get wrong. The command lines print the message in one line and exit with status 2."""

from __future__ import annotations

from .commands import as_typed


class UserError(Exception):
    """A mistake in what the user gave. The message says what is wrong, where, and how to mend it.

    A command in it, written as tools/NAME.py, is named as the user types it.

    Attributes:
        status: exit status of a command line that ends with it.
        quiet: another process says it; None where nothing is known of others.
    """

    status = 2
    quiet: bool | None = None

    def __init__(self, message: str) -> None:
        super().__init__(as_typed(message))


class ArchitectureError(UserError, ValueError):
    """An unknown network, or a keyword that this network does not take."""


class WeightsError(UserError, ValueError):
    """A weights file that cannot be read, is not safe to read, or does not fit the network."""


class ExportError(UserError, ValueError):
    """A network that cannot be exported as asked, or a file that does not compute what the network computes."""


class ConfigError(UserError, ValueError):
    """A config file, key or value that is wrong."""


class DataError(UserError, ValueError):
    """A data set that is missing, broken or inconsistent."""


class ImageSizeError(DataError):
    """An image of another size than the one that its annotations were made for."""


class RunError(UserError, RuntimeError):
    """A run folder, a checkpoint or a device that cannot be used as asked."""


class ProcessError(RunError):
    """A process of the run was killed or cannot be reached. No mistake of the user's: --resume goes on."""

    status = 1


class PeerError(ProcessError):
    """Another process of the run is gone. What ended it is known there."""
