"""The tables of ``throughput.py``: every goal with what was measured, then each part."""

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
    """Put the tables of ``rows`` where they belong in ``page``."""
    write_tables(page, tables(rows), by="throughput.py")


def tables(rows: Rows) -> str:
    """All parts that were measured, as Markdown."""
    by_part = {part: [row for row in rows if row["part"] == part] for part in _PARTS}
    for row in by_part["s3"]:
        row["limit"] = _limit_of(by_part["line"], row)
    parts = [f"## {title}\n\n{make(by_part[part])}" for part, (title, make) in _PARTS.items() if by_part[part]]
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    head = f"Measured at {commits} on {machine()}. Medians of the rounds, least and most in brackets."
    return "\n\n".join([head, *parts])


def machine() -> str:
    """This machine in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{len(models) or 'some'} x {name} ({kind}), Python {platform.python_version()}, torch {torch.__version__}"


def _line(rows: Rows) -> str:
    def told(of: Rows) -> list[str]:
        first = of[0]
        return [
            f"{first['size']}",
            first["form"],
            first["execution"],
            _spread([row["decode_rate"] for row in of], "{:,.0f}"),
            f"{median(row['limit'] for row in of):,.0f}",
            _spread([row["whole_rate"] for row in of], "{:,.0f}"),
            _spread([row["share_of_limit"] for row in of]),
            _spread([row["share_of_decoding"] for row in of]),
            f"{median(row['cores_busy'] for row in of):.2f}",
        ]

    groups = _grouped(rows, "size", "form", "execution")
    rates = _table(
        "size|format|decoder|decoding alone, images/s|limit, images/s|the whole, images/s|share of the limit"
        "|share of decoding alone|cores busy",
        map(told, groups),
    )

    def stages(of: Rows) -> list[str]:
        first = of[0]
        alone = {stage: 1e6 * median(row["alone"][stage] for row in of) for stage in first["alone"]}
        shares = {stage: median(row["share"][stage] for row in of) for stage in first["share"]}
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

    def told(name: str) -> list[str]:
        rate = median(rates[name])
        return [name, _spread(rates[name], "{:,.0f}"), *(f"{mine / rate:.2f}" for mine in ours.values())]

    names = sorted(rates, key=lambda name: median(rates[name]))
    return _table(f"who|images/s|{'|'.join(f'{name}, over it' for name in ours)}", map(told, names))


def _s3(rows: Rows) -> str:
    def told(of: Rows) -> list[str]:
        local = [row["local"]["images"] / row["local"]["seconds"] for row in of]
        remote = [row["s3"]["images"] / row["s3"]["seconds"] for row in of]
        freed = [_without_server(row["s3"]) for row in of]
        return [
            f"{of[0]['size']}",
            {"never": "eager", "always": "compiled"}[of[0]["compiled"]],
            _spread(local, "{:,.0f}"),
            _spread(remote, "{:,.0f}"),
            f"{median(1e6 * row['s3']['server_seconds'] / row['s3']['images'] for row in of):.0f}",
            _spread(freed, "{:,.0f}"),
            _spread([mine / theirs for mine, theirs in zip(freed, local, strict=True)]),
            "" if of[0]["limit"] is None else _spread([rate / of[0]["limit"] for rate in freed]),
        ]

    return _table(
        "size|decoder|local, images/s|S3, images/s|the server's own, µs of a core an image|S3 without that, images/s"
        "|over local|share of the limit",
        map(told, _grouped(rows, "size", "compiled")),
    )


def _limit_of(lines: Rows, row: dict[str, Any]) -> float | None:
    """The limit that was measured for the same images in one process, JPEG as these are."""
    execution = {"never": "eager", "always": "compiled"}[row["compiled"]]
    same = [
        line for line in lines if (line["size"], line["form"], line["execution"]) == (row["size"], "jpeg", execution)
    ]
    return median(line["limit"] for line in same) if same else None


def _without_server(row: dict[str, Any]) -> float:
    """Images a second of the time that the server's processor seconds, spread over all cores, leave."""
    return float(row["images"] / (row["seconds"] - row["server_seconds"] / row["cores"]))


def _pool(rows: Rows) -> str:
    ways = [name for name in rows[0] if " x " in name]

    def told(of: Rows) -> list[str]:
        return [
            {"never": "eager", "always": "compiled"}[of[0]["compiled"]],
            _spread([row["in one process"] for row in of], "{:,.0f}"),
            *(_spread([row[way] for row in of], "{:,.0f}") for way in ways),
            *(_spread([row[way] / row["in one process"] for row in of]) for way in ways),
        ]

    names = [f"{workers} worker(s) of {each}" for workers, each in (way.split(" x ") for way in ways)]
    ratios = [f"{name}, over one process" for name in names]
    columns = "|".join(["decoder", "in one process, images/s", *names, *ratios])
    return _table(columns, map(told, _grouped(rows, "compiled")))


def _growth(rows: Rows) -> str:
    first = rows[0]

    def told(row: dict[str, Any]) -> list[str]:
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
        map(told, rows),
    )


def _starting(rows: Rows) -> str:
    def told(of: Rows) -> list[str]:
        return [of[0]["what"], _spread([row["seconds"] for row in of], "{:.2f}"), f"{len(of)}"]

    return _table("what|seconds|times", map(told, _grouped(rows, "what")))


def _encoders(rows: Rows) -> str:
    sizes = sorted({row["size"] for row in rows})
    names = sorted(rows[0]["microseconds"])

    def told(name: str) -> list[str]:
        costs = ([row["microseconds"][name] for row in rows if row["size"] == size] for size in sizes)
        return [name, *(f"{min(cost):,.0f}" for cost in costs)]

    return _table(f"encoder|{'|'.join(f'{size} px, µs' for size in sizes)}", map(told, names))


def _grouped(rows: Rows, *keys: str) -> list[Rows]:
    """Rows that agree in ``keys``, in the order of their first one."""
    groups = dict[tuple[Any, ...], Rows]()
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


def _spread(values: list[float], form: str = "{:.2f}") -> str:
    told = [form.format(value) for value in (median(values), min(values), max(values))]
    return told[0] if len(values) < 2 else f"{told[0]} ({told[1]} to {told[2]})"


def _table(head: str, rows: Iterable[list[str]]) -> str:
    columns = head.split("|")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


_PARTS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "line": ("One process, into a local directory", _line),
    "peers": ("Beside the peers", _peers),
    "s3": ("Into S3 over HTTP", _s3),
    "pool": ("Through the pool", _pool),
    "growth": ("From ten thousand images to a million", _growth),
    "starting": ("Waiting for the first image", _starting),
    "encoders": ("Encoders, one thread", _encoders),
}
