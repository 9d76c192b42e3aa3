"""Authentication: every exchange except health checks belongs to a caller, whom routes get as a dependency."""

from typing import Annotated, cast

from fastapi import Depends, Path, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from parrotserve.errors import Forbidden, ParrotError, Unauthorized
from parrotserve.ids import TenantId
from parrotserve.protocol import Identifier
from parrotserve.runtime.service import Service
from parrotserve.server.headers import header
from parrotserve.server.hosts import check_host
from parrotserve.server.refusals import refusal_of
from parrotserve.tenancy.directory import Caller, Directory

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that need no key, so that monitoring needs none. All others do, even those that do not exist, so a new
route is closed unless it is opened here."""

_CALLER = "caller"


class Authentication:
    """Finds the caller of an exchange. Refuses it, without reading its body, if the key is not valid, or, while no keys
    are required, if it may come from a web page of another site."""

    def __init__(self, app: ASGIApp, *, directory: Directory) -> None:
        self._app = app
        self._directory = directory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                scope.setdefault("state", {})[_CALLER] = self._directory.authenticate(_key_of(scope))
                if not self._directory.closed:
                    check_host(header(scope, b"host"))
            except ParrotError as refused:
                app = refusal_of(scope, refused)
        await app(scope, receive, send)


def _key_of(scope: Scope) -> str | None:
    scheme, _, key = header(scope, b"authorization").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def caller_of(scope: Scope) -> Caller | None:
    """The caller of an exchange; None on a path that needs no key."""
    return scope.get("state", {}).get(_CALLER)


def service_of(request: Request) -> Service:
    """The service behind the application."""
    return cast("Service", request.app.state.service)


def tenant_of(request: Request) -> TenantId:
    """The tenant of an exchange. Raises `Unauthorized` on a path that needs no key."""
    caller = caller_of(request.scope)
    if caller is None:
        raise Unauthorized("This route is open, and asks for whom it runs.")  # a route in OPEN_PATHS that should not be
    return caller.tenant


# Coroutines, though they await nothing: FastAPI runs plain functions in threads, which costs more than they do.


async def _service(request: Request) -> Service:
    return service_of(request)


async def _tenant(request: Request) -> TenantId:
    return tenant_of(request)


async def _caller(request: Request) -> Caller:
    tenant_of(request)
    return cast("Caller", caller_of(request.scope))


async def _operator(request: Request) -> Caller:
    caller = await _caller(request)
    if not caller.operator:
        raise Forbidden("This is about all tenants: use a key made with `parrot key create --operator`.")
    return caller


TheService = Annotated[Service, Depends(_service)]
TheCaller = Annotated[Caller, Depends(_caller)]
TheTenant = Annotated[TenantId, Depends(_tenant)]
OperatorOnly = Depends(_operator)
PathId = Annotated[Identifier, Path()]
