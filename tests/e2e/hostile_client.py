"""A client that does its worst: `python hostile_client.py PORT KEY` prints how often each status was answered."""

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Sequence

SLOW_CONNECTIONS = 200
MALFORMED = 10_000
CONNECTIONS = 10
ROUNDS = 5

MIB = 1 << 20


def graph(size: int, text: str = "tell") -> bytes:
    requests = [
        {"id": f"r{n}", "segments": [{"kind": "text", "text": text}, {"kind": "output", "variable": f"v{n}"}]}
        for n in range(size)
    ]
    variables = [{"id": f"v{n}"} for n in range(size)]
    return json.dumps({"session": "attack", "variables": variables, "requests": requests}).encode()


BIG = (
    graph(1, "x" * (8 * MIB)),
    graph(100_000),
    b"[" + b"1," * (4 * MIB) + b"1]",
    b'{"session": "' + b"\xff" * (8 * MIB) + b'"}',
    b'{"a":' * 10_000,
    b"[" * 10_000 + b"]" * 10_000 + b" " * MIB,
    b'{"session": "s", "wait": [' + b"{}," * 100_000 + b"{}]}",
    b'{"session": "s", "wait": [' + b"{}," * 20_000 + b"{}]}",
    b'{"session": "s", "requests": [' + b'{"id": "a", "segments": []}, ' * 2_000 + b"{}]}",
)
SMALL = (
    b"",
    b"{",
    b"null",
    b"[1, 2]",
    b'"\xff"',
    b'{"session": 5}',
    b'{"session": "a b"}',
    b'{"sesion": "s"}',
    b'{"session": "s", "wait": [{"variable": "v"}]}',
)
EXPECTED = MALFORMED + len(BIG) * ROUNDS


class Connection:
    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key.encode()

    async def ask(self, bodies: Sequence[bytes]) -> list[int]:
        """Sends them all on one connection; the statuses of the answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        statuses: list[int] = []
        for body in bodies:
            writer.write(
                b"POST /v1/submit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (self.key, len(body), body)
            )
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
            statuses.append(int(head.split()[1]))
        writer.close()
        return statuses

    async def dawdle(self) -> None:
        """A head that comes letter by letter."""
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for letter in b"GET /healthz HTTP/1.1" * 100:
                writer.write(bytes([letter]))
                await writer.drain()
                await asyncio.sleep(1)


async def main(port: int, key: str) -> None:
    connection = Connection(port, key)
    slow = [asyncio.ensure_future(connection.dawdle()) for _ in range(SLOW_CONNECTIONS)]
    small = [SMALL[number % len(SMALL)] for number in range(MALFORMED // CONNECTIONS)]
    answers = await asyncio.gather(
        *(connection.ask(small) for _ in range(CONNECTIONS)), *(connection.ask([body]) for body in BIG * ROUNDS)
    )
    print(json.dumps(Counter(status for statuses in answers for status in statuses)), flush=True)
    for task in slow:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
