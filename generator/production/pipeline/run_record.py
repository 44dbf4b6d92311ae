"""What one shard took, as it lies in ``runs/<lease>.json``. Imports no torch."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from generator.production.pipeline.stage_times import Stage
from generator.spec.recipe import MAX_SAMPLES, MAX_SHARDS

MAX_RUN_RECORD_BYTES = 64 * 1024

# Whoever may write beside the build may write anything here; sums of what is believed stay finite.
Seconds = Annotated[float, Field(ge=0.0, le=1e9)]
Size = Annotated[int, Field(ge=0, le=10**15)]


class RunRecord(BaseModel):
    """One shard, made and published under one lease.

    ``seconds`` are of the clock, added up over ``lanes`` that work side by side, and ``wait`` is when these stood idle;
    ``processor_seconds`` are of the threads that did the work. ``elapsed_seconds`` are from the first batch to the
    receipt, which ``ended`` is the moment of. ``bytes`` are of archive and table; ``peak_device_bytes`` is how much of
    the device's memory a batch took. ``process`` tells the worker processes apart, and nothing else of them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    shard: int = Field(ge=0, lt=MAX_SHARDS)
    samples: int = Field(ge=1, le=MAX_SAMPLES)
    refused: int = Field(ge=0, le=10**12)
    bytes: Size = 0
    ended: AwareDatetime | None = None
    elapsed_seconds: float = Field(gt=0.0, le=1e9)
    lanes: int = Field(default=1, ge=1, le=10_000)
    process: str = Field(default="", max_length=64)
    device: str = Field(default="", max_length=200)
    execution: str = Field(default="", max_length=40)
    peak_device_bytes: Size = 0
    seconds: dict[Stage, Seconds]
    processor_seconds: dict[Stage, Seconds] = Field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        return self.samples / self.elapsed_seconds

    @property
    def device_seconds(self) -> float:
        """Seconds of decoding, all lanes together."""
        return self.seconds.get("decode", 0.0)

    def facts(self) -> dict[str, Any]:
        """What is stored: these fields, and the two rates that people look for."""
        return self.model_dump(mode="json") | {
            "images_per_second": round(self.images_per_second, 2),
            "device_seconds_per_image": round(self.device_seconds / self.samples, 7),
        }


@cache
def process_token() -> str:
    """A name for this process that says nothing about the machine."""
    return secrets.token_hex(6)
