"""Parts of a piece of work that several processes share."""

from __future__ import annotations


def parse_shard(shard: str) -> tuple[int, int]:
    """Number of a shard, from 1 on, and of all shards.

    Raises:
        ValueError: If it is not one.

    Example:
        >>> parse_shard("2/3")
        (2, 3)
    """
    number, slash, count = shard.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise ValueError(f"Expected `shard` as 1/2 and 2/2 of two processes, got `{shard}`.")
