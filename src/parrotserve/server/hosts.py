"""Addresses and names by which a service can be reached, and checks that it may be."""

import contextlib
import ipaddress
import socket

from parrotserve.config import ServiceConfig
from parrotserve.errors import DeclarationError, Forbidden
from parrotserve.tenancy.directory import Directory

_LONGEST_SHOWN = 100


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address, which no other machine can reach."""
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_resolves(host: str) -> None:
    """Raises `DeclarationError` for a host that is neither an address nor a name that resolves to one."""
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
    """Raises `DeclarationError` if other machines could reach the service without a key, or no key exists yet."""
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
    """Raises `Forbidden` for a `Host` header that a service without keys must not answer. It may be missing, since
    browsers always send one.

    A web page may come from a name whose owner makes it resolve to 127.0.0.1 once the page is loaded (DNS rebinding).
    The browser then takes the page's requests to this service for same-origin: only the name gives them away.
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
    # Names below localhost always mean this machine; no DNS server is asked about them (RFC 6761).
    name = name.lower().removesuffix(".")
    return is_loopback(name) or name.endswith(".localhost")
