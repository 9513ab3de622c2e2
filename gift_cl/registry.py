"""Things that are chosen by name: losses, codecs, distillers, models, label regimes.

A choice is written as a *spec*: a name, then options, as in ``webp:75``, ``rded:factor=2`` or
``kl:temperature=4,t2=true``. One option may stand without its name; it is the first parameter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Option = bool | int | float | str


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One thing that can be chosen.

    Args:
        name: What users type.
        factory: Called with the options of the spec.
        reference: Paper, or repository and commit, that defines it.
    """

    name: str
    factory: Callable[..., T]
    reference: str


class Registry(Generic[T]):
    """A dictionary of entries that names the known ones when it is asked for another.

    Args:
        kind: What the entries are, for messages: ``"loss"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def add(self, name: str, factory: Callable[..., T], *, reference: str) -> None:
        """Register an entry; a name that is taken raises ``ValueError``."""
        if name in self._entries:
            raise ValueError(f"The {self.kind} `{name}` is registered already.")
        self._entries[name] = Entry(name, factory, reference)

    def names(self) -> list[str]:
        """Names of all entries, in the order of registration."""
        return list(self._entries)

    def entry(self, spec: str) -> Entry[T]:
        """The entry that a spec names.

        Raises:
            ValueError: If there is none; the message lists the known names.
        """
        name = spec.partition(":")[0]
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise ValueError(f"Unknown {self.kind} `{name}`. Known: {known}.")
        return self._entries[name]

    def create(self, spec: str) -> T:
        """Build what a spec such as ``"kl:temperature=4,t2=true"`` describes.

        Raises:
            ValueError: If the name or an option is unknown, or an option has an unusable value.
        """
        entry = self.entry(spec)
        positional, named = parse_options(spec)
        signature = inspect.signature(entry.factory)
        try:
            signature.bind(*positional, **named)
        except TypeError as error:
            options = ", ".join(signature.parameters) or "none"
            raise ValueError(
                f"Bad options in {self.kind} `{spec}`: {error}. Options of `{entry.name}`: {options}."
            ) from None
        try:
            return entry.factory(*positional, **named)
        except TypeError as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"Bad option value in {self.kind} `{spec}`: {reason}.") from None


def parse_options(spec: str) -> tuple[list[Option], dict[str, Option]]:
    """Options of a spec: those without a name, and those with one.

    Raises:
        ValueError: If one is there twice.

    Example:
        >>> parse_options("kl:4,t2=true")
        ([4], {'t2': True})
    """
    positional: list[Option] = []
    named: dict[str, Option] = {}
    _, _, text = spec.partition(":")
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        if equals:
            if key.strip() in named:
                raise ValueError(f"Expected each option of `{spec}` once, got `{key.strip()}` twice.")
            named[key.strip()] = _option(value.strip())
        else:
            positional.append(_option(key))
    return positional, named


def _option(text: str) -> Option:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
