"""The service that commands use."""

import os
from typing import TYPE_CHECKING

import typer

from parrotserve.sdk.transport import Transport

if TYPE_CHECKING:
    from parrotserve.sdk.http import HttpTransport


def service(url: str | None, model: str | None) -> Transport:
    """A transport to the service at `url` or `PARROT_URL`, else an embedded one with `model` as its default model.

    Raises `ServiceUnavailable` if that is not an HTTP URL, `DeclarationError` for invalid settings.
    """
    if url or os.environ.get("PARROT_URL"):
        return service_at(url)
    from parrotserve.config import ServiceConfig
    from parrotserve.embedded import EmbeddedTransport

    return EmbeddedTransport(ServiceConfig.load(on_demand=True, models=(model,) if model else None))


def service_at(url: str | None) -> "HttpTransport":
    """A transport to the service at `url` or `PARROT_URL`, for commands that inspect a running service.

    Raises `BadParameter` if neither is given, and what `service` raises.
    """
    from parrotserve.sdk.http import HttpTransport

    url = url or os.environ.get("PARROT_URL")
    if not url:
        raise typer.BadParameter("say which service: --url http://127.0.0.1:8000, or PARROT_URL.")
    return HttpTransport(url, os.environ.get("PARROT_API_KEY"))
