"""The OpenAPI document held against the service it describes: each answer is one that the document allows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS, CheckFunction, load_all_checks
from schemathesis.generation import GenerationMode

from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.vector import FEATURE_SERVICE, columns
from monitoring.processes import Platform, at_free_ports
from tests import tiny_model

EXAMPLES = 60
"""Of each operation and mode: a few seconds each."""

BENTOMLS_OWN = {"/healthz", "/livez", "/readyz", "/metrics"}
"""Described by BentoML, which answers them itself."""

load_all_checks()
ALWAYS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
REJECTED = "negative_data_rejection"
GOOD = {"POST /predict": 200, "POST /predict_batch": 200, "GET /model": 200, "POST /feedback": 202}
"""What made-up requests must get at least once; a made-up payment has no decision on record to ask for."""

ANSWERED_ITEM_BY_ITEM = "/predict_batch"
"""A payment that breaks the schema has its error in its place of a 200, and fails no other."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[str]:
    """A service that takes payments of any instant, since the document's schema knows no clock."""
    ages: dict[str, Any] = {"max_age": None, "max_future": timedelta(days=365 * 9_000)}
    current = at_free_ports(
        Settings(home=tmp_path_factory.mktemp("home"), feature_budget=5.0, model_name="described")
    ).model_copy(update={"mlflow_url": mlflow_server, **ages})
    with Platform(current) as running:
        running.start("redis")
        store = apply(current)
        promised = tiny_model.contract(columns(store.get_feature_service(FEATURE_SERVICE)))
        tiny_model.register(mlflow_server, current.model_name, promised)
        running.start("service")
        yield running.running["service"].url


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/docs.json").json()
    return found


def operations(document: dict[str, Any]) -> list[Any]:
    """What the lane answers."""
    found = [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]
    return [each for each in found if each.path not in BENTOMLS_OWN]


def checks(operation: Any, mode: GenerationMode) -> list[CheckFunction]:
    rejects = mode is GenerationMode.NEGATIVE and operation.path != ANSWERED_ITEM_BY_ITEM
    wanted = (*ALWAYS, REJECTED) if rejects else ALWAYS
    return [each for each in CHECKS.get_all() if each.__name__ in wanted]


def test_every_operation_of_the_service_is_described(document: dict[str, Any]):
    described = {(each.method.upper(), each.path) for each in operations(document)}
    assert described >= {("POST", "/predict"), ("POST", "/predict_batch"), ("GET", "/model")}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_each_answer_to_a_request_is_one_the_document_allows(url: str, document: dict[str, Any], mode: GenerationMode):
    statuses: dict[str, set[int]] = {}
    for operation in operations(document):
        if mode is GenerationMode.POSITIVE or can_break(operation):
            ask(operation, mode, url, statuses.setdefault(operation.label, set()))
    if mode is GenerationMode.POSITIVE:
        assert all(good in statuses[label] for label, good in GOOD.items()), statuses
    else:
        assert 422 in statuses["POST /predict"], statuses


def can_break(operation: Any) -> bool:
    """Whether the document says anything of its requests."""
    return bool(list(operation.body) or list(operation.path_parameters) or list(operation.query))


def ask(operation: Any, mode: GenerationMode, url: str, seen: set[int]) -> None:
    """Send examples of an operation's requests and hold each answer against the document."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        seen.add(case.call_and_validate(base_url=url, checks=checks(operation, mode)).status_code)

    one()


def test_what_is_shown_to_a_browser_is_the_document_and_nothing_of_another_host(url: str, document: dict[str, Any]):
    page = httpx.get(f"{url}/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert [each for each in named if not each.startswith(("./static_content/", "data:,"))] == []
    loaded = [httpx.get(f"{url}/{each}") for each in named if each.startswith("./")]
    assert {answer.status_code for answer in loaded} == {200}
    assert any('url: "./docs.json"' in answer.text for answer in loaded)
    assert json.loads(httpx.get(f"{url}/docs.json").content) == document
