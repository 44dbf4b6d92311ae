"""Writes the tables of ``throughput.py``, one section per part."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from page_tables import write_tables

_STAGES = ("latents", "decode", "screen", "encode", "write", "upload", "wait")
Rows = list[dict[str, Any]]


def write(page: Path, rows: Rows) -> None:
    """Write the tables of ``rows`` between the marks of ``page``."""
    write_tables(page, tables(rows), by="throughput.py")


def tables(rows: Rows) -> str:
    """The tables of all measured parts, as Markdown."""
    by_part = {part: [row for row in rows if row["part"] == part] for part in _PARTS}
    for row in by_part["s3"]:
        row["limit"] = _limit_of(by_part["line"], row)
    parts = [f"## {title}\n\n{make(by_part[part])}" for part, (title, make) in _PARTS.items() if by_part[part]]
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    head = f"Measured at {commits} on {machine()}. Medians of the rounds, least and most in brackets."
    return "\n\n".join([head, *parts])


def machine() -> str:
    """A description of this machine: processor, Python and torch versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{len(models) or 'some'} x {name} ({kind}), Python {platform.python_version()}, torch {torch.__version__}"


def _single_process(rows: Rows) -> str:
    def cells(group: Rows) -> list[str]:
        first = group[0]
        return [
            f"{first['size']}",
            first["form"],
            first["execution"],
            _spread([row["decode_rate"] for row in group], "{:,.0f}"),
            f"{median(row['limit'] for row in group):,.0f}",
            _spread([row["whole_rate"] for row in group], "{:,.0f}"),
            _spread([row["share_of_limit"] for row in group]),
            _spread([row["share_of_decoding"] for row in group]),
            f"{median(row['cores_busy'] for row in group):.2f}",
        ]

    groups = _grouped(rows, "size", "form", "execution")
    rates = _table(
        "size|format|decoder|decoding alone, images/s|limit, images/s|the whole, images/s|share of the limit"
        "|share of decoding alone|cores busy",
        map(cells, groups),
    )

    def stages(group: Rows) -> list[str]:
        first = group[0]
        alone = {stage: 1e6 * median(row["alone"][stage] for row in group) for stage in first["alone"]}
        shares = {stage: median(row["share"][stage] for row in group) for stage in first["share"]}
        return [
            f"{first['size']}",
            first["form"],
            first["execution"],
            *(f"{alone.get(stage, 0.0):.1f} ({shares.get(stage, 0.0):.1f}%)" for stage in _STAGES[:-1]),
            f"({shares.get('wait', 0.0):.1f}%)",
        ]

    where = _table(f"size|format|decoder|{'|'.join(_STAGES)}", map(stages, groups))
    return (
        f"{rates}\n\nWhere the time goes: microseconds of a core for an image in each stage by itself, and in brackets"
        f"\nits share of the time of the whole.\n\n{where}"
    )


def _peers(rows: Rows) -> str:
    rates = dict[str, list[float]]()
    for row in rows:
        for name, rate in row["rates"].items():
            rates.setdefault(name, []).append(rate)
    ours = {name: median(found) for name, found in rates.items() if name.startswith("latentmill")}

    def cells(name: str) -> list[str]:
        rate = median(rates[name])
        return [name, _spread(rates[name], "{:,.0f}"), *(f"{own / rate:.2f}" for own in ours.values())]

    names = sorted(rates, key=lambda name: median(rates[name]))
    return _table(f"who|images/s|{'|'.join(f'{name}, over it' for name in ours)}", map(cells, names))


def _s3(rows: Rows) -> str:
    def cells(group: Rows) -> list[str]:
        local = [row["local"]["images"] / row["local"]["seconds"] for row in group]
        remote = [row["s3"]["images"] / row["s3"]["seconds"] for row in group]
        without_server = [_without_server(row["s3"]) for row in group]
        return [
            f"{group[0]['size']}",
            {"never": "eager", "always": "compiled"}[group[0]["compiled"]],
            _spread(local, "{:,.0f}"),
            _spread(remote, "{:,.0f}"),
            f"{median(1e6 * row['s3']['server_seconds'] / row['s3']['images'] for row in group):.0f}",
            _spread(without_server, "{:,.0f}"),
            _spread([own / other for own, other in zip(without_server, local, strict=True)]),
            "" if group[0]["limit"] is None else _spread([rate / group[0]["limit"] for rate in without_server]),
        ]

    return _table(
        "size|decoder|local, images/s|S3, images/s|the server's own, µs of a core an image|S3 without that, images/s"
        "|over local|share of the limit",
        map(cells, _grouped(rows, "size", "compiled")),
    )


