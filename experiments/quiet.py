"""Avalanche's warnings about its own deprecated calls, left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_avalanche() -> Iterator[None]:
    """Drop "Call to deprecated …" within the block; other warnings are given when it ends.

    Avalanche 0.6 calls its own deprecated functions after every experience, and sets a filter each time
    that overrides the user's.
    """
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if "Call to deprecated" not in str(warning.message):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno, source=warning.source
            )
