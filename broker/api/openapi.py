"""
The OpenAPI 3.1 document of the HTTP dialect, made from the table of verbs.

    python -m broker.api.openapi > docs/openapi.json

What can be asked and what is answered is taken from the types that the server
itself decodes and encodes with, so the document cannot promise what the server
does not know. It refuses to be served: who can reach the socket has the docs.
"""

import inspect
import json
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

import broker
from backends.base import Secret
from broker.api.audit_messages import Metrics
from broker.api.encode import FailureBody
from broker.api.examples import EXAMPLES
from broker.api.messages import LeaseChanged, Watching
from broker.api.verbs import ADMIN, Verb
from broker.errors import MEANINGS, BrokerError, ConfigError

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_WITH_BODY: Final = frozenset({"POST", "PUT"})

_OF_HTTP: Final[Mapping[int, str]] = {
    405: "There is something at this path, for the methods in `Allow`.",
    413: "The body is longer than `[limits] message_bytes`.",
    415: "The body is compressed, or says that it is something other than JSON.",
    417: "`Expect` asks for something other than `100-continue`.",
}
"""Statuses that are HTTP's own; their code is ``invalid_request``."""

_INTRODUCTION: Final = """\
The verbs of the broker, over a Unix socket: `broker.sock` for workloads, `admin.sock` for admins, which knows both.

    curl --unix-socket /run/mcp-broker/broker.sock -X POST http://broker/v1/secrets/github/issue

Who asks is known from the kernel; there are no credentials to send, and a socket that is connected is a bearer token of
the process that connected it. The host in the URL is `localhost`, `broker`, `mcp-broker` or an address of the loopback.
Requests from browsers (`Origin`, `Sec-Fetch-Site`) and for other hosts are refused. A path that is not here gets a 404.
docs/socket.md has the rest, and the same verbs as JSON-RPC.
"""


def document(verbs: Mapping[str, Verb] = ADMIN) -> Json:
    """Return the document for the verbs that HTTP knows."""
    spoken = [verb for verb in verbs.values() if verb.http is not None]
    types: list[type[msgspec.Struct]] = [FailureBody, LeaseChanged]
    types += [kind for verb in spoken for kind in (verb.params, verb.result)]
    _, schemas = msgspec.json.schema_components(types, schema_hook=_schema_of, ref_template=_REF)
    paths: dict[str, Json] = {}
    for verb in spoken:
        method, path = verb.http or ("", "")
        paths.setdefault(path, {})[method.lower()] = _operation(verb, schemas)
    unused = {verb.params.__name__ for verb in spoken}
    found: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "mcp-secrets-broker",
            "version": broker.__version__,
            "summary": "Short-lived credentials for MCP servers",
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://broker", "description": "The socket is given to the client apart."}],
        "tags": [
            {"name": "workload", "description": "On `broker.sock` and `admin.sock`."},
            {"name": "admin", "description": "On `admin.sock`."},
        ],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in sorted(schemas.items()) if name not in unused},
            "responses": {str(status): _failure(status) for status in _statuses()},
        },
    }
    _say_in_markdown(found)
    return found


def _say_in_markdown(part: object) -> None:
    """Turn the quotes of docstrings into those of CommonMark, which OpenAPI's descriptions are in."""
    match part:
        case dict():
            if isinstance(said := part.get("description"), str):
                part["description"] = said.replace("``", "`")
            for each in part.values():
                _say_in_markdown(each)
        case list():
            for each in part:
                _say_in_markdown(each)
        case _:
            pass


def _schema_of(kind: type) -> Json:
    if kind is Secret:
        return {"type": "string", "format": "password", "readOnly": True}
    raise NotImplementedError


def _operation(verb: Verb, schemas: Mapping[str, Json]) -> Json:
    """Return one method of one path."""
    method, path = verb.http or ("", "")
    schema, example = schemas[verb.params.__name__], EXAMPLES[verb.name]
    summary, _, description = inspect.cleandoc(verb.call.__doc__ or "").partition("\n")
    more = inspect.cleandoc(verb.params.__doc__ or "").partition("\n")[2]
    in_path = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    elsewhere = {name: kind for name, kind in schema["properties"].items() if name not in in_path}
    found: Json = {
        "operationId": verb.name.replace("/", "_"),
        "tags": ["admin" if verb.admin else "workload"],
        "summary": summary.rstrip("."),
        "description": "\n\n".join(filter(None, (description.strip(), more.strip()))) or summary,
        "parameters": [_parameter(name, "path", schema["properties"][name], example.params) for name in in_path],
        "responses": {"200": _success(verb), **_failures(verb)},
    }
    if method in _WITH_BODY:
        found["requestBody"] = _body(elsewhere, schema, {k: v for k, v in example.params.items() if k in elsewhere})
    else:
        found["parameters"] += [_parameter(name, "query", kind, example.params) for name, kind in elsewhere.items()]
    return found


