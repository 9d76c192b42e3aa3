"""Turning bodies into calls: a batch of the protocol, and what the answer reports of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from parrotserve.criteria import Criteria
from parrotserve.errors import DeclarationError
from parrotserve.ids import RequestId, SessionId, TenantId, VariableId, new_id
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.protocol import (
    OutputSegment,
    RequestSpec,
    RoleSegment,
    Submit,
    TextSegment,
    TokensSegment,
    VariableSpec,
    WaitSpec,
    WireSegment,
)
from parrotserve.runtime.catalog import ServedModel
from parrotserve.sampling import Sampling
from parrotserve.segments import Role
from parrotserve.server.openai.extension import Inputs, variable_id
from parrotserve.server.openai.messages import segments_of
from parrotserve.server.openai.tools import AnswerForm, Tools, described, tools_of
from parrotserve.server.openai.wire import ChatRequest, CompletionRequest, Generation, ResponseFormat

REPEATABLE_SECONDS = 600.0
"""Time after its last use during which an answer to a request with an Idempotency-Key can be repeated."""
KEPT_SECONDS = 3600.0
"""Time after its last use during which a response that is kept can be asked for and continued."""

_SEEDS = 2**63
_FORMAT = "response_format"


@dataclass(frozen=True, slots=True)
class Asked:
    """The model of a request, with the limits that apply to it."""

    model: ServedModel
    context_length: int
    usual_output: int
    """Most tokens of an answer if the request does not say."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.model.renderer.tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What a chat request's fields are called in the body that it was made of."""

    messages: Sequence[str]
    """The place of each message."""
    prompt: str
    """The field with the conversation."""
    most: str
    """The field with the most tokens of the answer."""
    form: str
    """The field with the answer's format."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a request's ids are made from: fresh, or for an Idempotency-Key the same every time."""

    base: str
    session: SessionId
    keeps_session: bool
    repeatable: bool
    kept: bool = False
    """Whether the answer is kept, in a session of its own, if somebody gets it."""

    @classmethod
    def of(cls, body: Generation, *, tenant: TenantId, key: str | None, kept: bool = False) -> "Origin":
        """The origin of the ids for a body, which names no session if the answer is to be `kept`."""
        extension = body.extension
        digest = hashlib.blake2b(f"{tenant}\0{key}".encode(), digest_size=16).hexdigest() if key else None
        base = f"i-{digest}" if digest else new_id("c")
        session = extension.session or (base if digest or kept else new_id("s"))
        keeps_session = extension.keeps_session or digest is not None or kept
        return cls(base, SessionId(session), keeps_session, digest is not None, kept)

    @property
    def note(self) -> str:
        """The id of a variable beside the requests, whose value says what was asked for."""
        return self.note_of(self.base)

    @staticmethod
    def note_of(base: str) -> str:
        """The `note` of an origin with this base."""
        return f"{base}.asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request to the OpenAI-compatible API, as the service is to carry it out."""

    asked: Asked
    origin: Origin
    submit: Submit
    variables: tuple[VariableId, ...]
    """The variables whose values are the choices of the answer, in order."""
    requests: tuple[RequestId, ...]
    """The requests that produce these; empty for an output that was declared before."""
    choices: int = 1
    """Choices for each prompt."""
    wait: bool = True
    output: str | None = None
    """The name of the output that the request declares or asks for, if it has one."""
    tools: Tools | None = None
    prompts: tuple[str, ...] = ()
    """The prompt to repeat before the text of each choice; empty without `echo`."""
    prompt_field: str | None = None
    """The field of the body with the prompt; None for an output that was declared before."""
    schema_field: str | None = None
    """The field of the body with the JSON schema; None if two fields have one."""

    def noting(self, asked_for: str) -> "Submission":
        """The same, with a note that says what was asked for."""
        note = self.origin.note
        others = (spec for spec in self.submit.variables if spec.id != note)
        variables = (VariableSpec(id=note, value=asked_for), *others)
        return replace(self, submit=self.submit.model_copy(update={"variables": variables}))

    @property
    def noted(self) -> int:
        """Characters of its note."""
        return sum(len(spec.value or "") for spec in self.submit.variables if spec.id == self.origin.note)

    def with_places(self, places: Places) -> "Submission":
        """The same, with fields named as in the body that the chat was made of."""
        schema = places.form if self.schema_field == _FORMAT else self.schema_field
        return replace(self, prompt_field=self.prompt_field and places.prompt, schema_field=schema)


