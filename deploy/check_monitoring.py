"""Check the dashboard and the alert rules. Every complaint is printed; exit code 1 if any.

Their metrics and labels are those of the code, promtool reads and tests the rules and reads the queries of the
dashboard, and Grafana's own classes keep every field of the dashboard.

Without promtool (Debian: the package prometheus) its part is skipped with a word, but not in CI.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry, ProcessCollector

from workers.ledger.claims import PoolSnapshot
from workers.telemetry.gauges import PoolGauges, ProcessGauges
from workers.telemetry.prometheus_meter import PrometheusMeter

MONITORING = Path(__file__).resolve().parent / "monitoring"
SCHEDULER_GAUGES = ("scheduler_silent_seconds",)  # workers/cli/scheduler.py
_ADDED = {"namespace", "instance", "job", "pod"}  # labels that the scraper adds
_METRIC = re.compile(r"\b((?:latentmill|process)_[a-z_]+)(?:\{([^}]*)\})?")
_SAMPLES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
_VARIABLES = {"$__rate_interval": "5m", "$namespace": ".*"}


def known_metrics() -> dict[str, set[str]]:
    """Every series that workers and schedulers expose: its name, and its labels."""
    registry = CollectorRegistry()
    PrometheusMeter(registry)
    ProcessCollector(registry=registry)
    registry.register(PoolGauges(lambda: PoolSnapshot({}, 0, 0, 0, 0), 1.0))
    registry.register(ProcessGauges("worker", "0", {name: ("", lambda: 0.0) for name in SCHEDULER_GAUGES}))
    names = {f"{family.name}{end}" for family in registry.collect() for end in _SAMPLES[family.type]}
    labels: dict[str, set[str]] = {name: set() for name in names}
    for family in registry.collect():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    # A series without a first value has no sample to read its labels from.
    labels["latentmill_faults_total"].add("error")
    return labels


def queries(document: Any) -> Iterator[str]:
    """Every PromQL expression of rules or of a dashboard, at any depth."""
    if isinstance(document, dict):
        yield from (text for key, text in document.items() if key in ("expr", "query") and isinstance(text, str))
    for inner in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from queries(inner)


def complaints_about_names(name: str, document: Any) -> Iterator[str]:
    """Metrics and labels that the code does not have."""
    known = known_metrics()
    for query in queries(document):
        for metric, matchers in _METRIC.findall(query):
            if metric not in known:
                yield f"{name}: no metric of the code: {metric}"
                continue
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            yield from (f"{name}: {metric} has no label {label}" for label in sorted(labels - known[metric] - _ADDED))


def complaints_about_dashboard(document: dict[str, Any]) -> Iterator[str]:
    """Fields that Grafana does not know (its classes drop them), and panels that lie upon one another."""
    register_default_plugins()
    kept = json.loads(JSONEncoder().encode(Dashboard.from_json(document)))
    yield from (f"dashboard.json: Grafana does not know {path}" for path in lost_fields(document, kept))
    taken: dict[tuple[int, int], str] = {}
    for panel in document["panels"]:
        place, title = panel["gridPos"], panel["title"]
        for cell in [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]:
            if cell[0] >= 24 or cell in taken:
                yield f"dashboard.json: the panel {title!r} lies upon {taken.get(cell, 'the edge')!r}"
                break
            taken[cell] = title
    numbers = [panel["id"] for panel in document["panels"]]
    yield from ["dashboard.json: two panels have one id"] * (len(set(numbers)) < len(numbers))


def lost_fields(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Paths in ``given`` that are missing in ``kept`` or differ."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept and value is not None:
                yield f"{path}.{key}"
            elif key in kept:
                yield from lost_fields(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost_fields(one, other, f"{path}[{number}]")
    elif given != kept:
        yield path


def complaints_of_promtool(promtool: str, dashboard: dict[str, Any]) -> Iterator[str]:
    """What promtool says of the rules, of their tests, and of the queries of the dashboard."""
    with tempfile.TemporaryDirectory() as directory:
        rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(panel_queries(dashboard))]
        path = Path(directory) / "dashboard.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
        for arguments in (
            ["check", "rules", "rules.yaml"],
            ["test", "rules", "rules.test.yaml"],
            ["check", "rules", str(path)],
        ):
            done = subprocess.run([promtool, *arguments], cwd=MONITORING, capture_output=True, text=True)
            if done.returncode != 0:
                yield f"promtool {' '.join(arguments)}: {(done.stdout + done.stderr).strip()}"


def panel_queries(dashboard: dict[str, Any]) -> list[str]:
    """The queries of all panels, with Grafana's variables replaced; each once."""
    texts = dict.fromkeys(query for panel in dashboard["panels"] for query in queries(panel.get("targets", [])))
    for variable, value in _VARIABLES.items():
        texts = dict.fromkeys(text.replace(variable, value) for text in texts)
    return list(texts)


def complaints() -> list[str]:
    """Everything that is wrong with deploy/monitoring."""
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    found = [
        *complaints_about_names("rules.yaml", rules),
        *complaints_about_names("dashboard.json", dashboard),
        *complaints_about_dashboard(dashboard),
    ]
    if (promtool := shutil.which("promtool")) is not None:
        return [*found, *complaints_of_promtool(promtool, dashboard)]
    if os.environ.get("CI"):
        return [*found, "promtool is missing: install Debian's package prometheus"]
    sys.stderr.write("monitoring: promtool is not installed, so rules and queries are not read (Debian: prometheus)\n")
    return found


def main() -> int:
    """Print the complaints."""
    found = complaints()
    for complaint in found:
        sys.stderr.write(f"monitoring: {complaint}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
