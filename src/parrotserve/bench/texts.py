"""Fresh text, cut to a number of tokens: sentences of Python's own documentation, in random order.

The sentences are taken at run time from documentation strings of the standard library, so no text is shipped, and it
is natural text. Two `Texts` of different seeds share hardly any prefix.
"""

import importlib
import inspect
import pkgutil
import random
import re
import warnings
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Protocol

_PACKAGES = (
    *("argparse", "ast", "asyncio", "collections", "concurrent.futures", "configparser", "csv", "datetime", "decimal"),
    *("difflib", "email", "fractions", "functools", "heapq", "http", "inspect", "ipaddress", "json", "logging"),
    *("mailbox", "multiprocessing", "optparse", "os", "pathlib", "pickle", "random", "shutil", "socket", "sqlite3"),
    *("statistics", "string", "subprocess", "tarfile", "threading", "turtle", "typing", "unittest", "urllib", "xml"),
)
_DRAWN_AT_ONCE = 40
"""Sentences that are joined at a time before the result is cut: one sentence is rarely long enough."""


class CountsTokens(Protocol):
    """The methods of a tokenizer that are needed here."""

    def count(self, text: str) -> int: ...

    def truncate(self, text: str, tokens: int) -> str: ...


class Texts:
    """A source of text that hardly repeats itself."""

    def __init__(self, tokenizer: CountsTokens, seed: str) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(seed)
        self._sentences = list(sentences())
        self._place = 0
        self._random.shuffle(self._sentences)

    def take(self, tokens: int) -> str:
        """A text of this many tokens, or one or two fewer if a character would be cut."""
        text = ""
        while self._tokenizer.count(text) < tokens:
            text = f"{text} {' '.join(self._next() for _ in range(_DRAWN_AT_ONCE))}".lstrip()
        return self._tokenizer.truncate(text, tokens).rstrip()

    def _next(self) -> str:
        if self._place == len(self._sentences):
            self._random.shuffle(self._sentences)
            self._place = 0
        self._place += 1
        return self._sentences[self._place - 1]


@cache
def sentences() -> tuple[str, ...]:
    """The sentences of the standard library's documentation strings, each once, in a fixed order."""
    found: dict[str, None] = {}
    for module in _modules():
        for documented in _documented(module):
            for sentence in re.split(r"(?<=[.!?])\s+", " ".join((inspect.getdoc(documented) or "").split())):
                if 30 <= len(sentence) <= 400 and sentence.isascii():
                    found[sentence] = None
    return tuple(found)


def _modules() -> Iterator[ModuleType]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _PACKAGES:
            try:
                package = importlib.import_module(name)
            except ImportError:  # turtle and sqlite3 are left out of some builds
                continue
            yield package
            for inner in pkgutil.iter_modules(getattr(package, "__path__", ())):
                if not inner.name.startswith("_"):
                    try:
                        yield importlib.import_module(f"{name}.{inner.name}")
                    except ImportError:  # a module for another operating system
                        continue


def _documented(module: ModuleType) -> Iterator[object]:
    yield module
    for name, member in sorted(vars(module).items()):
        if not name.startswith("_") and (inspect.isclass(member) or inspect.isroutine(member)):
            yield member
            if inspect.isclass(member):
                yield from (inner for _, inner in sorted(vars(member).items()) if inspect.isroutine(inner))
