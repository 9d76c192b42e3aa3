"""What HTTP clients read in the environment when they are made: certificates and proxies, which errors name."""

import contextlib
import os
from collections.abc import Generator

import httpx

from parrotserve.errors import ParrotError

_FILES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@contextlib.contextmanager
def environment_read(kind: type[ParrotError]) -> Generator[None]:
    """A context in which HTTP clients are made. Raises `kind`, with advice, for a setting that httpx cannot use."""
    try:
        yield
    except OSError as error:
        named = _named(_FILES, otherwise="the package certifi")
        raise kind(f"Cannot read the certificates of {named} ({error}); correct or unset it.") from error
    except ImportError as error:
        named = _named(_PROXIES, otherwise="the system's settings", having="socks")
        raise kind(
            f"{named} is a SOCKS proxy, which needs one more package: `pip install 'httpx[socks]'`; or unset it."
        ) from error
    except (ValueError, httpx.InvalidURL) as error:
        named = _named(_PROXIES, otherwise="the system")
        raise kind(f"Cannot use the proxy settings of {named} ({error}); correct or unset it.") from error


def _named(names: tuple[str, ...], *, otherwise: str, having: str = "") -> str:
    """The names of those that are set; not their values, as a proxy's may contain a password."""
    found = [name for name, value in os.environ.items() if name.upper() in names and value and having in value.lower()]
    return " or ".join(sorted(found)) or otherwise
