"""Monitoring: health, readiness and metrics."""

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from parrotserve.server.access import OperatorOnly, TheService

router = APIRouter(tags=["health"])


@router.get("/healthz")
@router.head("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The service answers."""
    return {"status": "ok"}


@router.get("/readyz")
@router.head("/readyz", include_in_schema=False)
async def readyz(service: TheService) -> dict[str, str]:
    """Every configured model has an engine that is up; 503 where one has none, while the journal cannot be written, and
    while the service shuts down."""
    service.check_ready()
    return {"status": "ready"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
    dependencies=[OperatorOnly],
)
async def metrics(service: TheService) -> Response:
    """Counts, gauges and how long requests took, for Prometheus; never a prompt. With keys: for operators only."""
    return Response(generate_latest(service.metrics), media_type=CONTENT_TYPE_LATEST)