def chat_submission(body: ChatRequest, *, asked: Asked, origin: Origin, places: Places | None = None) -> Submission:
    """The call of a chat request. Raises `DeclarationError`, which names the field; with `places`, the field of the
    body that the chat was made of."""
    if body.extension.get is not None:
        return _asking(body, asked, origin)
    template = asked.model.renderer.template
    usable = tools_of(body, template)
    inputs = Inputs(origin.session, origin.base, body.extension.inputs)
    said = segments_of(
        body.messages,
        inputs,
        template,
        chat_template_kwargs=body.chat_template_kwargs or {},
        places=None if places is None else places.messages,
    )
    inputs.check_used()
    opening: tuple[WireSegment, ...] = (RoleSegment(role=Role.ASSISTANT, verbatim=True),)
    if usable is not None and usable.opening:
        opening += (TextSegment(text=usable.opening),)
    most_is = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    sampling = _sampling(
        body,
        asked,
        most=body.max_completion_tokens or body.max_tokens,
        most_is=most_is if places is None else places.most,
        schema=usable.schema()
        if usable is not None and usable.form is AnswerForm.CALLS
        else _schema(body.response_format),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        stops=usable.stops if usable is not None else (),
    )
    submission = _declaring(body, asked, origin, [(*said, *opening)], sampling, inputs, tools=usable)
    return submission if places is None else submission.with_places(places)


def completion_submission(body: CompletionRequest, *, asked: Asked, origin: Origin) -> Submission:
    """The call of a completion request. Raises `DeclarationError`, which names the field."""
    if body.extension.get is not None:
        return _asking(body, asked, origin)
    inputs = Inputs(origin.session, origin.base, body.extension.inputs)
    prompts = [_prompt(prompt, inputs) for prompt in body.prompts]
    inputs.check_used()
    if body.echo and inputs.given:
        raise DeclarationError("echo cannot repeat inputs: their values are not known yet.", param="echo")
    sampling = _sampling(
        body, asked, most=body.max_tokens or min(16, asked.usual_output), logprobs=body.logprobs, keep_space=True
    )
    echoed = tuple(_text(prompt, asked) for prompt in body.prompts for _ in range(body.choices)) if body.echo else ()
    return _declaring(body, asked, origin, prompts, sampling, inputs, chat=False, echoed=echoed)


def _prompt(prompt: str | list[int], inputs: Inputs) -> tuple[WireSegment, ...]:
    return tuple(inputs.split(prompt)) if isinstance(prompt, str) else (TokensSegment(tokens=tuple(prompt)),)


def _text(prompt: str | list[int], asked: Asked) -> str:
    return prompt if isinstance(prompt, str) else asked.tokenizer.decode(prompt)


