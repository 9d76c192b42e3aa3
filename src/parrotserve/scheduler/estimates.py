"""Estimates of the lengths of prompts and outputs in tokens, without a tokenizer and before outputs are written.

The machine knows characters. Runs that end report their tokens, so the ratio is learned online, per model and tenant
(whose texts are mostly in one language). For choosing a place this is as good as a tokenizer, costs nothing, and needs
no text in the machine's events. The output length of a function is estimated from its earlier outputs; that of a new
function from the fraction of `max_tokens` that its tenant's other functions use.
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
"""Characters per token before anything was learned: English text in a large vocabulary."""
_FIRST_SHARE = 0.5
"""Fraction of `max_tokens` that an output is assumed to have before its tenant had any."""
_MEMORY = 0.98
"""Factor by which the weight of earlier runs shrinks with each new one."""
_STEP = 0.3
"""Fraction of the way that an estimate moves towards the latest output."""
_MOST_REMEMBERED = 1024
"""Most functions, and most tenants, that are remembered: the latest ones."""


class Ratio:
    """Characters per token in one tenant's texts."""

    __slots__ = ("_chars", "_tokens")

    def __init__(self) -> None:
        self._chars = _FIRST_RATIO * 100
        self._tokens = 100.0

    @property
    def chars_per_token(self) -> float:
        """Characters per token."""
        return self._chars / self._tokens

    def tokens(self, chars: float) -> float:
        """Estimated tokens of `chars` characters."""
        return chars / self.chars_per_token

    def learn(self, chars: float, tokens: float) -> None:
        """Learn that a prompt of `chars` characters had `tokens` tokens."""
        self._chars = self._chars * _MEMORY + chars
        self._tokens = self._tokens * _MEMORY + tokens


class Estimates:
    """What has been learned about the prompts and outputs of one model."""

    def __init__(self) -> None:
        self._ratios: OrderedDict[TenantId, Ratio] = OrderedDict()
        self._outputs: OrderedDict[tuple[TenantId, str], float] = OrderedDict()
        self._shares: OrderedDict[TenantId, float] = OrderedDict()
        """Fraction of `max_tokens` that a tenant's requests write."""
        self.longest = inf
        """Tokens of the largest context of any engine, which bounds every output whatever its `max_tokens`."""

    def ratio(self, tenant: TenantId) -> Ratio:
        """A tenant's ratio, a live object that goes on learning."""
        ratio = self._ratios.get(tenant)
        if ratio is None:
            ratio = self._ratios[tenant] = Ratio()
            _limit(self._ratios)
        return ratio

    def output_tokens(self, request: Request) -> float:
        """Estimated tokens of a request's outputs together."""
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
        """Estimated characters of a variable whose value is not known yet."""
        producer = variable.producer
        if not isinstance(producer, Request):
            return 0.0
        ratio = self.ratio(producer.session.tenant)
        return self.output_tokens(producer) / len(producer.outputs) * ratio.chars_per_token

    def learn(self, request: Request, prompt_chars: float, usage: Usage) -> None:
        """Learn from a complete run of a request whose prompt had `prompt_chars` characters."""
        tenant = request.session.tenant
        if usage.prompt_tokens > 0 and prompt_chars > 0:
            self.ratio(tenant).learn(prompt_chars, usage.prompt_tokens)
            self._ratios.move_to_end(tenant)
        _follow(self._outputs, _key(request), usage.output_tokens)
        most = self._most(_samplings(request))
        if most > 0:
            _follow(self._shares, tenant, usage.output_tokens / most)

    def _most(self, samplings: Sequence[Sampling]) -> float:
        """Most tokens that these outputs may have together."""
        return min(sum(sampling.max_tokens for sampling in samplings), self.longest)


def _follow(guesses: OrderedDict[K, float], key: K, value: float) -> None:
    """Move an estimate towards `value`; the first value becomes the estimate."""
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
