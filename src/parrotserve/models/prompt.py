"""Turning a prompt into tokens piece by piece, so that prompts that begin alike begin with equal tokens.

Every text is tokenised for itself: a token never spans two segments. Words of most vocabularies bring the white
space before them along, so white space at a boundary waits for the segment after it. One space before an
output is left to the model, whose first word brings it; that space is not part of the output.
"""

from collections.abc import Callable, Sequence

from parrotserve.models.tokenizer import Tokenizer


class PromptTokenizer:
    """The tokens of one prompt, from its start, segment after segment.

    All returned lists, joined, decode to the prompt, less the one space withheld before each output. Prompts whose
    first segments are equal get equal tokens for them; only white space at their end may come later.
    """

    __slots__ = ("_carry", "_count", "_started", "_tokenizer", "_within", "withheld")

    def __init__(self, tokenizer: Tokenizer, *, within: Callable[[int], None] | None = None) -> None:
        """`within` is told of how many tokens the prompt has at least, before a text is made into tokens that it may
        have no room for; what it raises ends the prompt there."""
        self._tokenizer = tokenizer
        self._within = within
        self._count = 0
        self._carry = ""
        self._started = False
        self.withheld = False
        """Whether a space was left to the model before the last output."""

    def text(self, text: str, *, template: bool = False) -> list[int]:
        """The tokens that are certain once this text has come. `template` marks what a chat template wrote: only
        there are control tokens recognised."""
        pending = self._carry + text
        if self._within is not None:
            self._within(self._count + len(pending) // self._tokenizer.longest_token)
        certain = pending.rstrip()
        self._carry = pending[len(certain) :]
        return self._encode(certain, special=template) if certain else []

    def tokens(self, tokens: Sequence[int]) -> list[int]:
        """What was held back, then these very tokens; nothing is put before a prompt that begins with them."""
        before = self._encode(self._carry, special=False) if self._carry else []
        self._carry = ""
        self._started = True
        self._count += len(tokens)
        return [*before, *tokens]

    def beginning(self, text: str) -> list[int]:
        """Of the tokens of a text that is still being written, those that nothing which is written later can change.

        They end before a space that follows a word. No token of these vocabularies goes from a word over a space
        into the next one (where one has such tokens, nothing is certain), so what follows is tokenised for itself; and
        no pattern that splits words looks over a space from there. Leaves this prompt as it is.
        """
        if self._tokenizer.joins_words:
            return []
        pending = self._carry + text
        cut = _end_of_last_whole_word(pending)
        return self._encode(pending[:cut], special=False, begin=False) if cut else []

    def before_output(self) -> list[int]:
        """What was held back, but for one space: the model goes on from here."""
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
    """Where the last space stands that follows a visible character; 0: there is none."""
    end = text.rfind(" ")
    while end > 0 and (text[end - 1].isspace() or not text[end - 1].isprintable()):
        end = text.rfind(" ", 0, end)
    return max(end, 0)
