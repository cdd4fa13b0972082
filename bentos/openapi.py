"""The OpenAPI document: BentoML's, corrected where the lane answers differently from BentoML's router.

Pure; every schema comes from the models that are read and sent, none is written here.
"""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from bentos.answers import Answer, BatchAnswer, DecisionRecord, ErrorBody, Explanation
from bentos.feedback import Feedback, FeedbackAnswer
from bentos.intake import Batch
from bentos.lineup_card import LineupCard
from feature_repo.schema import Transaction

REFERENCE = "#/components/schemas/{model}"

Model = type[BaseModel]

DECISIONS: dict[str, tuple[Model, Model]] = {
    "/predict": (Transaction, Answer),
    "/predict_batch": (Batch, BatchAnswer),
}
"""What each operation that decides reads and sends."""

RESOURCES: dict[str, tuple[str, str, Model]] = {
    "/model": ("model", "The models in service, their columns and thresholds, and what was refused", LineupCard),
    "/decisions/{transaction_id}": ("decision", "A decision on record: payment, features and answer", DecisionRecord),
    "/decisions/{transaction_id}/explanation": (
        "explanation",
        "Why a decision's score is what it is: the exact Shapley value of every column",
        Explanation,
    ),
}
"""What is told on GET: operation, description, answer."""

KEYED = {
    "401": "The API key is missing, unknown or expired",
    "403": "The API key lacks the scope",
    "429": "The API key is over its rate. See Retry-After",
}
"""Refusals of a service that asks for keys."""

BODIES = {
    "400": "The body is no JSON",
    "405": "Another method than POST",
    "413": "The body, or the batch, is too large",
    "415": "The body is not declared as JSON",
    "422": "JSON that breaks the schema; `problems` names each field, value and rule",
    "500": "The service failed; nothing was put on record",
    "503": "Neither the log's server nor the journal takes it; nothing was put on record. See Retry-After",
}
"""Refusals of whatever has a body."""

TAG = "Decisions"
SUMMARIES = {
    "/predict": "Decide one payment",
    "/predict_batch": "Decide up to 1,000 payments",
    "/feedback": "State what became known of a payment",
    "/model": "The models in service",
    "/decisions/{transaction_id}": "A decision on record",
    "/decisions/{transaction_id}/explanation": "Why it was decided so",
}

CONFLICT = {"409": "The transaction_id is another payment's"}


def amended(document: dict[str, Any], description: str) -> dict[str, Any]:
    """BentoML's document with exact schemas, the lane's refusals and its other routes; the given one is left as it is.

    BentoML flattens schemas and loses which fields may be null on the way.
    """
    document = copy.deepcopy(document)
    document["openapi"] = "3.1.0"  # pydantic writes JSON Schema 2020-12, which 3.0 is not
    built = str(document["info"]["version"])  # BentoML writes the text "None" outside a Bento
    version = "development" if built == "None" else built
    document["info"] = {"title": "Tollgate", "version": version, "description": description}
    document["tags"] = [{"name": TAG, "description": "Payments in, decisions out; what was decided and why"}]
    for operations in document["paths"].values():  # BentoML's own, for probes and scrapers, need no key
        for operation in operations.values():
            operation["security"] = []
    keys = {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "Where FRAUD_API_KEYS is set"}
    document["components"] = {"schemas": _schemas(), "securitySchemes": {"key": keys}}
    document["security"] = [{}, {"key": []}]
    for path, (read, sent) in DECISIONS.items():
        operation = document["paths"][path]["post"]
        refusals = BODIES | KEYED | (CONFLICT if path == "/predict" else {})
        operation |= {"summary": SUMMARIES[path], "tags": [TAG]}
        del operation["security"]
        _set_body(operation, read, _response("The decision", sent), "200", refusals)
    tags = [TAG]
    feedback: dict[str, Any] = {
        "summary": SUMMARIES["/feedback"],
        "operationId": "tollgate__feedback",
        "tags": tags,
        "description": "State what became known of a payment",
    }
    unknown = {"404": "The payment was not decided here"}
    _set_body(feedback, Feedback, _response("On record", FeedbackAnswer), "202", BODIES | KEYED | unknown)
    document["paths"]["/feedback"] = {"post": feedback}
    for path in RESOURCES:
        document["paths"][path] = {"get": _told(path, tags)}
    return document


def _set_body(
    operation: dict[str, Any], read: Model, good: dict[str, Any], status: str, refusals: dict[str, str]
) -> None:
    operation["requestBody"] = {"required": True, "content": _content(read)}
    operation["responses"] = {status: good}
    operation["responses"] |= {code: _response(text, ErrorBody) for code, text in sorted(refusals.items())}


def _told(path: str, tags: list[str]) -> dict[str, Any]:
    name, description, sent = RESOURCES[path]
    operation: dict[str, Any] = {"operationId": f"tollgate__{name}", "tags": tags, "description": description}
    operation["summary"] = SUMMARIES[path]
    refusals = KEYED | {"405": "Another method than GET"}
    if "{" in path:
        schema = {"type": "string", "minLength": 1, "maxLength": 64}
        operation["parameters"] = [{"name": "transaction_id", "in": "path", "required": True, "schema": schema}]
        refusals |= {"404": "No such decision is on record", "503": "The decision log does not answer. See Retry-After"}
    operation["responses"] = {"200": _response(description, sent)}
    operation["responses"] |= {code: _response(text, ErrorBody) for code, text in sorted(refusals.items())}
    return operation


def _response(description: str, model: Model) -> dict[str, Any]:
    return {"description": description, "content": _content(model)}


def _content(model: Model) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for read, sent in DECISIONS.values():
        _add(schemas, read, "validation")
        _add(schemas, sent, "serialization")
    _add(schemas, Feedback, "validation")
    told: list[Model] = [FeedbackAnswer, ErrorBody, *(sent for _, _, sent in RESOURCES.values())]
    for model in told:
        _add(schemas, model, "serialization")
    return schemas


def _add(schemas: dict[str, Any], model: Model, mode: JsonSchemaMode) -> None:
    schema = model.model_json_schema(ref_template=REFERENCE, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
