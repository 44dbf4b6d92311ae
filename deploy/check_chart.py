"""Check the Helm chart with the tools that read it: Helm itself renders and lints it, every object is held against the
schemas of Kubernetes and of the custom resources. Every complaint is printed; exit code 1 if any.

``python deploy/check_chart.py --write`` brings the settings in ``values.schema.json`` up to date. Helm 4 comes as a
library (``helm-python-sdk``: Helm's own Go code behind a C interface), so that no ``helm`` command is needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils

from workers.settings import SECRETS, Settings

DEPLOY = Path(__file__).resolve().parent
CHART = DEPLOY / "helm/latentmill"
CUSTOM = DEPLOY / "schemas/custom-resources.json"
KUBERNETES = ("1.29", "1.37")  # the oldest that Chart.yaml admits, and the newest that the schemas know
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "maxLength", "minLength", "pattern", "enum")

utils.schema_contents = cache(utils.schema_contents)  # else every object reads 2 MB of schemas


def settings_schema() -> dict[str, Any]:
    """The part of ``values.schema.json`` that describes ``settings``: what the product takes, less what moved."""
    known = Settings.model_json_schema()["properties"]
    moved = {path.removeprefix("settings.") for path in moved_values() if path.startswith("settings.")}
    return {
        "type": "object",
        "additionalProperties": False,
        # Names that the templates refuse with a sentence of their own.
        "patternProperties": {f"^(LATENTMILL_.*|{'|'.join(sorted(moved))})$": {}},
        "properties": {name: _value_schema(known[name]) for name in sorted(known.keys() - moved - set(SECRETS))},
    }


def _value_schema(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of one setting as a value of the chart; ``null`` is a value that is not set."""
    forms = [form for form in field.get("anyOf", [field]) if form.get("type") != "null"]
    found = {key: form[key] for form in forms for key in ("type", *_NUMBERS) if key in form}
    return {"description": field.get("description", ""), **found}


def moved_values() -> dict[str, str]:
    """Values that have moved: their former path, and what to do instead."""
    found: dict[str, str] = yaml.safe_load((CHART / "files/moved.yaml").read_text())
    return found


def write_schema() -> None:
    """Bring the settings in ``values.schema.json`` up to date."""
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text())
    schema["definitions"]["settings"] = settings_schema()
    path.write_text(json.dumps(schema, indent=2) + "\n")


def scenarios() -> dict[str, dict[str, Any]]:
    """The values that the chart is rendered with, by the name of their file in ``ci/``."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*.yaml"))}


def render(values: dict[str, Any], chart: Path = CHART) -> dict[str, list[dict[str, Any]]]:
    """The objects of a release ``mill`` in the namespace ``datasets``, by template. Raises ``HelmError``."""
    with helm_python.Chart.load(str(chart)) as loaded:
        loaded.validate_schema(values)
        texts = loaded.render(values, name="mill", namespace="datasets")
    return {
        path.rpartition("/")[2]: [found for found in yaml.safe_load_all(text) if found]
        for path, text in texts.items()
        if path.endswith(".yaml")
    }


def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    """All objects of a release with these values."""
    return [found for every in render(values).values() for found in every]


def complaints_about_object(found: dict[str, Any]) -> Iterator[str]:
    """What a cluster would refuse of one object."""
    name = f"{found['kind']} {found['metadata']['name']}"
    if found["apiVersion"].partition("/")[0] in ("keda.sh", "monitoring.coreos.com"):
        schema = json.loads(CUSTOM.read_text())[found["kind"]]
        for wrong in jsonschema.Draft202012Validator(schema).iter_errors(found):
            yield f"{name}: {wrong.json_path}: {wrong.message}"
        return
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(found, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as wrong:
            yield f"{name}: Kubernetes {version}: {'.'.join(map(str, getattr(wrong, 'path', ())))}: {wrong.message}"


def complaints(*names: str) -> list[str]:
    """Everything that is wrong with the chart, as the named scenarios show it; all of them by default."""
    found = []
    if json.loads((CHART / "values.schema.json").read_text())["definitions"]["settings"] != settings_schema():
        found.append(
            "values.schema.json has other settings than workers/settings.py: run deploy/check_chart.py --write"
        )
    for name, values in scenarios().items():
        if names and name not in names:
            continue
        try:
            report = helm_python.lint(str(CHART), values, strict=True, namespace="datasets")
            found += [
                f"{name}: lint: {each['path']}: {each['error']}" for each in report["messages"] if each["severity"] > 1
            ]
            rendered = objects(values)
        except (helm_python.HelmError, yaml.YAMLError) as wrong:
            found.append(f"{name}: {wrong}")
            continue
        found += [f"{name}: {said}" for each in rendered for said in complaints_about_object(each)]
    return found


def main() -> int:
    """Print the complaints."""
    if "--write" in sys.argv:
        write_schema()
    found = complaints()
    for complaint in found:
        sys.stderr.write(f"chart: {complaint}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
