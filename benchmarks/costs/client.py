"""A client that costs little: on few cores, what it takes would be measured as the servers'."""

import asyncio

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """Posts JSON to one server and reads whole answers, over connections that it keeps."""

    def __init__(self, url: str, path: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._host, self._port = host, int(port)
        self._head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
        self._idle: list[Connection] = []

    async def post(self, content: bytes) -> None:
        """One exchange, its whole answer read. Raises `RuntimeError` unless it is well."""
        reader, writer = connection = await self._connection()
        writer.write(f"{self._head}{len(content)}\r\n\r\n".encode() + content)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"The server answered {head.splitlines()[0].decode()}.")
        _, chunked, _ = head.partition(b"transfer-encoding: chunked")
        if chunked:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
        self._idle.append(connection)

    async def _connection(self) -> Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # it was idle for longer than the server likes
        return await asyncio.open_connection(self._host, self._port)

    async def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._idle))