def _parameter(name: str, place: str, kind: Json, example: Mapping[str, Any]) -> Json:
    """Return one parameter of a path or a query; nothing there can be null, so that is left out of its type."""
    some = [each for each in kind.get("anyOf", []) if each != {"type": "null"}]
    if some:
        kind = some[0] if len(some) == 1 else {"anyOf": some}
    kind = {key: value for key, value in kind.items() if key != "default" or value is not None}
    shown = {"example": example[name]} if name in example else {}
    return {"name": name, "in": place, "required": place == "path", "schema": kind, **shown}


def _body(properties: Mapping[str, Json], schema: Json, example: Mapping[str, Any]) -> Json:
    """Return what a body holds: all parameters that do not stand in the path."""
    required = [name for name in schema["required"] if name in properties]
    content: Json = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if required:
        content["required"] = required
    return {
        "required": bool(required),
        "content": {"application/json": {"schema": content, "example": dict(example)}},
    }


def _success(verb: Verb) -> Json:
    description = inspect.cleandoc(verb.result.__doc__ or "").partition("\n")[0]
    if verb.result is Watching:
        stream = (
            "event: lease/watching\ndata: {leases}\n\n"
            'event: lease/changed\ndata: {{"accessor":"…","secret":"github","reason":"rotated"}}\n\n'
        )
        text = stream.format(leases=json.dumps(EXAMPLES[verb.name].result))
        what = (
            "Server-sent events until the client hangs up: first `lease/watching` with a `Watching`, then "
            "`lease/changed` with a `LeaseChanged` each time; a comment after 15 seconds of silence."
        )
        return {"description": what, "content": {"text/event-stream": {"schema": {"type": "string"}, "example": text}}}
    if verb.result is Metrics:
        example = EXAMPLES[verb.name].result["text"]
        return {
            "description": description,
            "content": {"text/plain": {"schema": {"type": "string"}, "example": example}},
        }
    schema = {"$ref": _REF.format(name=verb.result.__name__)}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": dict(EXAMPLES[verb.name].result)}},
    }


def _statuses() -> list[int]:
    return sorted({meaning.http for meaning in MEANINGS.values()} | set(_OF_HTTP))


def _failures(verb: Verb) -> Json:
    """Return every way in which a verb can fail; only a request with a body can fail for its body."""
    with_body = verb.http is not None and verb.http[0] in _WITH_BODY
    return {
        str(status): {"$ref": f"#/components/responses/{status}"}
        for status in _statuses()
        if status != HTTPStatus.METHOD_NOT_ALLOWED
        and (with_body or status not in _OF_HTTP)
        and (verb.admin or status != MEANINGS[ConfigError.code].http)
    }


def _failure(status: int) -> Json:
    """Return one response for all errors that have this status."""
    codes = {code for code, meaning in MEANINGS.items() if meaning.http == status} or {"invalid_request"}
    said = {code: (meanings or [_OF_HTTP.get(status, "")]) for code, meanings in _docstrings(codes, status).items()}
    return {
        "description": " ".join(f"`{code}`: {' '.join(lines)}" for code, lines in sorted(said.items())),
        "content": {
            "application/json": {
                "schema": {"$ref": _REF.format(name=FailureBody.__name__)},
                "examples": {
                    code: {"value": {"error": {"code": code, "message": lines[0].rstrip(".").lower()}}}
                    for code, lines in sorted(said.items())
                },
            }
        },
    }


def _docstrings(codes: set[str], status: int) -> dict[str, list[str]]:
    """Return what the errors with these codes mean, in the words of their classes."""
    if status in _OF_HTTP:
        return {code: [_OF_HTTP[status]] for code in codes}
    found: dict[str, list[str]] = {code: [] for code in sorted(codes)}
    for error in _all_errors(BrokerError):
        if error.code in found and (error is not BrokerError):
            found[error.code].append(inspect.cleandoc(error.__doc__ or "").partition("\n")[0])
    if "internal" in found:
        found["internal"].append("Something that nobody expected; the broker's log says where.")
    return found


def _all_errors(error: type[BrokerError]) -> list[type[BrokerError]]:
    """Return an error class and those below it that ``broker.errors`` defines."""
    below = [each for each in error.__subclasses__() if each.__module__ == error.__module__]
    return [error, *(deeper for each in below for deeper in _all_errors(each))]


def text() -> str:
    """Return the document as it is checked in."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
