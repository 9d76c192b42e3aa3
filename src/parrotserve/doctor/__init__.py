"""What runs here and why: everything that `parrot doctor` looks at."""

from collections.abc import Iterator

from parrotserve.doctor.configured import configuration, service
from parrotserve.doctor.finding import Finding, Verdict
from parrotserve.doctor.installed import extension, instructions, memory, package, python, threads, variants
from parrotserve.doctor.storage import cache, data, models, package_index

__all__ = ["Finding", "Verdict", "examine"]


def examine() -> Iterator[Finding]:
    """All findings, each as soon as it is known. Nothing is changed, fetched or started."""
    for check in (python, package, extension, instructions, variants, threads, memory):
        yield check()
    settings = configuration()
    yield settings.finding
    yield cache()
    if settings.config:
        yield data(settings.config)
    missing = False
    for finding in models(settings.config) if settings.config else ():
        missing = missing or finding.details.get("cached") is False
        yield finding
    yield package_index(needed=missing)
    yield from service()
