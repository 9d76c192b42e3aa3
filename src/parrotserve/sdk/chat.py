"""Conversations: every turn is a request that repeats the turns before it, word for word, and adds one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from parrotserve.ids import new_id
from parrotserve.names import check_names, takes_names
from parrotserve.protocol import InputSegment, RequestSpec, RoleSegment, WireSegment
from parrotserve.sampling import Sampling
from parrotserve.sdk.arguments import produced_in, text_of
from parrotserve.sdk.declaring import Declaring
from parrotserve.sdk.options import SAMPLING_FIELDS, SamplingOptions, check_model, sampling_from, template_kwargs
from parrotserve.sdk.session import Session, session_for
from parrotserve.sdk.variable import SemanticVariable
from parrotserve.segments import Role


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said, and the model's reply."""

    user: SemanticVariable
    reply: SemanticVariable


@takes_names
class Chat:
    """A conversation with a model.

        chat = P.Chat(system="You are a helpful parrot.", temperature=0.7)
        for piece in chat.say("Who are you?").stream():
            print(piece, end="")

    Each turn's request begins with all of the turn before it, so an engine continues from the KV cache that it has. A
    turn may be added before earlier replies exist: the service runs the turns one after another. A turn whose reply is
    known to have failed is left out of the turns after it. A conversation may continue in another session, with the
    texts of those replies that the program has.

    `system`, `model`, `chat_template_kwargs` (values for variables of its chat template) and the fields of `Sampling`
    apply to all turns.
    """

    def __init__(
        self,
        *,
        system: str | SemanticVariable | None = None,
        model: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SamplingOptions],
    ) -> None:
        check_names(options, SAMPLING_FIELDS | {"system", "model", "chat_template_kwargs"}, "Chat")
        check_model(model)
        self.turns: list[Turn] = []
        self._copies: dict[SemanticVariable, SemanticVariable] = {}
        """For variables that another session produced: variables with the same text, usable in any session."""
        self.model = model
        self.chat_template_kwargs = template_kwargs(chat_template_kwargs)
        self.sampling = sampling_from(options) or Sampling()
        self.system = system if system is None or isinstance(system, SemanticVariable) else _said(system, Role.SYSTEM)

    def say(self, text: str | SemanticVariable, **options: Unpack[SamplingOptions]) -> SemanticVariable:
        """Add a turn and return its reply, a variable. `options` (fields of `Sampling`) apply to this turn only."""
        check_names(options, SAMPLING_FIELDS, "say()")
        user = text if isinstance(text, SemanticVariable) else _said(text, Role.USER)
        sampling = sampling_from(options, base=self.sampling) or self.sampling
        history = list(self._history())
        history.append((Role.USER, user))
        session = session_for(produced_in(variable for _, variable in history))
        history = [(role, self._usable_in(session, variable)) for role, variable in history]
        variables = [variable for _, variable in history]
        with session.declaring:
            call = Declaring(session, variables)
            segments: list[WireSegment] = []
            for role, variable in history:
                segments += (RoleSegment(role=role), InputSegment(variable=call.input(variable)))
            segments += (RoleSegment(role=Role.ASSISTANT), call.written(Role.ASSISTANT, sampling))
            call.declare(
                RequestSpec(
                    id=new_id("r"),
                    function="Chat",
                    model=self.model,
                    segments=tuple(segments),
                    chat_template_kwargs=self.chat_template_kwargs,
                )
            )
        self.turns.append(Turn(user, call.outputs[0]))
        return call.outputs[0]

    def __repr__(self) -> str:
        return f"<Chat of {len(self.turns)} turn{'' if len(self.turns) == 1 else 's'}>"

    def _usable_in(self, session: Session, variable: SemanticVariable) -> SemanticVariable:
        text = variable.known_text
        if variable.session in (None, session) or text is None:
            return variable
        return self._copies.setdefault(variable, SemanticVariable(text, name=variable.name))

    def _history(self) -> Iterator[tuple[Role, SemanticVariable]]:
        if self.system is not None:
            yield Role.SYSTEM, self.system
        for turn in self.turns:
            if not turn.reply.failed:
                yield Role.USER, turn.user
                yield Role.ASSISTANT, turn.reply


def _said(text: str, role: Role) -> SemanticVariable:
    return SemanticVariable(text_of(text, f"what the {role.value} says"), name=role.value)
