"""How long prompts and outputs are in tokens, as far as can be told without a tokenizer and before they are written.

The machine knows characters. Ended runs tell how many tokens they were: so the ratio is learned online, for each model
and tenant, whose texts are mostly in one language. That is as good as a tokenizer for choosing a place, costs nothing,
and needs no text in the machine's events. What a function writes is guessed from what it wrote before; what a new one
writes, from how much of what they may write its tenant's others do.
"""

from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import TypeVar

from parrotserve.graph.objects import Request, Variable
from parrotserve.ids import TenantId
from parrotserve.sampling import Sampling, Usage
from parrotserve.segments import Output

K = TypeVar("K")
V = TypeVar("V")

_FIRST_RATIO = 4.0
"""Characters a token, before anything was seen: English in a large vocabulary."""
_FIRST_SHARE = 0.5
"""Of the most tokens that an output may have, how many it is thought to get, before its tenant had any."""
_MEMORY = 0.98
"""What an earlier run still weighs after another one."""
_STEP = 0.3
"""How far a guess moves towards the last output."""
_MOST_REMEMBERED = 1024
"""Functions whose outputs are remembered, and tenants: the latest ones."""


class Ratio:
    """How many characters of one tenant's texts make a token."""

    __slots__ = ("_chars", "_tokens")

    def __init__(self) -> None:
        self._chars = _FIRST_RATIO * 100
        self._tokens = 100.0

    @property
    def chars_per_token(self) -> float:
        """How many characters of a prompt make a token."""
        return self._chars / self._tokens

    def tokens(self, chars: float) -> float:
        """How many tokens so many characters are."""
        return chars / self.chars_per_token

    def learn(self, chars: float, tokens: float) -> None:
        """A prompt of so many characters had so many tokens."""
        self._chars = self._chars * _MEMORY + chars
        self._tokens = self._tokens * _MEMORY + tokens


class Estimates:
    """What is learned of one model's prompts and outputs."""

    def __init__(self) -> None:
        self._ratios: OrderedDict[TenantId, Ratio] = OrderedDict()
        self._outputs: OrderedDict[tuple[TenantId, str], float] = OrderedDict()
        self._shares: OrderedDict[TenantId, float] = OrderedDict()
        """How much of what they may write a tenant's requests write."""
        self.longest = inf
        """Tokens of the largest context that there is: nothing more is ever written, whatever a request asks for."""

    def ratio(self, tenant: TenantId) -> Ratio:
        """A tenant's: what is learned later shows in it."""
        ratio = self._ratios.get(tenant)
        if ratio is None:
            ratio = self._ratios[tenant] = Ratio()
            _limit(self._ratios)
        return ratio

    def output_tokens(self, request: Request) -> float:
        """How many tokens a request's outputs will have, together."""
        samplings = _samplings(request)
        least, sure = 0, True
        for sampling in samplings:
            least += sampling.min_tokens
            sure = sure and sampling.ignore_eos and not sampling.stop
        most = self._most(samplings)
        if sure:
            return most
        share = self._shares.get(request.session.tenant, _FIRST_SHARE)
        guess = self._outputs.get(_key(request), most * share)
        return min(max(guess, least, len(samplings)), most)

    def output_chars(self, variable: Variable) -> float:
        """How many characters a variable will have whose value is not known yet."""
        producer = variable.producer
        if not isinstance(producer, Request):
            return 0.0
        ratio = self.ratio(producer.session.tenant)
        return self.output_tokens(producer) / len(producer.outputs) * ratio.chars_per_token

    def learn(self, request: Request, prompt_chars: float, usage: Usage) -> None:
        """A run of a request with such a prompt ended, complete."""
        tenant = request.session.tenant
        if usage.prompt_tokens > 0 and prompt_chars > 0:
            self.ratio(tenant).learn(prompt_chars, usage.prompt_tokens)
            self._ratios.move_to_end(tenant)
        _follow(self._outputs, _key(request), usage.output_tokens)
        most = self._most(_samplings(request))
        if most > 0:
            _follow(self._shares, tenant, usage.output_tokens / most)

    def _most(self, samplings: Sequence[Sampling]) -> float:
        """Tokens that such outputs may have together."""
        return min(sum(sampling.max_tokens for sampling in samplings), self.longest)


def _follow(guesses: OrderedDict[K, float], key: K, value: float) -> None:
    """Move a guess towards what was seen; the first one is that."""
    before = guesses.pop(key, value)
    guesses[key] = before + _STEP * (value - before)
    _limit(guesses)


def _limit(remembered: OrderedDict[K, V]) -> None:
    if len(remembered) > _MOST_REMEMBERED:
        remembered.popitem(last=False)


def _samplings(request: Request) -> list[Sampling]:
    return [part.sampling for part in request.spec.segments if isinstance(part, Output)]


def _key(request: Request) -> tuple[TenantId, str]:
    return request.session.tenant, request.function