def _limit_of(lines: Rows, row: dict[str, Any]) -> float | None:
    """The limit measured in one process for the same size and compilation, JPEG."""
    execution = {"never": "eager", "always": "compiled"}[row["compiled"]]
    same = [
        line for line in lines if (line["size"], line["form"], line["execution"]) == (row["size"], "jpeg", execution)
    ]
    return median(line["limit"] for line in same) if same else None


def _without_server(row: dict[str, Any]) -> float:
    """Images per second, without the server's processor time (spread over all cores)."""
    return float(row["images"] / (row["seconds"] - row["server_seconds"] / row["cores"]))


def _pool(rows: Rows) -> str:
    pools = [name for name in rows[0] if " x " in name]

    def cells(group: Rows) -> list[str]:
        return [
            {"never": "eager", "always": "compiled"}[group[0]["compiled"]],
            _spread([row["in one process"] for row in group], "{:,.0f}"),
            *(_spread([row[pool] for row in group], "{:,.0f}") for pool in pools),
            *(_spread([row[pool] / row["in one process"] for row in group]) for pool in pools),
        ]

    names = [f"{workers} worker(s) of {each}" for workers, each in (pool.split(" x ") for pool in pools)]
    ratios = [f"{name}, over one process" for name in names]
    columns = "|".join(["decoder", "in one process, images/s", *names, *ratios])
    return _table(columns, map(cells, _grouped(rows, "compiled")))


def _growth(rows: Rows) -> str:
    first = rows[0]

    def cells(row: dict[str, Any]) -> list[str]:
        return [
            f"{row['images']:,}",
            f"{row['shards']:,}",
            f"{row['images_per_second']:,.0f}",
            f"{row['processor_us_per_image']:.1f}",
            f"{row['processor_us_per_image'] / first['processor_us_per_image']:.3f}",
            f"{row['peak_mib']:.0f}",
            f"{row['peak_mib'] / first['peak_mib']:.3f}",
        ]

    return _table(
        "images|shards|images/s|µs of a core an image|over the first|peak MiB of the largest process|over the first",
        map(cells, rows),
    )


def _starting(rows: Rows) -> str:
    def cells(group: Rows) -> list[str]:
        return [group[0]["what"], _spread([row["seconds"] for row in group], "{:.2f}"), f"{len(group)}"]

    return _table("what|seconds|times", map(cells, _grouped(rows, "what")))


def _encoders(rows: Rows) -> str:
    sizes = sorted({row["size"] for row in rows})
    names = sorted(rows[0]["microseconds"])

    def cells(name: str) -> list[str]:
        costs = ([row["microseconds"][name] for row in rows if row["size"] == size] for size in sizes)
        return [name, *(f"{min(cost):,.0f}" for cost in costs)]

    return _table(f"encoder|{'|'.join(f'{size} px, µs' for size in sizes)}", map(cells, names))


def _grouped(rows: Rows, *keys: str) -> list[Rows]:
    """Groups of rows that agree in ``keys``, in the order of their first rows."""
    groups = dict[tuple[Any, ...], Rows]()
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


def _spread(values: list[float], form: str = "{:.2f}") -> str:
    cells = [form.format(value) for value in (median(values), min(values), max(values))]
    return cells[0] if len(values) < 2 else f"{cells[0]} ({cells[1]} to {cells[2]})"


def _table(head: str, rows: Iterable[list[str]]) -> str:
    columns = head.split("|")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


_PARTS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "line": ("One process, into a local directory", _single_process),
    "peers": ("Beside the peers", _peers),
    "s3": ("Into S3 over HTTP", _s3),
    "pool": ("Through the pool", _pool),
    "growth": ("From ten thousand images to a million", _growth),
    "starting": ("Waiting for the first image", _starting),
    "encoders": ("Encoders, one thread", _encoders),
}
