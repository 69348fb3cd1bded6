"""The OpenAPI document, made from the table of endpoints: methods, paths, inputs, roles and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mrq_core import __version__
from mrq_dashboard.auth import SAFE_METHODS
from mrq_dashboard.endpoint import Endpoint

_VARIABLE = re.compile(r"\{(\w+)(?::\w+)?\}")
_PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["status", "message"],
            "properties": {
                "status": {"type": "integer"},
                "message": {"type": "string"},
                "path": {"type": "string", "description": "The input that is wrong."},
            },
        }
    },
}
_FAILURES = {
    "400": "An input is wrong.",
    "401": "The credentials are missing or wrong.",
    "403": "The role is too low, the host is foreign, or the request comes from a page of another site.",
    "404": "The thing does not exist.",
    "408": "The body did not come in time.",
    "409": "The state of the thing does not allow it.",
    "413": "The body is too large.",
    "414": "The address is too long.",
    "503": "The broker does not answer in time; `Retry-After` says when to ask again.",
}


_BEGUN = {
    "description": "The action has begun and goes on; the answer tells where to follow it.",
    "content": {"application/json": {"schema": {"type": "object"}}},
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A request with the key of an earlier one is not done again, and gets its answer.",
    "schema": {"type": "string", "pattern": "^[!-~]{8,200}$"},
}


def document(endpoints: Iterable[Endpoint], root: str) -> dict[str, Any]:
    """The document. `root`: the path at which the application is mounted."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        if endpoint.is_api:
            path = _VARIABLE.sub(r"{\1}", endpoint.path)
            paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mrq", "version": __version__, "description": "Jobs, queues and workers of mrq."},
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"basic": []}, {"bearer": []}],
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    doc = inspect.getdoc(endpoint.answer) or ""
    summary, _, more = doc.partition("\n\n")
    module = endpoint.answer.__module__.rpartition(".")[2]
    operation: dict[str, Any] = {
        "operationId": f"{module}.{endpoint.answer.__name__}",
        "tags": [module],
        "summary": " ".join(summary.split()),
        "description": f"{more}\n\nRole: {endpoint.role}.".strip(),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in _VARIABLE.findall(endpoint.path)
        ],
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {
                    kind: {"schema": {"type": "object"} if kind == "application/json" else {}}
                    for kind in endpoint.media_types
                },
            },
            **{
                status: {
                    "description": text,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, text in _FAILURES.items()
            },
        },
    }
    schema = _schema_of(endpoint.inputs)
    if endpoint.method in SAFE_METHODS:
        operation["parameters"] += [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                **({"description": one.pop("description")} if "description" in one else {}),
                "schema": one,
            }
            for name, one in schema.get("properties", {}).items()
        ]
    else:
        operation["parameters"].append(_KEY)
        operation["responses"]["202"] = _BEGUN
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _schema_of(inputs: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of the inputs, without references."""
    (schema,), components = msgspec.json.schema_components([inputs], ref_template="#{name}")
    found: dict[str, Any] = _inlined(schema, components)
    return found


def _inlined(value: Any, components: dict[str, Any]) -> Any:
    """The schema with each reference replaced by what it refers to. Inputs have no cycles."""
    if isinstance(value, list):
        return [_inlined(one, components) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(components[value["$ref"].removeprefix("#")], components)
    return {name: _inlined(one, components) for name, one in value.items()}
