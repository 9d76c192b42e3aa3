"""Programs over semantic variables: `import Parrot as P`. Everything here is documented where it is defined."""

from importlib import import_module as _import_module

from Parrot.PerformanceCriteria import LATENCY, THROUGHPUT, TPOT, TTFT
from parrotserve import errors
from parrotserve.errors import ParrotError
from parrotserve.sampling import Sampling
from parrotserve.sdk.annotations import Input, Output
from parrotserve.sdk.cell import State
from parrotserve.sdk.chat import Chat
from parrotserve.sdk.connection import Connection, connect
from parrotserve.sdk.connection import set_embedded_factory as _set_embedded_factory
from parrotserve.sdk.explain import explain
from parrotserve.sdk.function import SemanticFunction
from parrotserve.sdk.gather import agather, as_completed, gather
from parrotserve.sdk.native import NativeFunction
from parrotserve.sdk.session import Session
from parrotserve.sdk.variable import SemanticVariable
from parrotserve.sdk.visualize import visualize

# The only place where the front end and the embedded service meet; used if a program configures no service.
_set_embedded_factory(lambda: _import_module("parrotserve.embedded").EmbeddedTransport())

__all__ = [
    "LATENCY",
    "THROUGHPUT",
    "TPOT",
    "TTFT",
    "Chat",
    "Connection",
    "Input",
    "NativeFunction",
    "Output",
    "ParrotError",
    "Sampling",
    "SemanticFunction",
    "SemanticVariable",
    "Session",
    "State",
    "agather",
    "as_completed",
    "connect",
    "errors",
    "explain",
    "gather",
    "visualize",
]
