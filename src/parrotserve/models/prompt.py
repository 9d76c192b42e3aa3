"""Turning a prompt into tokens segment by segment, so that prompts with a common beginning begin with equal tokens.

Every text is tokenised on its own: a token never spans two segments. In most vocabularies words include the white
space before them, so white space at the end of a segment is held back and tokenised with the next one. One space
before an output is left to the model, whose first word includes it; that space is not part of the output.
"""

from collections.abc import Callable, Sequence

from parrotserve.models.tokenizer import Tokenizer


class PromptTokenizer:
    """Tokenises one prompt from its start, segment after segment.

    All returned lists, joined, decode to the prompt without the one space withheld before each output. Prompts with
    equal first segments get equal tokens for them; only white space at the end of these may come later.
    """

    __slots__ = ("_carry", "_count", "_started", "_tokenizer", "_within", "withheld")

    def __init__(self, tokenizer: Tokenizer, *, within: Callable[[int], None] | None = None) -> None:
        """`within` is called before each text is tokenised, with a lower bound of the tokens that the prompt then has.
        It may raise if these are too many, which spares the work."""
        self._tokenizer = tokenizer
        self._within = within
        self._count = 0
        self._carry = ""
        self._started = False
        self.withheld = False
        """Whether a space was left to the model before the last output."""

    def text(self, text: str, *, template: bool = False) -> list[int]:
        """Add a text. Returns the tokens that no later text can change. `template` marks text of a chat template, the
        only text in which control tokens are recognised."""
        pending = self._carry + text
        if self._within is not None:
            self._within(self._count + len(pending) // self._tokenizer.longest_token)
        certain = pending.rstrip()
        self._carry = pending[len(certain) :]
        return self._encode(certain, special=template) if certain else []

    def tokens(self, tokens: Sequence[int]) -> list[int]:
        """Add given tokens. Returns the tokens of what was held back, then these; a prompt that begins with them gets
        no `Tokenizer.prompt_start`."""
        before = self._encode(self._carry, special=False) if self._carry else []
        self._carry = ""
        self._started = True
        self._count += len(tokens)
        return [*before, *tokens]

    def beginning(self, text: str) -> list[int]:
        """Those first tokens of a text that is still being written which nothing written later can change.

        They end before a space that follows a word. No token spans such a space (for a vocabulary with tokens that do,
        the result is empty), and no pattern that splits text into words looks across it, so what follows is tokenised
        independently. Does not change this prompt.
        """
        if self._tokenizer.joins_words:
            return []
        pending = self._carry + text
        cut = _end_of_last_whole_word(pending)
        return self._encode(pending[:cut], special=False, begin=False) if cut else []

    def before_output(self) -> list[int]:
        """The tokens of what was held back, without one space at its end: the model goes on from here."""
        self.withheld = self._carry.endswith(" ")
        pending = self._carry.removesuffix(" ")
        self._carry = ""
        return self._encode(pending, special=False)

    def _encode(self, text: str, *, special: bool, begin: bool = True) -> list[int]:
        tokens = self._tokenizer.encode(text, special=special)
        self._count += len(tokens) if begin else 0
        if self._started:
            return tokens
        self._started = begin
        start = self._tokenizer.prompt_start
        # Many chat templates write BOS themselves.
        return tokens if start and tokens[: len(start)] == start else start + tokens


def _end_of_last_whole_word(text: str) -> int:
    """The index of the last space that follows a visible character; 0 if there is none."""
    end = text.rfind(" ")
    while end > 0 and (text[end - 1].isspace() or not text[end - 1].isprintable()):
        end = text.rfind(" ", 0, end)
    return max(end, 0)
