"""A chatbot that streams: a conversation in which every turn goes on where the last one stopped.

The request of a turn repeats the conversation so far, so the service finds all of that in its KV cache and reads only
the new message. `stream()` yields an answer piece by piece, while the model writes it. `parrot chat` does the same with
what you type.
"""

from collections.abc import Callable

import Parrot as P

MESSAGES = ("Hello! My name is Mina.", "Name one animal that can talk.", "What is my name?")


def nowhere(piece: str) -> None:
    """`parrot run` shows what the model writes by itself."""


def chatbot(show: Callable[[str], None] = nowhere) -> list[str]:
    """The replies; `show` gets them piece by piece."""
    chat = P.Chat(system="You are a helpful parrot. Answer in one short sentence.", max_tokens=40)
    replies: list[str] = []
    for message in MESSAGES:
        print(f"> {message}")
        pieces: list[str] = []
        for piece in chat.say(message).stream():
            show(piece)
            pieces.append(piece)
        show("\n")
        replies.append("".join(pieces))
    return replies


if __name__ == "__main__":
    chatbot(show=lambda piece: print(piece, end="", flush=True))
