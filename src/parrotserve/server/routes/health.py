"""For whoever watches over the service."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from parrotserve.errors import ServiceUnavailable
from parrotserve.server.access import OperatorOnly, TheService

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The service answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(service: TheService) -> dict[str, str]:
    """All engines are up; 503 until then."""
    if not service.ready:
        raise ServiceUnavailable("Not every engine is up; /v1/engines says which.")
    return {"status": "ready"}


@router.get("/metrics", response_class=PlainTextResponse, dependencies=[OperatorOnly])
async def metrics(service: TheService) -> PlainTextResponse:
    """Counts and gauges for Prometheus; never a prompt. With keys: for operators only."""
    return PlainTextResponse(generate_latest(service.metrics), media_type=CONTENT_TYPE_LATEST)
