"""Checks of the settings, and of the service that they name."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from parrotserve.addresses import without_credentials
from parrotserve.config import READ_ELSEWHERE, SETTINGS, ServiceConfig, effective
from parrotserve.doctor.finding import Finding, Verdict
from parrotserve.doctor.reach import ask
from parrotserve.engines.native.kernels import variants
from parrotserve.engines.native.memory import kv_fault
from parrotserve.engines.native.settings import usable_cores
from parrotserve.errors import DeclarationError, ServiceUnavailable, Unauthorized
from parrotserve.protocol import PROTOCOL_HEADER
from parrotserve.runtime.catalog import native_engines
from parrotserve.service_address import plain_http_advice, service_key, service_url

_SECRET = "PARROT_API_KEY"
_OR_EMBEDDED = "or unset it for an embedded service."


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings in force, where they come from, and what the check of them found."""

    config: ServiceConfig | None
    """None if the settings are invalid."""
    origins: dict[str, str]
    finding: Finding

    def place(self, name: str) -> str:
        """Where to change a setting: where it is set already, else its environment variable."""
        return _place(name, self.origins)


def _place(name: str, origins: dict[str, str]) -> str:
    variable = SETTINGS[name].variable
    return variable if origins[name] in ("default", variable) else f"{name} in {origins[name]}"


def configuration() -> Configuration:
    """Read and check the settings."""
    elsewhere = [name for name in READ_ELSEWHERE if name in os.environ]
    try:
        config, origins = effective()
    except DeclarationError as error:
        broken = Finding(
            subject="Settings",
            verdict=Verdict.BROKEN,
            found=error.message,
            advice="Correct or unset it; docs/configuration.md lists all settings.",
            details={"error": error.message},
        )
        return Configuration(None, {}, broken)
    own = {name: origin for name, origin in origins.items() if origin != "default"}
    told = [f"{name} = {SETTINGS[name].shown(getattr(config, name))} ({origin})" for name, origin in own.items()]
    told += [name if name == _SECRET else f"{name}={without_credentials(os.environ[name])}" for name in elsewhere]
    details = {"set": own, "elsewhere": elsewhere}
    found = ", ".join(told) or "none: defaults"
    verdict, complaint, advice = _impossible(config, origins)
    if complaint:
        found = f"{found}; {complaint}"
    finding = Finding(subject="Settings", verdict=verdict, found=found, advice=advice, details=details)
    return Configuration(config, origins, finding)


def _impossible(config: ServiceConfig, origins: dict[str, str]) -> tuple[Verdict, str, str]:
    """The verdict on the settings, what cannot work or works badly, and what to do; the texts are empty if all is
    well."""
    compiled = bool(variants())
    if not compiled and config.backend == "kernels":
        return (
            Verdict.BROKEN,
            "backend = kernels needs the compiled extension",
            f"Build the extension, or set {_place('backend', origins)} to auto.",
        )
    if config.weights != "bf16" and (not compiled or config.backend == "reference"):
        return (
            Verdict.BROKEN,
            f"weights = {config.weights} needs the kernels backend",
            f"Unset {_place('weights', origins)}, or use the kernels backend.",
        )
    engines = max(1, native_engines(config))
    fault = kv_fault(config.kv_memory, engines)
    if fault is not None:
        memory = _place("kv_memory", origins)
        advice = f"Lower {memory} or {_place('engines', origins)}." if engines > 1 else f"Lower or unset {memory}."
        return Verdict.BROKEN, fault, advice
    if config.threads is not None and config.threads * config.engines > usable_cores():
        return (
            Verdict.NOTICE,
            f"{config.threads * config.engines} threads on {usable_cores()} cores wait for one another",
            f"Set {_place('threads', origins)} to the cores that each engine may have.",
        )
    return Verdict.GOOD, "", ""


def service() -> Iterator[Finding]:
    """Check the service at PARROT_URL, if that is set."""
    given = os.environ.get("PARROT_URL", "").strip()
    if not given:
        return
    shown = without_credentials(given)

    def broken(found: str, advice: str, *, reachable: bool) -> Finding:
        details = {"url": shown, "reachable": reachable, "fault": found}
        return Finding(subject="Service", verdict=Verdict.BROKEN, found=found, advice=advice, details=details)

    try:
        key = service_key(os.environ.get(_SECRET, ""))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = ask(f"{service_url(given)}/v1/models", headers=headers)  # /healthz would not check the key
    except DeclarationError as error:
        yield broken(error.message, f"Correct or unset {_SECRET}.", reachable=False)
    except ServiceUnavailable as error:
        yield broken(error.message, f"Correct PARROT_URL, {_OR_EMBEDDED}", reachable=False)
    except ConnectionError as error:
        usual = f"Start it (`parrot serve`), correct PARROT_URL, {_OR_EMBEDDED}"
        advice = plain_http_advice(shown, str(error)) or usual
        yield broken(f"{shown} does not answer: {error}", advice, reachable=False)
    else:
        fault = _fault(answer, with_key=bool(key))
        if fault is None:
            yield Finding(subject="Service", found=f"{shown} answers", details={"url": shown, "reachable": True})
        else:
            found, advice = fault
            yield broken(f"{shown} {found}", advice, reachable=True)


def _fault(answer: httpx.Response, *, with_key: bool) -> tuple[str, str] | None:
    """What is wrong with an answer, and what to do; None if nothing is wrong."""
    if PROTOCOL_HEADER not in answer.headers:
        advice = f"Correct PARROT_URL (`parrot serve` prints the right one), {_OR_EMBEDDED}"
        return f"answered {answer.status_code}, but not as a Parrot service does", advice
    if answer.status_code == Unauthorized.status:
        advice = f"Set {_SECRET} to a key of this service; `parrot key create` makes one where it runs."
        if with_key:
            return (
                f"does not accept the key in {_SECRET}: it was mistyped, revoked, or made for another service",
                advice,
            )
        return f"needs an API key, and {_SECRET} is not set", advice
    if not answer.is_success:
        return f"answered {answer.status_code}", "The service's own log may say why."
    return None
