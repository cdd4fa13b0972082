"""The API reference as Markdown, from an OpenAPI 3.1 document. Pure: the document comes in, the page goes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

RULES = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matches `{}`",
    "exclusiveMinimum": "> {:,}",
    "minimum": "≥ {:,}",
    "maximum": "≤ {:,}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "format": "`{}`",
    "default": "default `{}`",
}
"""How a constraint of JSON Schema is told; what is not here is refused, so that no rule is left out in silence."""

SAID_ELSEWHERE = {
    "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "examples", "items", "properties",
    "propertyNames", "required", "title", "type",
}  # fmt: skip
"""What the table's other columns tell, or what only programs need."""

HEAD = """# API reference

Made at build time of the OpenAPI document that the service itself gives at `/docs.json`. A tour with real answers is in
[api.md](../api.md); what stands behind an answer in [serving.md](../serving.md).
"""


class UnknownRule(ValueError):
    """A schema has a constraint that this page has no words for."""


def page(document: Schema) -> str:
    """The reference: each operation with what it reads and answers, then each schema with its fields."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    decides = [each for each in operations if "Infrastructure" not in each[2]["tags"]]
    probes = [each for each in operations if "Infrastructure" in each[2]["tags"]]
    parts = [HEAD, "## Operations", *(_operation(*each) for each in decides), "## Probes and metrics", _probes(probes)]
    parts += ["## Schemas", *(_schema(name, each) for name, each in document["components"]["schemas"].items())]
    return "\n\n".join(parts) + "\n"


def _operation(method: str, path: str, operation: Schema) -> str:
    lines = [f"### {method} {path}", f"{operation['description'].rstrip('.')}."]
    lines += [
        f"`{each['name']}` in the {each['in']}: {_kind(each['schema'])}." for each in operation.get("parameters", ())
    ]
    if body := operation.get("requestBody"):
        lines.append(f"Body: {_content(body)}.")
    rows = [f"| {code} | {each['description']} | {_content(each)} |" for code, each in operation["responses"].items()]
    lines.append("\n".join(["| status | when | body |", "|---|---|---|", *rows]))
    return "\n\n".join(lines)


def _probes(operations: list[tuple[str, str, Schema]]) -> str:
    rows = [f"| `{method} {path}` | {' '.join(each['description'].split())} |" for method, path, each in operations]
    return "\n".join(["BentoML's own description of them; none asks for a key.", "", "| | |", "|---|---|", *rows])


def _content(part: Schema) -> str:
    return _kind(part["content"]["application/json"]["schema"]) if "content" in part else ""


def _schema(name: str, schema: Schema) -> str:
    lines = [f"### {name}", " ".join(schema.get("description", "").split())]
    if "properties" not in schema:
        return "\n\n".join([*lines, _kind(schema)])
    required = schema.get("required", [])
    rows = [
        f"| `{field}` | {_kind(each)} | {'yes' if field in required else ''} | {_told(each)} |"
        for field, each in schema["properties"].items()
    ]
    table = "\n".join(["| field | type | always | rule and meaning |", "|---|---|---|---|", *rows])
    return "\n\n".join([*lines, table])


def _kind(schema: Schema) -> str:
    """The type in words; a schema of its own is a link."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = str(schema.get("type", "anything"))
    if kind == "array" and "items" in schema:
        return f"list of {_kind(schema['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return kind


def _told(schema: Schema) -> str:
    rules = [rule for each in (schema, *schema.get("anyOf", ())) for rule in _rules(each)]
    meanings = [each["description"] for each in (schema, *schema.get("anyOf", ())) if "description" in each]
    examples = [f"as in `{schema['examples'][0]}`"] if schema.get("examples") else []
    told = [*rules, *(" ".join(each.split()).rstrip(".") for each in meanings), *examples]
    return "; ".join(told).replace("|", "\\|")


def _rules(schema: Schema) -> Iterator[str]:
    for name, value in schema.items():
        if name in RULES:
            if name != "default" or value is not None:
                yield RULES[name].format(value)
        elif name not in SAID_ELSEWHERE:
            raise UnknownRule(f"OpenAPI schema has {name!r} = {value!r}; add words for it to {__name__}.RULES.")
