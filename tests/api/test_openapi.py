"""
The OpenAPI document: current, true of itself, and true of a broker that runs.

schemathesis makes requests from the document, good ones and bad ones, and holds
every answer against it. Left out are ``stop``, which ends the broker, and the
watch, whose answer never ends; ``test_http`` has both.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from broker.api.examples import EXAMPLES
from broker.api.openapi import document, text
from broker.api.verbs import ADMIN, WORKLOAD, Verb
from broker.errors import MEANINGS
from tests import running
from tests.api import over_unix

CONFIG = """
[servers.gh]
command = ["true"]
env.GITHUB_TOKEN = "{github}"
allow = ["cache", "app-db"]

[limits]
requests_per_second = 0
leases = 0
"""

FEW = settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def schema_of(verbs: Mapping[str, Verb]) -> BaseSchema:
    """Return what schemathesis tries, without what cannot be tried."""
    whole = schemathesis.openapi.from_dict(document(verbs))
    return whole.exclude(operation_id=["stop", "lease_watch"])


ON_BROKER = schema_of(WORKLOAD)
ON_ADMIN = schema_of(ADMIN)


Case = schemathesis.Case[Any]


@pytest.fixture(scope="module")
def broker() -> Iterator[running.RunningBroker]:
    """Give a broker that holds three secrets."""
    held: dict[str, str | Mapping[str, str]] = {"github": "made up", "cache": "made up"}
    held["app-db"] = {"username": "app", "password": "made up"}
    with running.room() as directory, running.start(directory, config=CONFIG, secrets=held) as started:
        yield started


def hold(case: Case, socket: Path) -> None:
    """Send one case and hold the answer against the document, by every check that is not about what exists."""
    with over_unix.session(socket) as session:
        case.call_and_validate(
            base_url="http://broker",
            session=session,
            excluded_checks=[positive_data_acceptance],  # a name that fits the pattern may be the name of nothing
        )


@ON_BROKER.parametrize()
@FEW
def test_broker_sock_does_what_the_document_says(case: Case, broker: running.RunningBroker) -> None:
    """Every answer of ``broker.sock`` to good and bad requests is one that the document has."""
    hold(case, broker.places.broker_socket)


@ON_ADMIN.parametrize()
@FEW
def test_admin_sock_does_what_the_document_says(case: Case, broker: running.RunningBroker) -> None:
    """Every answer of ``admin.sock`` to good and bad requests is one that the document has."""
    hold(case, broker.places.admin_socket)


def test_the_document_that_is_checked_in_is_current(root: Path) -> None:
    """``docs/openapi.json`` is what the verbs say today."""
    assert text() == (root / "docs" / "openapi.json").read_text("utf-8")


def test_every_verb_of_http_is_in_the_document() -> None:
    """The document has the method and path of each verb that has one, and no other."""
    said = {(method.upper(), path) for path, item in document()["paths"].items() for method in item}
    assert {verb.http for verb in ADMIN.values() if verb.http is not None} == said


@pytest.mark.parametrize("name", ADMIN)
def test_the_example_of_a_request_is_one(name: str) -> None:
    """The verb reads its example."""
    verb = ADMIN[name]
    assert isinstance(verb.decode(msgspec.json.encode(EXAMPLES[name].params)), verb.params)


@pytest.mark.parametrize("name", ADMIN)
def test_the_example_of_an_answer_has_all_that_an_answer_has(name: str) -> None:
    """The example of an answer has the fields of the verb's result, no more and no fewer."""
    fields = {field.encode_name for field in msgspec.structs.fields(ADMIN[name].result)}
    assert fields == set(EXAMPLES[name].result)


def test_every_code_is_in_the_document() -> None:
    """Each code that an error can have stands in one of the responses."""
    responses = document()["components"]["responses"].values()
    said = {code for each in responses for code in each["content"]["application/json"]["examples"]}
    assert set(MEANINGS) == said


def test_values_are_marked_as_passwords() -> None:
    """Whatever holds the value of a secret says so, on its way in and on its way out."""
    schemas, paths = document()["components"]["schemas"], document()["paths"]
    out = schemas["Issued"]["properties"]["values"]["additionalProperties"]
    put = paths["/v1/admin/secrets/{name}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    into = put["properties"]["values"]["additionalProperties"]
    marks = [(kind["format"], kind.get("readOnly"), kind.get("writeOnly")) for kind in (out, into)]
    assert [("password", True, None), ("password", None, True)] == marks


def test_the_document_can_be_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """``python -m broker.api.openapi`` prints the document."""
    subprocess.run([sys.executable, "-m", "broker.api.openapi"], check=True, timeout=60)
    assert document() == json.loads(capfd.readouterr().out)
