"""By which addresses and names a service can be reached, and whether it may be."""

import contextlib
import ipaddress
import socket

from parrotserve.config import ServiceConfig
from parrotserve.errors import DeclarationError, Forbidden
from parrotserve.tenancy.directory import Directory

_LONGEST_SHOWN = 100


def is_loopback(host: str) -> bool:
    """Whether an address, or `localhost`, is this machine's own, which no other can reach."""
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_resolves(host: str) -> None:
    """Raises `DeclarationError` for a host that is neither an address nor a name of one."""
    if not host:
        return
    try:
        socket.getaddrinfo(host, None)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DeclarationError(
            f"{host!r} does not resolve to an address ({why}). Write one that this machine has, such as 127.0.0.1.",
            setting="host",
        ) from error


def check_reach(config: ServiceConfig, directory: Directory) -> None:
    """Raises `DeclarationError` where a service that others can reach would let them in without a key."""
    if is_loopback(config.host):
        return
    reach = f"{config.host!r} can be reached from other machines"
    if config.keys == "never":
        raise DeclarationError(f"{reach}, where keys=never would let everybody in. Bind to 127.0.0.1.", setting="keys")
    if not directory.usable:
        raise DeclarationError(
            f"{reach}, and there are no keys yet to tell who may use this service. Make one with `parrot tenant create "
            "NAME` and `parrot key create NAME`, or bind to 127.0.0.1.",
            setting="host",
        )


def check_host(host: str) -> None:
    """Raises `Forbidden` for a `Host` that an open service must not answer to; without one, it was no browser's.

    A page may come from a name whose owner lets it mean 127.0.0.1 once the page is there (DNS rebinding). To the
    browser what it asks of this service is then the page's own: nothing but the name tells them apart.
    """
    if not host or _names_this_machine(_without_port(host)):
        return
    raise Forbidden(
        f"This service has no keys, so it answers only to names of its own machine, and not to "
        f"{host[:_LONGEST_SHOWN]!r}. Use 127.0.0.1 or localhost, let your proxy send 'Host: localhost', or make keys "
        "for the service (`parrot key create`)."
    )


def _without_port(host: str) -> str:
    if host.startswith("["):
        address, _, port = host[1:].partition("]")
        return address if port.startswith(":") or not port else host
    return host.partition(":")[0]


def _names_this_machine(name: str) -> bool:
    # Nobody else is asked what a name below localhost means (RFC 6761).
    name = name.lower().removesuffix(".")
    return is_loopback(name) or name.endswith(".localhost")
