"""Who may do what: every exchange but health's is somebody's, and routes are given whose."""

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
"""What answers without a key: whoever watches over the service needs none. All else, what is not there
included, asks for one, so that a new route is closed unless somebody opens it here."""

_CALLER = "caller"


class Authentication:
    """Finds out on whose behalf an exchange is made; refuses it, unread, if that is nobody's, or, while no keys are
    asked for, if it may come from a page in a browser."""

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
    """On whose behalf an exchange is made; None where that does not matter."""
    return scope.get("state", {}).get(_CALLER)


def service_of(request: Request) -> Service:
    """The service that answers."""
    return cast("Service", request.app.state.service)


def tenant_of(request: Request) -> TenantId:
    """On whose behalf an exchange is made, where that matters."""
    caller = caller_of(request.scope)
    if caller is None:
        raise Unauthorized("This route is open, and asks for whom it runs.")  # a route in OPEN_PATHS that should not be
    return caller.tenant


# Coroutines, though they wait for nothing: FastAPI gives functions to threads, which costs more than all they do.


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
