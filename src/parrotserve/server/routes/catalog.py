"""What the service runs: models and engines."""

from fastapi import APIRouter

from parrotserve.protocol import EngineView, ModelView
from parrotserve.server.access import OperatorOnly, TheService

router = APIRouter(prefix="/v1", tags=["models and engines"])


@router.get("/models")
async def models(service: TheService) -> list[ModelView]:
    """The models that requests may name."""
    return service.models()


@router.get("/engines", dependencies=[OperatorOnly])
async def engines(service: TheService) -> list[EngineView]:
    """The engines and how busy they are. With keys: for operators only, since it tells what other tenants do."""
    return service.engines()
