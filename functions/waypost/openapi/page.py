"""The OpenAPI document as a page to read. It needs no script, and nothing from anywhere else."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import htpy as h
from markupsafe import Markup

from waypost.core.policy import Policy
from waypost.openapi.document import document
from waypost.openapi.limit_table import FIXED, limits_of
from waypost.openapi.operations import Operation
from waypost.openapi.parameters import Parameter
from waypost.openapi.patterns import Schema

_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f4f6f8; --faint: #59636e; --link: #0757b5 }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a424c; --soft: #1c2128; --faint: #9aa4af; --link: #74b3ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
a { color: var(--link) }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line) }
h3 { margin-top: 2.5rem }
h4 { margin: 1.5rem 0 .5rem }
code, pre { font: .875em/1.5 ui-monospace, monospace; background: var(--soft); border-radius: 4px }
code { padding: .1em .3em }
pre { padding: .75rem; overflow-x: auto; overflow-wrap: normal }
pre code { padding: 0; font-size: 1em }
nav ul { columns: 22rem; padding-left: 1.2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line) }
dt { margin-top: .5rem }
dd { margin-left: 1.5rem }
.faint { color: var(--faint) }
.method { font-weight: bold }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = (
    (
        "content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)

#: A piece of a paragraph that is set apart.
_MARKED = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
#: A route: its method and its template.
Where = tuple[str, str]
#: Statuses that any route may answer.
_ANYWHERE = ("400", "401", "431", "503")
_PLACES = {"path": "Path", "query": "Query", "header": "Headers"}


@functools.cache
def page(policy: Policy) -> bytes:
    described = document(policy)
    first_told, schemas = _first_told(described), described["components"]["schemas"]
    whole = h.html(lang="en")[
        h.head[
            h.meta(charset="utf-8"),
            h.meta(name="viewport", content="width=device-width, initial-scale=1"),
            h.title["Waypost: the API"],
            h.style[Markup(_STYLE)],  # noqa: S704 - the constant above
        ],
        h.body[
            h.h1["Waypost ", h.span(".faint")[described["info"]["version"]]],
            h.main[
                _contents(described),
                _prose(described["info"]["description"]),
                [
                    [h.h2(id=_anchor(tag))[tag], [_operation(*one, first_told, schemas) for one in operations]]
                    for tag, operations in _by_tag(described).items()
                ],
                h.h2(id="bodies")["Bodies"],
                [_schema(name, schema) for name, schema in schemas.items()],
                h.h2(id="limits")["Limits of this server"],
                _limits(policy),
            ],
        ],
    ]
    return str(whole).encode()


def _contents(described: Mapping[str, Any]) -> h.Node:
    sections = re.findall("^## (.+)", described["info"]["description"], re.MULTILINE)
    return h.nav(aria_label="Contents")[
        h.ul[
            [h.li[_link(one)] for one in sections],
            [
                h.li[
                    _link(tag),
                    h.ul[
                        [
                            h.li[h.a(href=f"#{_anchor(method, path)}")[_call(method, path)]]
                            for method, path, _ in operations
                        ]
                    ],
                ]
                for tag, operations in _by_tag(described).items()
            ],
            h.li[_link("Bodies")],
            h.li[h.a(href="#limits")["Limits of this server"]],
            h.li[h.a(href="openapi.json")["openapi.json"], ": the same for programs"],
        ]
    ]


def _by_tag(described: Mapping[str, Any]) -> Mapping[str, Sequence[tuple[str, str, Operation]]]:
    found: dict[str, list[tuple[str, str, Operation]]] = {}
    for one in _operations(described):
        found.setdefault(one[2]["tags"][0], []).append(one)
    return found


def _operations(described: Mapping[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


# A route -------------------------------------------------------------------------------------------------------------


def _operation(
    method: str, path: str, operation: Operation, first_told: Mapping[str, Where], schemas: Mapping[str, Schema]
) -> h.Node:
    parameters = operation.get("parameters", ())
    own = [one for one in operation["responses"].items() if one[0] not in _ANYWHERE]
    return h.section[
        h.h3(id=_anchor(method, path))[_call(method, path)],
        h.p[operation["summary"], " (no token needed)." if operation.get("security") == [] else "."],
        _prose(operation.get("description", "")),
        [
            _parameters(place, [one for one in parameters if one["in"] == place], (method, path), first_told)
            for place in _PLACES
        ],
        _body(operation),
        h.h4["Answers"],
        h.table[
            h.tbody[
                [
                    h.tr[h.td[status], h.td[_marked(answer["description"])], h.td[_of_content(answer)]]
                    for status, answer in own
                ]
            ]
        ],
        h.pre[h.code[_curl(method, path, operation, schemas)]],
    ]


def _parameters(place: str, parameters: Sequence[Parameter], here: Where, first_told: Mapping[str, Where]) -> h.Node:
    """Those that an earlier route has, too, are told of there."""
    if not parameters:
        return None
    by_place: dict[Where, list[Parameter]] = {}
    for one in parameters:
        by_place.setdefault(first_told[_key(one)], []).append(one)
    return [
        h.h4[_PLACES[place]],
        [
            h.p[
                "As for ",
                h.a(href=f"#{_anchor(*where)}")[_call(*where)],
                ": ",
                [[", " if number else "", h.code[one["name"]]] for number, one in enumerate(told)],
                ".",
            ]
            for where, told in by_place.items()
            if where != here
        ],
        h.dl[[_parameter(one) for one in by_place.get(here, ())]],
    ]


def _parameter(parameter: Parameter) -> h.Node:
    return [
        h.dt[h.code[parameter["name"]], h.span(".faint")[" ", _kind(parameter["schema"])]],
        h.dd[
            _marked(parameter["description"]),
            [" For example ", h.code[_example(parameter)], "."] if "example" in parameter else None,
        ],
    ]


def _first_told(described: Mapping[str, Any]) -> Mapping[str, Where]:
    """The first route that has a parameter, by `_key`."""
    found: dict[str, Where] = {}
    for method, path, operation in _operations(described):
        for one in operation.get("parameters", ()):
            found.setdefault(_key(one), (method, path))
    return found


def _key(parameter: Parameter) -> str:
    return json.dumps(parameter)


def _body(operation: Operation) -> h.Node:
    body = operation.get("requestBody")
    if not body:
        return None
    return [
        h.h4["Body"],
        h.p[
            _marked(body.get("description", "")),
            " ",
            _of_content(body),
            "" if body["required"] else " It may be left out.",
        ],
    ]


def _curl(method: str, path: str, operation: Operation, schemas: Mapping[str, Schema]) -> str:
    """A call that works, with what examples there are."""
    lines = [] if operation.get("security") == [] else ['-H "Authorization: Bearer $QSTASH_TOKEN"']
    examples = {
        place: [one for one in operation.get("parameters", ()) if one["in"] == place and "example" in one]
        for place in _PLACES
    }
    for one in examples["path"]:
        path = path.replace(f"{{{one['name']}}}", one["example"])
    query = "".join(f"?{one['name']}={_example(one)}" for one in examples["query"][:1])
    lines += [f"-H '{one['name']}: {one['example']}'" for one in examples["header"][:1]]
    body = operation.get("requestBody", {"content": {}})
    for content in body["content"].values():
        if "example" in content:
            lines.append(f"-d '{content['example']}'")
        elif body["required"]:
            lines.append(f"-d '{json.dumps(schemas[_name(content['schema'])]['examples'][0])}'")
    verb = "" if method == "GET" else f"-X {method} "
    return " \\\n  ".join([f'curl {verb}"$QSTASH_URL{path}{query}"', *lines])


# Bodies and limits ---------------------------------------------------------------------------------------------------


def _schema(name: str, schema: Schema) -> h.Node:
    return h.section[
        h.h3(id=_anchor("body", name))[name],
        _prose(schema.get("description", "")),
        _fields(schema) if "properties" in schema else h.p[_kind(schema)],
        [h.pre[h.code[json.dumps(example, indent=2)]] for example in schema.get("examples", ())],
    ]


def _fields(schema: Schema) -> h.Node:
    required = schema.get("required", ())
    return h.dl[
        [
            [
                h.dt[
                    h.code[field],
                    h.span(".faint")[" ", _kind(one), "" if field in required else ", may be absent"],
                ],
                h.dd[_marked(one.get("description", ""))],
            ]
            for field, one in schema["properties"].items()
        ]
    ]


def _limits(policy: Policy) -> h.Node:
    return h.table[
        h.thead[h.tr[[h.th[name] for name in ("what", "at most", "setting", "more than that")]]],
        h.tbody[
            [
                h.tr[
                    h.td[one.what],
                    h.td[one.figure],
                    h.td[one.setting if one.setting == FIXED else h.code[one.setting]],
                    h.td[one.beyond],
                ]
                for one in limits_of(policy)
            ]
        ],
    ]


# Words ---------------------------------------------------------------------------------------------------------------


def _prose(text: str) -> h.Node:
    """Paragraphs, and headings behind `## `."""
    return [
        h.h2(id=_anchor(part[3:]))[part[3:]] if part.startswith("## ") else h.p[_marked(part)]
        for part in text.split("\n\n")
        if part
    ]


def _marked(text: str) -> h.Node:
    """What stands in backticks is code, what stands between asterisks is strong."""
    found: list[h.Node] = []
    end = 0
    for match in _MARKED.finditer(text):
        found += [text[end : match.start()], h.code[match[1]] if match[1] else h.strong[match[2]]]
        end = match.end()
    return [*found, text[end:]]


_TYPES = {"string": "text", "integer": "a number", "boolean": "true or false", "null": "null", "object": "an object"}


def _kind(schema: Schema) -> h.Node:
    """A schema in few words."""
    if "$ref" in schema:
        return _reference(schema)
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if schema.get("type") == "array":
        return ["a list of ", _kind(schema["items"])]
    if "anyOf" in schema and "type" not in schema:
        return [[" or " if number else "", _kind(one)] for number, one in enumerate(schema["anyOf"])]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join(_TYPES[one] for one in types)


def _of_content(holder: Mapping[str, Any]) -> h.Node:
    """What a request's or an answer's content holds; its media type, where it has no fields and is not any."""
    return [
        _kind(content["schema"]) if media_type == "application/json" else h.code[media_type]
        for media_type, content in holder.get("content", {}).items()
        if media_type != "*/*"
    ]


def _reference(schema: Schema) -> h.Node:
    name = _name(schema)
    return h.a(href=f"#{_anchor('body', name)}")[name]


def _name(reference: Schema) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _example(parameter: Parameter) -> str:
    example = parameter["example"]
    return str(example[0] if isinstance(example, list) else example)


def _call(method: str, path: str) -> h.Node:
    return h.code[h.span(".method")[method], " ", path]


def _link(heading: str) -> h.Node:
    return h.a(href=f"#{_anchor(heading)}")[heading]


def _anchor(*words: str) -> str:
    return re.sub("[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
