"""The native engine's process: `python -m parrotserve.engines.native`, spoken to over its pipes."""

import sys

import msgspec

from parrotserve.aside import Aside
from parrotserve.engines.base import EngineDescription
from parrotserve.engines.native.build import build_engine
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.settings import Launch
from parrotserve.engines.worker import run_worker


def _build(first_frame: bytes) -> tuple[EngineDescription, NativeCore]:
    return build_engine(msgspec.msgpack.decode(first_frame, type=Launch), doing=Aside("grammars").do)


if __name__ == "__main__":
    sys.exit(run_worker(_build))
