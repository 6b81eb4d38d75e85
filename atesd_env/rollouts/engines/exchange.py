"""One HTTP exchange with a server that is not trusted: the whole answer by a deadline and within a size, from no other address.

The standard library's time-out is that of a single read, which an answer that drips passes for ever.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_PIECE = 65_536


class OversizedError(Exception):
    """An answer is larger than it may be."""


def exchange(
    url: str, body: bytes | None, headers: Mapping[str, str], deadline: float, most_bytes: int
) -> tuple[int, bytes]:
    """Returns status and body of the answer to a POST, or to a GET if there is no body; redirections are not followed.

    Args:
        url: Where to, http or https; proxies of the environment are passed by.
        body: What is sent.
        headers: Beside those that HTTP needs.
        deadline: When the last byte must have come, on the clock ``time.monotonic``.
        most_bytes: Largest body.

    Raises:
        TimeoutError: If the answer is not whole by then.
        OversizedError: If it is larger.
        OSError: If there is no connection, or it breaks.
        HTTPException: If the answer is no HTTP, or ends early.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=_left(deadline))
    connection.response_class = functools.partial(_TimedResponse, deadline=deadline)  # type: ignore[assignment]
    try:
        connection.connect()
        connection.sock.settimeout(_left(deadline))
        connection.request("GET" if body is None else "POST", parts.path, body, dict(headers))
        response = connection.getresponse()
        pieces, size = [], 0
        while piece := response.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most_bytes:
                raise OversizedError
        if response.length:  # of a connection that was closed early, which reading by pieces does not tell
            raise http.client.IncompleteRead(b"", response.length)
        return response.status, b"".join(pieces)
    except ValueError as error:  # from the standard library, for a chunk of negative length or a key with a line break
        raise http.client.HTTPException(str(error)) from error
    finally:
        connection.close()


def _left(deadline: float) -> float:
    """Returns the seconds until then; raises TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _TimedResponse(http.client.HTTPResponse):
    """A response of which every read, of headers too, may take no longer than what is left until the deadline."""

    def __init__(self, sock: socket.socket, *arguments: Any, deadline: float, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_TimedReader(self.fp, sock, deadline))


class _TimedReader(io.RawIOBase):
    def __init__(self, file: io.BufferedReader, sock: socket.socket, deadline: float) -> None:
        self._file, self._sock, self._deadline = file, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._file.raw.readinto(buffer) or 0

    def close(self) -> None:
        self._file.close()
        super().close()
