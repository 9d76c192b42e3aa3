"""What routes are given: the service, and on whose behalf they run."""

from typing import Annotated, cast

from fastapi import Depends, Path, Request

from parrotserve.ids import LOCAL_TENANT, TenantId
from parrotserve.protocol import Identifier
from parrotserve.runtime.service import Service


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


def _tenant() -> TenantId:
    # A service without keys is bound to loopback and has one tenant.
    return LOCAL_TENANT


TheService = Annotated[Service, Depends(_service)]
TheTenant = Annotated[TenantId, Depends(_tenant)]
PathId = Annotated[Identifier, Path()]
