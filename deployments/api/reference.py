"""the OpenAPI document -> docs/api.md: python -m deployments.api.reference > docs/api.md"""

import sys
from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

from aiprod_components.families import make_family
from deployments.api.documents import PROBLEM
from deployments.api.http import Surroundings, make_app
from deployments.api.service import Dispatchers, make_service
from deployments.api.wire import Wire
from deployments.settings import ApiArgs
from deployments.storage import open_storage

HEAD = """# The HTTP API

Written from the server's own OpenAPI document (`GET /openapi.json`) by `python -m deployments.api.reference`; a test holds the two equal.
Every problem is `application/problem+json`: RFC 9457, with what OpenAI's clients read under `error`.
"""


def make_reference(document: Mapping[str, Any]) -> str:
    """The document as a page to read."""
    return "\n".join([HEAD, *_routes(document), *_schemas(document)]) + "\n"


def _routes(document: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"## {method.upper()} {path}\n\n{operation['description']}\n"
            yield from _parameters(operation.get("parameters", ()))
            yield from _body(operation)
            yield "| answer | what | media type |\n|---|---|---|"
            for status, answer in sorted(operation["responses"].items()):
                kinds = ", ".join(f"`{kind}`" + _named(content) for kind, content in answer.get("content", {}).items() if kind != PROBLEM)
                yield f"| {status} | {answer['description']} | {kinds or ('problem' if int(status) >= 400 else '')} |"
            yield ""


def _parameters(parameters: Any) -> Iterator[str]:
    if parameters:
        yield "| parameter | in | what |\n|---|---|---|"
        for parameter in parameters:
            yield f"| `{parameter['name']}` | {parameter['in']} | {parameter.get('description', '')} |"
        yield ""


def _body(operation: Mapping[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        yield "Body: " + ", or ".join(f"`{kind}`{_named(inner)}" for kind, inner in content.items()) + ".\n"


def _named(content: Mapping[str, Any]) -> str:
    reference = content.get("schema", {}).get("$ref")
    return f" ({_link(reference)})" if reference else ""


def _link(reference: str) -> str:
    name = reference.rpartition("/")[2]
    return f"[{name}](#{name.lower().replace('.', '')})"


def _schemas(document: Mapping[str, Any]) -> Iterator[str]:
    yield "# Schemas\n"
    for name, schema in document["components"]["schemas"].items():
        yield f"## {name}\n"
        if description := schema.get("description"):
            yield f"{description}\n"
        if "anyOf" in schema:
            yield "One of " + ", ".join(_link(option["$ref"]) for option in schema["anyOf"]) + ".\n"
        if fields := schema.get("properties"):
            yield "| field | type | default | what |\n|---|---|---|---|"
            for field, inner in fields.items():
                needed = "required" if field in schema.get("required", ()) else _default(inner)
                yield f"| `{field}` | {_type(inner)} | {needed} | {inner.get('description', '')} |"
            yield ""


def _default(schema: Mapping[str, Any]) -> str:
    return f"`{schema['default']}`" if schema.get("default") not in (None, "") else ""


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _link(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any")
    bounds = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤")) if key in schema]
    return " ".join([" or ".join(kind) if isinstance(kind, list) else kind, ", ".join(bounds)]).strip()


def describe_miniature() -> dict[str, Any]:
    """The document of a server that serves the miniature alone."""
    miniature = make_family("miniature")
    wire = Wire({miniature.name: miniature})
    with TemporaryDirectory() as folder:
        args = ApiArgs.model_validate({"families": [{"name": miniature.name}], "data": folder, "keys": True})
        service = make_service(args, wire, open_storage(args), Dispatchers(_nothing, _nothing))
        return make_app(service, wire, Surroundings(_nothing, _nothing, _nothing, _nothing, keys=args.keys)).openapi()


async def _nothing(*arguments: Any) -> Any:
    """Nobody asks while the document is written."""


if __name__ == "__main__":
    sys.stdout.write(make_reference(describe_miniature()))
