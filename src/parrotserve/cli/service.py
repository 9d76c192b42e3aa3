"""The service that `run` and `chat` use."""

import os

from parrotserve.sdk.transport import Transport


def service(url: str | None, model: str | None) -> Transport:
    """The one at a URL or at `PARROT_URL`, else an embedded one, with this as its default model.

    Raises `ServiceUnavailable` for what is no HTTP URL, `DeclarationError` for settings that make no sense.
    """
    url = url or os.environ.get("PARROT_URL")
    if url:
        from parrotserve.sdk.http import HttpTransport

        return HttpTransport(url, os.environ.get("PARROT_API_KEY"))
    from parrotserve.config import ServiceConfig
    from parrotserve.embedded import EmbeddedTransport

    return EmbeddedTransport(ServiceConfig.load(on_demand=True, models=(model,) if model else None))
