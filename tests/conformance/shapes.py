"""What clients are asked for."""

from typing import Literal

from pydantic import BaseModel, Field

MESSAGES = [{"role": "system", "content": "You are a parrot."}, {"role": "user", "content": "Who are you?"}]
LONG = [{"role": "user", "content": "word " * 20_000}]


class Animal(BaseModel, extra="forbid"):
    """An animal."""

    kind: Literal["bird", "fish"]
    legs: int = Field(ge=0, le=9)


class Weather(BaseModel, extra="forbid"):
    """The weather somewhere."""

    city: Literal["Rome"]
