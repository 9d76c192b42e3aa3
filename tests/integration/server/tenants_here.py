"""Two tenants of one service, and the routes that they may walk."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
from starlette.routing import Route

from parrotserve.tenancy.store import TenantStore

IDS = {"session": "a-session", "variable": "tale", "call": "a-call"}


def key_of(store: TenantStore, tenant: str, *, operator: bool = False) -> dict[str, str]:
    return {"Authorization": f"Bearer {store.create_key(tenant, operator=operator)[1]}"}


def routes(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Every method and path that the application answers, ids filled in."""

    def walk(routes: list[Any]) -> Iterator[tuple[str, str]]:
        for route in routes:
            if isinstance(route, Route):
                yield from ((method, route.path) for method in route.methods or () if method != "HEAD")
            else:
                yield from walk(route.original_router.routes)

    found = list(walk(client._transport.app.routes))
    assert len(found) > 15
    return [(method, re.sub(r"{(\w+)(:\w+)?}", lambda name: IDS.get(name[1], "x"), path)) for method, path in found]
