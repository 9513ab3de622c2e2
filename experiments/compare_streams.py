"""Memories side by side in streams: does a distilled one beat the best real one of the same bytes?

`python -m experiments.compare_streams --config experiments/configs/streams_digits.yaml` runs every memory at
every size in every class order, and writes `OUT/rows.jsonl`, `OUT/runs.csv` with a line for each run,
`OUT/table.md` and `OUT/accuracy.png`. Each distilled memory is compared with the best real one of its bytes,
and with the best real one of the same codec, labels and loss: mean difference over the class orders, with its
95 % interval.

A command that is started again goes on where it was stopped. Two processes share the work with `--shard 1/2`
and `--shard 2/2`; the last to finish writes the whole table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.class_incremental import run as run_stream
from experiments.class_incremental import run_name
from experiments.rows import FILE_NAME, Row, final_rows, read_rows
from experiments.stream_report import Result, sentence, write_report
from experiments.stream_settings import StreamsConfig, from_values, make_runs
from gift_cl.files import check_writable
from gift_cl.real_data import RealData

_FAILURES = (ValueError, ArithmeticError, RuntimeError, MemoryError)


def run(
    comparison: StreamsConfig,
    data: RealData | None = None,
    *,
    on_result: Callable[[Result], None] = lambda result: None,
    on_failure: Callable[[str], None] = lambda failure: None,
) -> list[Result]:
    """Do what is left of a comparison, and write its table and picture.

    Args:
        comparison: All of it.
        data: What ``comparison.stream.load()`` gives, when it has been loaded already.
        on_result: Told of each new result.
        on_failure: Told of each run that failed, and why. The others go on; it is tried again next time.

    Returns:
        The results that are there now, those of other shards too, in the order of the comparison.

    Raises:
        ValueError: If a setting does not fit the data or the others.
        OSError: If results cannot be written.
    """
    out = Path(comparison.out)
    check_writable(out / FILE_NAME)
    data = data or comparison.stream.load()
    chosen = comparison.stream.choose(data)
    runs = make_runs(comparison, num_classes=chosen.num_classes, image_shape=chosen.image_shape)
    done = _finished(out)
    number, count = comparison.shard_parts
    for one in runs[number - 1 :: count]:
        if run_name(one.config) in done:
            continue
        try:
            row = _total(run_stream(one.config, data))
        except _FAILURES as error:
            order = one.config.class_order_seed
            on_failure(f"IPC {one.ipc:g}, {one.memory.name}, class order {order}: failed. {error}")
        else:
            on_result(Result(memory=one.memory, ipc=one.ipc, row=row))
    done = _finished(out)
    names = [(one, run_name(one.config)) for one in runs]
    results = [Result(memory=o.memory, ipc=o.ipc, row=done[name]) for o, name in names if name in done]
    write_report(comparison, results, out)
    return results


def _finished(out: Path) -> dict[str, Row]:
    """`_total` of each finished run of a folder, by the name of the run."""
    if not (out / FILE_NAME).is_file():
        return {}
    runs: dict[str, list[Row]] = {}
    for row in read_rows([out]):
        runs.setdefault(row["run_id"], []).append(row)
    return {name: _total(rows) for name, rows in runs.items() if final_rows(rows)}


def _total(rows: Sequence[Row]) -> Row:
    """The row of a run's last experience, with the time of all of them."""
    return max(rows, key=lambda row: row["experience"]) | {
        "run_seconds": sum(row["seconds"] for row in rows),
        "run_distillation_seconds": sum(row["distillation_seconds"] for row in rows),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit code is 1 if a run failed, and 2 if nothing could be done."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="python -m experiments.compare_streams", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(StreamsConfig)
    values = parser.parse_args(arguments).as_dict()
    values.pop("config", None)
    failures: list[str] = []
    try:
        comparison = from_values(values)
        run(
            comparison,
            on_result=lambda result: print(sentence(result), flush=True),
            on_failure=failures.append,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{Path(comparison.out, 'table.md').read_text(encoding='utf-8')}")
    print(f"table and figure in {comparison.out}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
