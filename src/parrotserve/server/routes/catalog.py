"""The models and engines of the service."""

from fastapi import APIRouter

from parrotserve.listing import EngineView
from parrotserve.protocol import ModelList, ModelView
from parrotserve.server.access import OperatorOnly, TheService
from parrotserve.server.openai.errors import RESPONSES

router = APIRouter(prefix="/v1", tags=["models and engines"])


@router.get("/models", responses=RESPONSES)
async def models(service: TheService) -> ModelList:
    """The models that requests may name."""
    return ModelList(data=tuple(service.models()))


@router.get("/models/{model:path}", responses=RESPONSES)
async def model(model: str, service: TheService) -> ModelView:
    """One of them, by any name that requests may use."""
    return service.model_view(model)


@router.get("/engines", dependencies=[OperatorOnly])
async def engines(service: TheService) -> list[EngineView]:
    """The engines and how busy they are. With keys: for operators only, since it tells what other tenants do."""
    return service.engines()