def _declaring(
    body: Generation,
    asked: Asked,
    origin: Origin,
    prompts: Sequence[tuple[WireSegment, ...]],
    sampling: Sampling,
    inputs: Inputs,
    *,
    chat: bool = True,
    tools: Tools | None = None,
    echoed: tuple[str, ...] = (),
) -> Submission:
    name = body.extension.output
    count = len(prompts) * body.choices
    ids = [f"{origin.base}.{number}" for number in range(count)]
    outputs = [variable_id(origin.session, name)] if name else ids
    asked_for = f"{len(prompts)} x {body.choices} texts" + (", echoed" if echoed else "")
    told = described(body) if tools is not None and isinstance(body, ChatRequest) else ()
    kwargs = body.chat_template_kwargs if isinstance(body, ChatRequest) else None
    calls = tools.allowed_calls() if tools is not None else None
    requests = tuple(
        RequestSpec(
            id=ids[number],
            function=name or "",
            model=body.model,
            chat=chat,
            segments=(
                *prompts[number // body.choices],
                OutputSegment(variable=outputs[number], sampling=each, calls=calls),
            ),
            tools=told,
            chat_template_kwargs=kwargs or {},
        )
        for number, each in enumerate(_seeded(sampling, body.choices) * len(prompts))
    )
    variables = (*inputs.variables, *(VariableSpec(id=output, name=name) for output in outputs))
    return Submission(
        asked=asked,
        origin=origin,
        submit=_submit(body, origin, outputs, (*_noted(origin, asked_for), *variables), requests),
        variables=tuple(map(VariableId, outputs)),
        requests=tuple(map(RequestId, ids)),
        choices=body.choices,
        wait=body.extension.wait,
        output=name,
        tools=tools,
        prompts=echoed,
        prompt_field="messages" if chat else "prompt",
        schema_field=_schema_field(tools),
    )


def _schema_field(tools: Tools | None) -> str | None:
    if tools is None:
        return _FORMAT
    return None if tools.form is AnswerForm.FORMAT_OR_CALLS else "tools"


def _asking(body: Generation, asked: Asked, origin: Origin) -> Submission:
    """The call for an output that was declared before."""
    variable = variable_id(origin.session, body.extension.get or "")
    submit = _submit(body, origin, [variable], _noted(origin, f"get {variable}"), ())
    return Submission(
        asked=asked,
        origin=origin,
        submit=submit,
        variables=(VariableId(variable),),
        requests=(),
        output=body.extension.get,
    )


def _noted(origin: Origin, asked_for: str) -> tuple[VariableSpec, ...]:
    """A variable whose value records the rest of what an Idempotency-Key stands for, beside the requests. A submit that
    gives it another value is refused, as one with other requests is."""
    return (VariableSpec(id=origin.note, value=asked_for),) if origin.repeatable else ()


def _submit(
    body: Generation,
    origin: Origin,
    outputs: Sequence[str],
    variables: tuple[VariableSpec, ...],
    requests: tuple[RequestSpec, ...],
) -> Submit:
    extension = body.extension
    criteria = extension.criteria or (Criteria.TTFT if body.stream else Criteria.LATENCY)
    waits = [WaitSpec(variable=output, criteria=criteria, stream=bool(body.stream)) for output in outputs]
    asked_for = extension.wait or extension.criteria is not None
    return Submit(
        session=origin.session,
        lease_seconds=_lease(origin, extension.lease_seconds),
        variables=variables,
        requests=requests,
        wait=tuple(waits) if asked_for else (),
    )


def _lease(origin: Origin, given: float) -> float:
    if origin.kept:
        return KEPT_SECONDS
    return REPEATABLE_SECONDS if origin.repeatable else given


def _sampling(
    body: Generation,
    asked: Asked,
    *,
    most: int | None,
    most_is: str = "max_tokens",
    logprobs: int | None,
    schema: dict[str, Any] | None = None,
    keep_space: bool = False,
    stops: tuple[str, ...] = (),
) -> Sampling:
    """The sampling that a body asks for, with OpenAI's defaults: a temperature of 1, and as many tokens as may be."""
    if most is not None and most > asked.context_length:
        raise DeclarationError(
            f"{most_is} is {most}, but prompt and answer together may have {asked.context_length} tokens here.",
            param=most_is,
        )
    given = body.stop if body.stop is not None else ()
    stop = ((given,) if isinstance(given, str) else tuple(given)) + stops
    return Sampling(
        max_tokens=most or asked.usual_output,
        temperature=0.0 if body.top_p == 0 else 1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p or 1.0,  # for 0, which leaves only the likeliest token, the temperature is 0
        top_k=max(0, body.top_k or 0),
        min_p=body.min_p or 0.0,
        stop=stop,
        seed=None if body.seed is None else body.seed % _SEEDS,
        min_tokens=body.min_tokens or 0,
        ignore_eos=bool(body.ignore_eos),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        logit_bias={int(token): float(bias) for token, bias in (body.logit_bias or {}).items()},
        logprobs=logprobs,
        schema=schema,
        keep_space=keep_space,
    )


def _seeded(sampling: Sampling, count: int) -> list[Sampling]:
    """The sampling of each choice of a prompt: a given seed is that of the first, and the others' count up from it, so
    that they differ reproducibly."""
    if sampling.seed is None:
        return [sampling] * count
    return [replace(sampling, seed=(sampling.seed + number) % _SEEDS) for number in range(count)]


def _schema(form: ResponseFormat | None) -> dict[str, Any] | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "object"}
    if form.json_schema is None or form.json_schema.schema_ is None:
        raise DeclarationError(
            "A response_format of type json_schema needs a json_schema with a schema.",
            param="response_format.json_schema",
        )
    return form.json_schema.schema_
