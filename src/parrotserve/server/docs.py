"""`/docs`: the OpenAPI document as one HTML page without scripts and without resources from other servers.

FastAPI's own pages load scripts from the network, which an air-gapped site cannot reach, and these fetch the document,
which a browser cannot do if a key is required.
"""

import html
import json
import re
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment
from markupsafe import Markup, escape

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _prose(text: str) -> Markup:
    """A docstring as HTML, with its paragraphs and its code in backticks."""
    told = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(told.replace("\n\n", "</p>\n<p>"))


_TEMPLATES = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_TEMPLATES.filters["prose"] = _prose
_PAGE = _TEMPLATES.from_string(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ info.title }} {{ info.version }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.4 ui-monospace, monospace; } pre { overflow-x: auto; background: #f4f4f4; padding: .7rem; }
h3 { margin-bottom: .2rem; } summary { cursor: pointer; } b { display: inline-block; min-width: 4.5rem; }
td { padding-right: 1.2rem; vertical-align: top; }
</style></head><body>
<h1>{{ info.title }} {{ info.version }}</h1><p>{{ info.summary }}</p>
<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>
{% for tag, routes in tags.items() %}<h2>{{ tag }}</h2>
{% for route in routes %}<h3 id="{{ route.id }}"><code><b>{{ route.method }}</b>{{ route.path }}</code></h3>
<p>{{ route.description|prose }}</p>
{% if route.parameters %}<table>{% for one in route.parameters %}<tr><td><code>{{ one.name }}</code></td>
<td>{{ one.in }}</td><td>{{ (one.description or "")|prose }}</td></tr>{% endfor %}</table>{% endif %}
{% if route.body %}<p>Body: <a href="#{{ route.body }}">{{ route.body }}</a></p>{% endif %}
<table>{% for status, answer in route.answers.items() %}<tr><td>{{ status }}</td>
<td>{{ answer.description|prose }}</td></tr>
{% endfor %}</table>
{% endfor %}{% endfor %}
<h2>Schemas</h2>
{% for name, schema in schemas.items() %}<details id="{{ name }}"><summary><code>{{ name }}</code></summary>
<pre>{{ schema }}</pre></details>{% endfor %}
</body></html>"""
)


def install(app: FastAPI) -> None:
    """Serve the page, and redirect to it from `/`, the address that `parrot serve` prints."""

    @app.get("/", include_in_schema=False)
    async def _() -> RedirectResponse:  # pyright: ignore[reportUnusedFunction]
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def _() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return HTMLResponse(page(app.openapi()), headers={"Content-Security-Policy": _POLICY})


def page(document: dict[str, Any]) -> str:
    """Render an OpenAPI document as HTML."""
    tags: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            tags.setdefault(route.get("tags", ["more"])[0], []).append(_route(path, method, route))
    schemas = document.get("components", {}).get("schemas", {})
    told = {name: json.dumps(schema, indent=2, ensure_ascii=False) for name, schema in schemas.items()}
    return _PAGE.render(info=document["info"], tags=tags, schemas=told)


def _route(path: str, method: str, route: dict[str, Any]) -> dict[str, Any]:
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    return {
        "id": html.escape(route["operationId"]),
        "method": method.upper(),
        "path": path,
        "description": route.get("description", ""),
        "parameters": route.get("parameters", []),
        "body": content.get("schema", {}).get("$ref", "").rpartition("/")[2],
        "answers": route["responses"],
    }
