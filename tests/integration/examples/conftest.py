"""The examples as modules, and a service that recites what a test says and remembers what it was asked."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import pytest
from example_model import EXAMPLES, Model

from parrotserve.cli.program import load
from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport
from parrotserve.engines.fake import FakeEngine
from parrotserve.runtime.catalog import fake_model
from parrotserve.sdk.connection import use


@pytest.fixture
def model() -> Iterator[Model]:
    scripted = Model()
    transport = EmbeddedTransport(
        ServiceConfig(models=("fake",)), load=lambda *_: fake_model(partial(FakeEngine, script=scripted))
    )
    with use(transport):
        yield scripted


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports an example as `parrot run` does."""

    def importing(name: str) -> ModuleType:
        monkeypatch.setattr("sys.path", list(sys.path))
        monkeypatch.setattr("sys.argv", ["parrot"])
        monkeypatch.delitem(sys.modules, name, raising=False)
        return load(EXAMPLES / f"{name}.py")

    return importing
