"""How fast S3 is written and read by our store (boto3) and by obstore alone, in turns, and their ratio.

    python benchmarks/object_stores.py [--rounds 5] [--json FILE]

Both talk to one SeaweedFS on loopback, which takes processor time of the same machine. An operation is a conditional
write of a new object (``create``) or a read of a whole one (``get``), of 4 KiB (a receipt), 1 MiB and 16 MiB (a shard),
by one thread and by eight. obstore's column has neither checks of keys nor a content type: a store made of it would be
slower. The processor seconds of this process are counted apart. The median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
from arguments import output_file
from obstore.store import S3Store

sys.path.insert(0, str(Path(__file__).parents[1]))

from generator.store import open_store
from tests.support.servers import SeaweedServer

SIZES = {"4 KiB": (4 * 2**10, 160), "1 MiB": (2**20, 48), "16 MiB": (16 * 2**20, 8)}  # bytes, and objects a turn
Operation = Callable[[str, bytes], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=output_file)
    args = parser.parse_args()
    server = SeaweedServer()
    try:
        found = measure(server, args.rounds)
    finally:
        server.stop()
    print(f"{'operation':28}{'boto3/s':>10}{'obstore/s':>11}{'ratio':>7}{'boto3 CPU':>12}{'obstore CPU':>13}")
    for name, row in found.items():
        ratio = row["boto3"] / row["obstore"]
        cpu = f"{row['boto3 cpu'] * 1e3:9.2f} ms{row['obstore cpu'] * 1e3:10.2f} ms"
        print(f"{name:28}{row['boto3']:10.1f}{row['obstore']:11.1f}{ratio:7.2f}{cpu:>25}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


def measure(server: SeaweedServer, rounds: int) -> dict[str, dict[str, float]]:
    """Operations a second and processor seconds of one, by operation and client."""
    ours = open_store(server.make_bucket("bucket"), server.settings)
    theirs = S3Store(
        "bucket",
        endpoint=server.settings.endpoint_url,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region=server.region,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )
    creates: dict[str, Operation] = {
        "boto3": ours.create,
        "obstore": lambda key, data: obstore.put(theirs, key, data, mode="create", use_multipart=False),
    }
    gets: dict[str, Operation] = {
        "boto3": lambda key, _: ours.get(key),
        "obstore": lambda key, _: bytes(obstore.get(theirs, key).bytes()),
    }
    turns: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds):
        for size, (length, count) in SIZES.items():
            for threads in (1, 8):
                for client in creates:
                    keys = [f"{turn}/{client}/{threads}/{length}/{number}" for number in range(count)]
                    for word, operation in (("create", creates[client]), ("get", gets[client])):
                        name = f"{word}, {size}, {threads} thread{'s' * (threads > 1)}"
                        row = timed(operation, keys, bytes(length), threads)
                        turns.setdefault(f"{name}\n{client}", []).append(row)
    found: dict[str, dict[str, float]] = {}
    for label, rows in turns.items():
        name, _, client = label.partition("\n")
        row = found.setdefault(name, {})
        row[client] = statistics.median(each["rate"] for each in rows)
        row[f"{client} cpu"] = statistics.median(each["cpu"] for each in rows)
    return found


def timed(operation: Operation, keys: list[str], data: bytes, threads: int) -> dict[str, Any]:
    """Operations a second, and processor seconds of one."""
    with ThreadPoolExecutor(threads) as pool:
        clock, processor = time.perf_counter(), time.process_time()
        for _ in pool.map(lambda key: operation(key, data), keys):
            pass
        return {
            "rate": len(keys) / (time.perf_counter() - clock),
            "cpu": (time.process_time() - processor) / len(keys),
        }


if __name__ == "__main__":
    main()
