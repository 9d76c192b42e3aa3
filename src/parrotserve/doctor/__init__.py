"""The checks of `parrot doctor`: what this installation runs on and why, and what is wrong with it."""

from collections.abc import Iterator

from parrotserve.doctor.configured import configuration, service
from parrotserve.doctor.finding import Finding, Verdict
from parrotserve.doctor.installed import extension, instructions, memory, package, python, threads, variants
from parrotserve.doctor.storage import cache, data, lacks_models, models, package_index

__all__ = ["Finding", "Verdict", "examine"]


def examine() -> Iterator[Finding]:
    """All findings, each as soon as it is known. Nothing is changed, fetched or started."""
    for check in (python, package, extension, instructions, variants, threads, memory):
        yield check()
    settings = configuration()
    yield settings.finding
    missing = lacks_models(settings.config)
    yield cache(needed=missing)
    if settings.config:
        yield data(settings.config, settings.place)
        yield from models(settings.config)
    yield package_index(needed=missing)
    yield from service()
