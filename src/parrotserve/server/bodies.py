"""Reading bodies so that they do not hold others up: few big ones at once, none for long, none on the event loop.

Parsing and checking hold Python's interpreter lock, even in a thread. So a big body is parsed in a separate process,
and the result is checked a few items at a time, so that other threads run in between.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakValueDictionary

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect

from parrotserve.errors import GetTimeout, TooLarge
from parrotserve.protocol import CallSpec, RequestSpec, Submit, VariableSpec, WaitSpec, WireSegment
from parrotserve.server.access import caller_of, service_of, tenant_of
from parrotserve.server.errors import MOST_PROBLEMS
from parrotserve.server.headers import header
from parrotserve.server.json_bodies import CHUNK, Malformed, Parsed, TooMany, join, parse_whole
from parrotserve.server.json_process import JsonProcess
from parrotserve.server.meant import meant

T = TypeVar("T")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

BIG = 64 * 1024
"""Bytes above which a body is parsed by a separate process."""
BIG_AT_A_TIME = 4
"""Most big bodies of one tenant that are read and parsed at the same time; others wait, unread."""
READ_SECONDS = 60.0
"""A body that has not arrived by then is refused."""
MOST_VALUES = 400_000
"""Most values of a body, estimated by its commas and brackets. Parsing so many takes some 50 ms."""


def _unchecked(value: Any) -> Any:
    return value


def _parse(body: bytes) -> Any:
    return join(_parsed(parse_whole(body, most_values=MOST_VALUES)))


class BodyRoute(APIRoute):
    """A route whose body is read as described in this module's docstring."""

    parse: ClassVar[Callable[[bytes], Any]] = staticmethod(_parse)
    """Turns a small body into the value that the handler checks."""
    check: ClassVar[Callable[[Any], Any]] = staticmethod(_unchecked)
    """Turns the parsed value of a big body into the value that the handler checks."""

    def get_route_handler(self) -> Handler:
        """See `APIRoute`."""
        handle = self.handler()
        places = _Places()

        async def read_then_handle(request: Request) -> Response:
            if self.body_field is None:
                return await handle(request)
            _check_encoding(header(request.scope, b"content-encoding"))
            body = _Body(request.scope, request.receive)
            if _is_small(request):
                await body.read(type(self))
                return await handle(body)
            # The place is held for reading only: answers take as long as models write, and need no more memory than
            # answers to small bodies.
            async with places.of(_owner(request)):
                await body.read(type(self))
            return await handle(body)

        return read_then_handle

    def handler(self) -> Handler:
        """The function that answers once the body is read."""
        return super().get_route_handler()


class _Body(Request):
    """A request whose body is read before FastAPI asks for it."""

    _value: Any = None

    async def read(self, route: type[BodyRoute]) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                parts = await self._parts()
        except TimeoutError as error:
            raise GetTimeout(f"The body did not arrive within {READ_SECONDS:g} seconds.") from error
        size = sum(map(len, parts))
        if size > 0:
            _check_type(header(self.scope, b"content-type"))
        if size <= BIG:
            self._body = b"".join(parts)
            if size > 0:
                self._value = route.parse(self._body)
            return
        # The parts are never joined, because allocating megabytes blocks the event loop for milliseconds. One part is
        # enough: FastAPI only asks whether there is a body before it asks for the body's value.
        self._body = parts[0]
        parser: JsonProcess = self.app.state.parser
        parsed = _parsed(await parser.parse(parts))
        self._value = await asyncio.to_thread(lambda: route.check(join(parsed)))

    async def _parts(self) -> list[bytes]:
        parts: list[bytes] = []
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if part := message.get("body", b""):
                parts.append(part)
            more = message.get("more_body", False)
        return parts

    async def json(self) -> Any:
        return self._value


class _Places:
    """Limits how many big bodies of each owner are read at the same time."""

    def __init__(self) -> None:
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, owner: str) -> asyncio.Semaphore:
        places = self._places.get(owner)
        if places is None:
            places = self._places[owner] = asyncio.Semaphore(BIG_AT_A_TIME)
        return places


def _check_encoding(encoding: str) -> None:
    """Refuses compressed bodies: a small one may expand to any size, which is known only once it is in memory."""
    if encoding.strip().lower() not in ("", "identity"):
        why = (
            f"bodies are read as they come, and this one has 'Content-Encoding: {encoding[:100]}': send it uncompressed"
        )
        raise HTTPException(415, why)


