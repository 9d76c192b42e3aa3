"""A wire with scripted answers below the HTTP transport: no sockets."""

from collections.abc import AsyncIterator

import httpx

from parrotserve.errors import ParrotError
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import (
    PROTOCOL_HEADER,
    PROTOCOL_VERSION,
    Accepted,
    ErrorAnswer,
    ErrorBody,
    Submit,
    Value,
    WaitSpec,
    Wire,
)

URL = "http://service.example"
SESSION, VARIABLE = SessionId("s-1"), VariableId("v-1")
OURS = {PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
ACCEPTED = Accepted(session=SESSION)
VALUE = Value(variable=VARIABLE, value="text")
WAIT = WaitSpec(variable=VARIABLE)
STREAM = WaitSpec(variable=VARIABLE, stream=True)
BREAK = httpx.ReadError("connection reset")
Answer = httpx.Response | Exception


class Pieces(httpx.AsyncByteStream):
    """A body that comes piece by piece; an exception among them breaks it off."""

    def __init__(self, *pieces: Wire | bytes | Exception) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece if isinstance(piece, bytes) else f"data: {piece.model_dump_json()}\n\n".encode()


class Wired:
    """Answers exchanges in turn and keeps what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def bodies(self) -> list[Submit]:
        return [Submit.model_validate_json(request.content) for request in self.asked]


def events(*pieces: Wire | bytes | Exception) -> httpx.Response:
    return httpx.Response(200, headers={**OURS, "Content-Type": "text/event-stream"}, stream=Pieces(*pieces))


def refused(error: ParrotError) -> httpx.Response:
    answer = ErrorAnswer(error=ErrorBody.of(error))
    return httpx.Response(error.status, headers=OURS, json=answer.model_dump(mode="json"))
