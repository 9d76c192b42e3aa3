"""Moves sequences through their segments: takes in content, and starts, reports and finishes outputs."""

from collections.abc import Callable

from parrotserve.aside import Doing, at_once
from parrotserve.engines.base import FOLLOWED_TOKENS, Event, Generate, SegmentFinished, TokensGenerated, most_allowed
from parrotserve.engines.native.grammars import Grammars
from parrotserve.engines.native.output import OutputState
from parrotserve.engines.native.output_text import EngineTokenizer
from parrotserve.engines.native.sequence import SequenceState
from parrotserve.engines.native.settings import CoreSettings
from parrotserve.errors import ContextExceeded
from parrotserve.sampling import TokenLogprob


class Progress:
    """Advances sequences, and collects the events. All errors of a sequence are raised as `ParrotError`."""

    def __init__(
        self,
        tokenizer: EngineTokenizer,
        settings: CoreSettings,
        *,
        rewind: Callable[[SequenceState, int], None],
        doing: Doing = at_once,
    ) -> None:
        """`rewind(state, position)` forgets what was computed of a sequence from a position on. `doing` makes grammars,
        on another thread or at once."""
        self.events: list[Event] = []
        """Events not sent yet."""
        self._tokenizer = tokenizer
        self._settings = settings
        self._rewind = rewind
        self.grammars = Grammars(tokenizer, doing)

    def take_events(self) -> list[Event]:
        """Removes and returns the collected events."""
        events, self.events = self.events, []
        return events

    def check_length(self, state: SequenceState) -> None:
        """Raises `ContextExceeded` if the known content of a sequence is already too long."""
        limit = self._settings.context_length
        if state.known_length > limit:
            raise ContextExceeded(
                f"The prompt has {state.known_length - state.wants_output} tokens, which exceeds the available context "
                f"size: {most_allowed(limit, cut_by_cache=self._settings.cut_by_cache)}"
            )

    def advance(self, state: SequenceState) -> bool:
        """Takes in content that has become known, and starts the next output once its grammar is ready. Returns True if
        the whole sequence is complete."""
        state.dormant = False
        for generate in state.take_content():
            state.output = self._start(state, generate)
            if state.output is None:
                break
            state.known.extend(state.output.tokens)
            if state.output.reason is not None:
                self._finish(state, state.output)
            elif state.computed == len(state.known):
                self._rewind(state, len(state.known) - 1)  # compute the last token again, for the logits after it
        if state.runs_ahead and state.outputs_left:
            self._room(state)
        return not state.outputs_left if state.wants_output else state.runs_out

    def push(self, state: SequenceState, token: int, logprob: TokenLogprob | None, *, more: bool) -> bool:
        """Adds a token to the current output, and reports it unless there are `more` in this step. Returns True if the
        whole sequence is complete."""
        output = state.output
        assert output is not None
        state.output_tokens += 1
        output.push(token, logprob)
        if output.reason is None:
            state.known.append(token)
            if not more:
                self.tell_tokens(state)
            return False
        self._finish(state, output)
        return self.advance(state)

    def tell_tokens(self, state: SequenceState) -> None:
        """Adds one event with the unreported tokens of the current output, if somebody streams it. If it is only
        followed, there must be `FOLLOWED_TOKENS` of them."""
        output = state.output
        if output is None:
            return
        if output.segment not in state.streamed_segments:
            enough = output.reason is None and len(output.tokens) - output.told_tokens >= FOLLOWED_TOKENS
            if output.segment not in state.followed_segments or not enough:
                return
        if len(output.tokens) == output.told_tokens and output.text.given == output.told_text:
            return
        text = output.text.given_since(output.told_text)
        event = TokensGenerated(
            sequence=state.sequence,
            epoch=state.epoch,
            segment=output.segment,
            offset=output.told_tokens,
            tokens=tuple(output.tokens[output.told_tokens :]),
            text=text,
            logprobs=tuple(output.logprobs[output.told_tokens - output.delivered :]) if output.logprobs else (),
        )
        self.events.append(event)
        output.told_tokens = len(output.tokens)
        output.told_text += len(text)

    def _start(self, state: SequenceState, generate: Generate) -> OutputState | None:
        """Starts the output at the sequence's cursor; None while its grammar is being made."""
        if not state.known:
            state.known.append(self._first_token())
        room = self._room(state)
        grammar = self.grammars.of(state, generate) if generate.has_grammar else None
        if generate.has_grammar and grammar is None:
            return None
        return OutputState(
            generate,
            segment=state.cursor,
            prompt=state.known,
            room=room,
            tokenizer=self._tokenizer,
            grammar=grammar,
        )

    def _room(self, state: SequenceState) -> int:
        """The most tokens that the next output may have. Raises `ContextExceeded` if that is none."""
        limit = self._settings.context_length
        room = limit - len(state.known)
        if room >= 1:
            return room
        allowed = most_allowed(limit, cut_by_cache=self._settings.cut_by_cache, shorten="the prompt or earlier outputs")
        raise ContextExceeded(
            f"The sequence has {len(state.known)} tokens before an output, which leaves no room for it: {allowed}"
        )

    def _first_token(self) -> int:
        """The token that stands for an empty prompt, as a model needs input: its start token, or else its end token."""
        bos = self._tokenizer.bos
        return bos if bos is not None else min(self._tokenizer.eos, default=0)

    def _finish(self, state: SequenceState, output: OutputState) -> None:
        assert output.reason is not None
        self.tell_tokens(state)
        finished = SegmentFinished(
            sequence=state.sequence,
            epoch=state.epoch,
            segment=output.segment,
            tokens=tuple(output.tokens),
            text=output.text.text,
            reason=output.reason,
            logprobs=tuple(output.logprobs),
        )
        self.events.append(finished)
        self._rewind(state, state.end_output())
