"""Texts to compare tokenizers and models on: seeded draws from Python's own documentation, code and Unicode."""

import importlib
import inspect
import random
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType

_MODULES = """
    argparse ast asyncio bisect calendar collections configparser contextlib csv datetime decimal difflib email
    enum fractions functools glob gzip heapq html http inspect io ipaddress itertools json keyword locale logging
    math mimetypes numbers os pathlib pickle platform pprint queue random re sched shelve shlex shutil socket
    sqlite3 statistics string struct subprocess tarfile tempfile textwrap threading timeit tokenize traceback
    typing unittest urllib uuid warnings wave weakref xml zipfile
"""
_LEAST_CHARACTERS = 60

# Letters and signs of scripts that byte-level vocabularies treat differently, and characters that trip tokenizers.
_SCRIPTS: dict[str, Sequence[str]] = {
    "latin": "àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿœšžßĳſ",
    "greek": [chr(c) for c in range(0x3B1, 0x3CA)],
    "cyrillic": [chr(c) for c in range(0x430, 0x450)],
    "hebrew": [chr(c) for c in range(0x5D0, 0x5EB)],
    "arabic": [chr(c) for c in range(0x627, 0x64B)],
    "devanagari": [chr(c) for c in range(0x905, 0x93A)] + [chr(c) for c in range(0x93E, 0x94E)],
    "thai": [chr(c) for c in range(0xE01, 0xE3B)],
    "hiragana": [chr(c) for c in range(0x3042, 0x3094)],
    "han": [chr(c) for c in range(0x4E00, 0x5000)],
    "hangul": [chr(c) for c in range(0xAC00, 0xAD00)],
    "mathematics": [chr(c) for c in range(0x2200, 0x2240)] + [chr(c) for c in range(0x1D400, 0x1D440)],
    "emoji": ["😀", "🎉", "🦜", "👩‍💻", "👨‍👩‍👧‍👦", "🇩🇪", "🏳️‍🌈", "❤️", "👍🏽", "☕"],
    "marks": ["é", "ñ", "ȧ̈", "Å", "\u200b", "\u200d", "\ufeff", "\u202e", "ﬁ", "Ⅷ", "…", "—", "“", "”"],
}
_DIGITS = ["²", "½", "٣", "५", "Ⅳ", "①", "〇", "０", "๙"]
_SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\x0b", "\x0c", " \n", "\n "]
_SPECIALS = """
    <|endoftext|> <|im_start|> <|im_end|> <repo_name> <reponame> <file_sep> <filename> <gh_stars> <issue_start>
    <issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <jupyter_script>
    <empty_output> <|im_end <|im_start|>user |im_end|> <| </s> <s> [INST] <|eot_id|>
"""


class Corpus:
    """The documentation and code of the running Python, and seeded draws from them and from Unicode."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._specials = _SPECIALS.split()
        modules = [importlib.import_module(name) for name in _MODULES.split()]
        self._documentation = _long_enough(text for module in modules for text in _docstrings(module))
        self._code = _long_enough(text for module in modules for text in _sources(module))

    def tokenizer_texts(self, count: int) -> list[str]:
        """Short texts of every kind."""
        kinds = (
            lambda: self._excerpt(self._documentation),
            lambda: self._excerpt(self._code),
            self._unicode_text,
            self._digits_text,
            self._white_space_text,
            self._special_text,
        )
        return [kinds[index % len(kinds)]() for index in range(count)]

    def documentation(self) -> list[str]:
        """All documentation strings that are not too short, module by module."""
        return self._documentation

    def long_text(self, kind: int, characters: int) -> str:
        """Documentation (0), code (1) or Unicode (2) of at least so many characters."""
        draw = (
            lambda: self._random.choice(self._documentation),
            lambda: self._random.choice(self._code),
            self._unicode_text,
        )[kind % 3]
        text = draw()
        while len(text) < characters:
            text += "\n\n" + draw()
        return text

    def length(self, least: int, most: int) -> int:
        """A random length in this range, with every order of magnitude equally likely."""
        return round(least * (most / least) ** self._random.random())

    def _excerpt(self, texts: list[str]) -> str:
        text = self._random.choice(texts)
        start = self._random.randrange(len(text))
        return text[start : start + self._random.randint(10, 240)]

    def _unicode_text(self) -> str:
        letters = _SCRIPTS[self._random.choice(list(_SCRIPTS))]
        words = [
            "".join(self._random.choices(letters, k=self._random.randint(1, 8)))
            for _ in range(self._random.randint(2, 14))
        ]
        if self._random.random() < 0.5:
            words.insert(self._random.randrange(len(words)), self._random.choice(self._documentation)[:20])
        return self._random.choice((" ", " ", ", ", "")).join(words)

    def _digits_text(self) -> str:
        draw = self._random
        forms = (
            lambda: str(draw.randrange(10 ** draw.randint(1, 20))),
            lambda: f"{draw.uniform(-1e6, 1e6):.{draw.randint(0, 8)}f}",
            lambda: f"{draw.randrange(10**9):,}",
            lambda: f"{draw.randint(1900, 2100)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}",
            lambda: hex(draw.randrange(2**64)),
            lambda: f"{draw.random():e}",
            lambda: f"v{draw.randint(0, 20)}.{draw.randint(0, 99)}x{draw.randint(0, 9)}",
            lambda: "".join(draw.choices(_DIGITS, k=draw.randint(1, 4))),
            lambda: draw.choice(self._documentation)[:12],
        )
        return draw.choice((" ", ", ", "\n", "")).join(draw.choice(forms)() for _ in range(draw.randint(1, 12)))

    def _white_space_text(self) -> str:
        draw = self._random
        words = draw.choice(self._code).split()
        parts: list[str] = []
        for _ in range(draw.randint(1, 16)):
            parts.append("".join(draw.choices(_SPACES, k=draw.randint(1, 4))))
            parts.append(draw.choice(words))
        return "".join(parts[draw.randint(0, 1) : len(parts) - draw.randint(0, 1)])

    def _special_text(self) -> str:
        draw = self._random
        parts = [draw.choice((draw.choice(self._specials), self._excerpt(self._documentation)[:40])) for _ in range(5)]
        return draw.choice(("", " ", "\n")).join([*parts, draw.choice(self._specials)])


def _docstrings(module: ModuleType) -> Iterator[str]:
    for thing in (module, *_members(module)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # in older Pythons, typing.io raises one
            documentation = inspect.getdoc(thing)
        yield documentation or ""


def _sources(module: ModuleType) -> Iterator[str]:
    for thing in _members(module):
        try:
            yield inspect.getsource(thing)
        except (OSError, TypeError):  # written in C
            continue


def _members(module: ModuleType) -> list[object]:
    """The module's own classes and functions, by name."""
    return [
        value
        for _, value in sorted(vars(module).items())
        if (inspect.isclass(value) or inspect.isroutine(value)) and getattr(value, "__module__", "") == module.__name__
    ]


def _long_enough(texts: Iterator[str]) -> list[str]:
    return [text for text in texts if len(text) >= _LEAST_CHARACTERS]
