"""Make JSON schemas of custom resources from the definitions that their projects publish, as kubeconform reads them.

    python -m tests.deploy.vendor_schemas CRD.yaml ...

writes tests/deploy/schemas/crds/<group>/<kind>_<version>.json: of each served version its schema without descriptions,
and with unknown fields refused wherever the API server would drop them. README.md there says where they come from.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from feature_repo.settings import ROOT

FOLDER = ROOT / "tests" / "deploy" / "schemas" / "crds"
TOLD = ("description", "example", "externalDocs", "title")
ENVELOPE = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


def strict(schema: Any, field: bool = False) -> Any:
    """The schema without words for readers. `field`: the keys are names of fields, which may be called like those."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if field:
        return {name: strict(one) for name, one in schema.items()}
    kept = {
        name: strict(value, field=name == "properties")
        for name, value in schema.items()
        if name not in TOLD and not name.startswith("x-kubernetes-")
    }
    if schema.get("x-kubernetes-int-or-string"):
        kept = {name: value for name, value in kept.items() if name not in ("type", "format", "anyOf", "pattern")}
        return kept | {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    closed = "properties" in kept and "additionalProperties" not in kept
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = False
    return kept


def of_definition(definition: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """The file of each served version, relative to the folder, with its schema."""
    spec, found = definition["spec"], {}
    for version in spec["versions"]:
        if version["served"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= ENVELOPE
            schema["properties"].pop("status", None)  # nobody writes that by hand
            name = f"{spec['names']['kind'].lower()}_{version['name']}.json"
            found[Path(spec["group"]) / name] = schema
    return found


def main() -> None:
    """Write the schemas of the definitions in the files named."""
    for path in sys.argv[1:]:
        for definition in yaml.safe_load_all(Path(path).read_text()):
            if definition and definition["kind"] == "CustomResourceDefinition":
                for name, schema in of_definition(definition).items():
                    (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
                    (FOLDER / name).write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")
                    print(name)


if __name__ == "__main__":
    main()
