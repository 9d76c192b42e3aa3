"""Services that bad input must not harm: embedded, and over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input import PARROT, serving, unharmed
from tiny_model import write_tiny_model

import Parrot as P
from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport
from parrotserve.sdk.connection import use


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with real weights."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def url(tiny: Path) -> Iterator[str]:
    """`parrot serve` with a model that is fake and one that is not."""
    with serving(*PARROT[1:], "serve", "--port", "0", "--model", "fake", "--model", str(tiny)) as (address, _):
        yield address


@pytest.fixture(scope="module", params=["embedded", "served"])
def connection(request: pytest.FixtureRequest, tiny: Path) -> Iterator[P.Connection]:
    """The same models in this process, or behind HTTP."""
    if request.param == "served":
        with P.connect(request.getfixturevalue("url")) as connected:
            yield connected
    else:
        with use(EmbeddedTransport(ServiceConfig(models=("fake", str(tiny)), threads=1))) as connected:
            yield connected


@pytest.fixture
def service(connection: P.Connection) -> Iterator[None]:
    """Where programs run; whatever a test does to it, somebody else must not notice."""
    with unharmed():
        yield