def _check_type(content_type: str) -> None:
    """Raises `RequestValidationError` for a body whose content type is not JSON.

    A web page can make a browser send other bodies to a service on the same machine without a CORS preflight.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    came = f"this body came as {kind[:100]!r}" if kind else "this body came without a type"
    why = f"send 'Content-Type: application/json'; {came}"
    raise RequestValidationError([{"type": "content_type", "loc": ("header", "content-type"), "msg": why}])


def _parsed(outcome: Parsed | Malformed | TooMany) -> Parsed:
    """The outcome of a body that was parsed. Raises `TooLarge`, or `RequestValidationError` as FastAPI would."""
    if isinstance(outcome, Parsed):
        return outcome
    if isinstance(outcome, Malformed):
        place = ("body",) if outcome.position is None else ("body", outcome.position)
        why = {
            "type": "json_invalid",
            "loc": place,
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": outcome.why},
        }
        raise RequestValidationError([why])
    raise TooLarge(f"The body holds more than {MOST_VALUES} values; send it in parts.")


def parsed_submit(body: bytes) -> Any:
    """A small batch, parsed and checked in one step. An invalid one is only parsed: the handler's check says why."""
    try:
        return _SUBMIT.validate_json(body)
    except ValidationError:
        return _parse(body)


def checked_submit(whole: Any) -> Any:
    """A big batch, checked a few items at a time. Raises `RequestValidationError` as FastAPI would."""
    if not isinstance(whole, dict):
        return whole  # the handler's check says what is wrong
    fields = cast("dict[str, Any]", whole)
    names = [name for name in (*_ITEMS, "requests") if isinstance(fields.get(name), list)]
    parts: dict[str, list[Any]] = {name: fields.pop(name) for name in names}
    head = _checked(_SUBMIT, fields, ())
    read = {name: _chunks(_ITEMS[name], items, (name,)) for name, items in parts.items() if name in _ITEMS}
    if "requests" in parts:
        read["requests"] = tuple(_request(spec, ("requests", index)) for index, spec in enumerate(parts["requests"]))
    return head.model_copy(update=read)


def _request(spec: Any, place: tuple[str | int, ...]) -> RequestSpec:
    if not isinstance(spec, dict) or not isinstance(spec.get("segments"), list):
        return _checked(_REQUEST, spec, place)
    fields = cast("dict[str, Any]", spec)
    segments = fields["segments"]
    if len(segments) <= CHUNK:
        return _checked(_REQUEST, fields, place)
    head = _checked(_REQUEST, fields | {"segments": []}, place)
    return head.model_copy(update={"segments": _chunks(_SEGMENTS, segments, (*place, "segments"))})


def _chunks(adapter: TypeAdapter[tuple[T, ...]], items: list[Any], place: tuple[str | int, ...]) -> tuple[T, ...]:
    def read() -> Iterator[T]:
        for start in range(0, len(items), CHUNK):
            yield from _checked(adapter, items[start : start + CHUNK], place, start)

    return tuple(read())


def _checked(adapter: TypeAdapter[T], value: Any, place: tuple[str | int, ...], start: int = 0) -> T:
    """The validated value. Raises `RequestValidationError` with places relative to the whole body."""
    try:
        return adapter.validate_python(value, from_attributes=True)  # as FastAPI does, so the messages are the same
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors(include_url=False)]
        unknown = [problem for problem in problems if problem["type"] in _UNKNOWN]
        for problem in unknown[:MOST_PROBLEMS]:
            problem["msg"] = f"there is no such field{meant(adapter, cast('tuple[str | int, ...]', problem['loc']))}"
        for problem in problems:
            where = cast("tuple[str | int, ...]", problem["loc"])
            if where and isinstance(where[0], int):
                where = (where[0] + start, *where[1:])
            problem["loc"] = ("body", *place, *where)
        raise RequestValidationError(problems, body=None if place else value) from error


def _is_small(request: Request) -> bool:
    length = header(request.scope, b"content-length")
    return length.isdecimal() and int(length) <= BIG


def _owner(request: Request) -> str:
    caller = caller_of(request.scope)
    return caller.tenant if caller is not None else ""


_ITEMS: dict[str, TypeAdapter[tuple[Any, ...]]] = {
    "variables": TypeAdapter(tuple[VariableSpec, ...]),
    "calls": TypeAdapter(tuple[CallSpec, ...]),
    "wait": TypeAdapter(tuple[WaitSpec, ...]),
}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""Pydantic's error types for a field that does not exist."""
_REQUEST = TypeAdapter(RequestSpec)
_SEGMENTS: TypeAdapter[tuple[Any, ...]] = TypeAdapter(tuple[WireSegment, ...])
_SUBMIT = TypeAdapter(Submit)


class SubmitRoute(BodyRoute):
    """A route whose body is a `Submit`, and whose function takes it, the service and the tenant.

    FastAPI only documents it: resolving the function's dependencies anew for every exchange would cost a short one
    about as much as the machine does.
    """

    parse = staticmethod(parsed_submit)
    check = staticmethod(checked_submit)

    def handler(self) -> Handler:
        """See `BodyRoute`."""

        async def handle(request: Request) -> Response:
            if not await request.body():
                raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required"}])
            value = await request.json()
            body = value if isinstance(value, Submit) else _checked(_SUBMIT, value, ())
            return await self.endpoint(body, service_of(request), tenant_of(request))

        return handle
