"""Access for commands to stored tenants, in the data folder that a service on this machine uses."""

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parrotserve.tenancy.store import TenantStore


@contextlib.contextmanager
def opened(settings: dict[str, Any]) -> "Generator[TenantStore]":
    """The store in the data folder of these settings. Raises what `ServiceConfig.load` and `TenantStore` raise."""
    from parrotserve.config import ServiceConfig
    from parrotserve.tenancy.store import TenantStore

    with contextlib.closing(TenantStore(ServiceConfig.load(**settings).data_folder)) as store:
        yield store
