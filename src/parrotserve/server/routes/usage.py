"""Usage of tenants."""

from fastapi import APIRouter

from parrotserve.listing import TenantUsage
from parrotserve.server.access import TheCaller, TheService

router = APIRouter(prefix="/v1", tags=["usage"])


@router.get("/usage")
async def usage(service: TheService, caller: TheCaller) -> list[TenantUsage]:
    """What the key's tenant used, by day; with an operator's key, what every tenant used."""
    return await service.usage(None if caller.operator else caller.tenant)
