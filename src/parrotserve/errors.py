"""Every error that Parrot raises, as one tree.

    ParrotError
    ├── DeclarationError          a program is wrong where it is declared
    │   ├── TemplateError             a docstring template
    │   ├── InvalidSampling           a sampling parameter
    │   ├── InvalidSchema             a JSON schema that cannot be enforced
    │   └── InvalidTransform          a transform inside a placeholder
    ├── RequestRefused            the service says no at submit; nothing was changed
    │   ├── InvalidGraph              cycle, two producers, malformed ids
    │   ├── UnknownObject             no such session, variable, model, ...
    │   ├── ForeignVariable           a produced variable of another session
    │   ├── AlreadyProduced           setting a variable that has a producer or another value
    │   ├── Unauthorized              no key, or one that opens nothing
    │   │   └── Forbidden                 a key that does not open this
    │   ├── LimitExceeded             a limit on rate or number; try again after `retry_after` seconds
    │   │   └── TooManyExchanges          as many as a tenant may have open at a time
    │   └── TooLarge                  a limit on size or budget, which trying again does not change
    ├── RequestFailed             a request (or native call) ended without its outputs
    │   ├── ContextExceeded           its prompt does not fit the model's context or the engine's cache
    │   ├── EngineFailed              its engines died under it, or have no such capability
    │   │   └── EngineRefused             an engine cannot run here as it is set up: no memory, say
    │   ├── InvalidOutput             what it wrote is no object of the type that its schema is
    │   ├── NativeCallFailed          its native function raised or never returned
    │   └── TransformFailed           a transform does not fit the value it got
    ├── Cancelled                 somebody cancelled it, or its session ended
    ├── GetTimeout                `get(timeout=)` ran out; nothing was cancelled
    ├── ModelError                a model cannot be found, fetched or read
    │   ├── UnknownModel
    │   ├── PullFailed
    │   └── MalformedModel
    ├── ServiceUnavailable        the service cannot be reached, or went away
    ├── SessionLost               the service came back without what the session had there
    ├── IncompatibleVersions      client and service do not speak the same protocol
    └── InternalError             a fault of the service itself, of which its log has more

Each has a stable `code` (the class's name in snake case), used on the wire and in logs; `from_wire` turns it back into
the same class. Exceptions of other libraries are translated where they enter, and chained.
"""

import re
from typing import ClassVar


class ParrotError(Exception):
    """Base of all errors: `message` says what happened and what to do; `details` are machine-readable facts."""

    code: ClassVar[str] = "parrot_error"
    status: ClassVar[int] = 500
    """The HTTP status of answers that carry it."""
    by_code: ClassVar[dict[str, type["ParrotError"]]] = {}

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __init_subclass__(cls, status: int | None = None) -> None:
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        if status is not None:
            cls.status = status
        ParrotError.by_code[cls.code] = cls

    def __reduce__(self) -> tuple[object, ...]:
        return (from_wire, (self.code, self.message, self.details))


def from_wire(code: str, message: str, details: dict[str, str] | None = None) -> ParrotError:
    """The error with this stable code; a code this version does not know becomes a plain ParrotError."""
    return ParrotError.by_code.get(code, ParrotError)(message, **(details or {}))


class DeclarationError(ParrotError, status=422): ...


class TemplateError(DeclarationError): ...


class InvalidSampling(DeclarationError): ...


class InvalidSchema(DeclarationError): ...


class InvalidTransform(DeclarationError): ...


class RequestRefused(ParrotError, status=400): ...


class InvalidGraph(RequestRefused, status=422): ...


class UnknownObject(RequestRefused, status=404): ...


class ForeignVariable(RequestRefused, status=403): ...


class AlreadyProduced(RequestRefused, status=409): ...


class Unauthorized(RequestRefused, status=401): ...


class Forbidden(Unauthorized, status=403): ...


class LimitExceeded(RequestRefused, status=429): ...


class TooManyExchanges(LimitExceeded): ...


class TooLarge(RequestRefused, status=413): ...


class RequestFailed(ParrotError, status=500): ...


class ContextExceeded(RequestFailed, status=422): ...


class EngineFailed(RequestFailed, status=502): ...


class EngineRefused(EngineFailed): ...


class InvalidOutput(RequestFailed, status=422): ...


class NativeCallFailed(RequestFailed, status=424): ...


class TransformFailed(RequestFailed, status=422): ...


class Cancelled(ParrotError, status=409): ...


class GetTimeout(ParrotError, status=408): ...


class ModelError(ParrotError, status=422): ...


class UnknownModel(ModelError, status=404): ...


class PullFailed(ModelError, status=503): ...


class MalformedModel(ModelError, status=422): ...


class ServiceUnavailable(ParrotError, status=503): ...


class SessionLost(ParrotError, status=410): ...


class IncompatibleVersions(ParrotError, status=426): ...


class InternalError(ParrotError, status=500): ...
