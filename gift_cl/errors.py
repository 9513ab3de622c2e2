"""What is raised when files of others cannot be used; each message names the file and the cure."""

from __future__ import annotations


class ReadError(ValueError):
    """A file or folder cannot be used. Readers raise nothing else, but for what the system says of a path."""


class LayoutError(ReadError):
    """Files are not laid out as their format asks: classes are missing, or parts do not fit together."""


class DamagedFileError(ReadError):
    """A file is not what it says it is: cut short, changed, or of another kind."""


class UnsafeFileError(ReadError):
    """A file was not opened: it would run code, leave its folder, or take more memory than it may."""
