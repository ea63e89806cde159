"""Does Ray answer where it is looked for, and can it talk at all? Ray itself would try again for minutes."""

from __future__ import annotations

import os
import socket
import time

from routing.errors import InputError
from search_spaces.on_ray.private import BOOTSTRAP_ADDRESS

_CONNECT_SECONDS = 10.0
_SETTINGS, _FRAME_HEADER = 4, 9
"""Of HTTP/2: the type of the frame that each side sends first, and bytes of a frame's header."""
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
"""What a client says first; its settings are the default ones."""


def check_address(address: str) -> None:
    """Raise ``InputError`` when no Ray answers at ``host:port`` or at ``auto``; Ray would try again for minutes."""
    if address.startswith("ray://"):
        raise InputError(
            f"{address}: a sweep is no Ray client; give host:port of the head, on a machine that belongs to the "
            "cluster, or submit it as a job (docs/cluster/submit.sh)"
        )
    place = _found_by_ray() if address == "auto" else address
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        return  # Ray knows at once
    found = f" ({place})" if place != address else ""
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS) as connection:
            if not _speaks_grpc(connection):
                raise InputError(f"no Ray cluster answers at {address}{found}: something else listens there")
    except TimeoutError:
        raise InputError(f"no Ray cluster answers at {address}{found} within {_CONNECT_SECONDS:g} s") from None
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster answers at {address}{found}: {error}") from None


def _found_by_ray() -> str:
    """Return where Ray's own ``auto`` looks: the file that the last cluster on this machine left, stale or not."""
    found = BOOTSTRAP_ADDRESS.get()
    try:
        return "" if found is None else found("auto") or ""
    except (ConnectionError, ValueError, OSError) as error:
        raise InputError(f"no Ray cluster answers at auto: {' '.join(str(error).split())[:150]}") from None


def _speaks_grpc(connection: socket.socket) -> bool:
    """Return whether the other end greets as HTTP/2 does (RFC 9113, 3.4), which Ray's head speaks.

    Raises:
        TimeoutError: it says nothing.
    """
    if os.environ.get("RAY_USE_TLS") == "1":
        return True  # the greeting would have to be encrypted
    connection.sendall(_HTTP2_PREFACE)
    deadline, answer = time.monotonic() + _CONNECT_SECONDS, b""
    while len(answer) < _FRAME_HEADER:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        more = connection.recv(_FRAME_HEADER - len(answer))
        if not more:
            return False
        answer += more
    return answer[3] == _SETTINGS


def check_loopback() -> None:
    """Raise ``InputError`` where this machine cannot talk to itself: Ray would try for minutes."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.create_connection(listener.getsockname(), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"Ray's processes talk over 127.0.0.1, which does not answer here ({error.strerror or error}): a network "
            "interface must be up, if only the loopback one (`ip link set lo up`)"
        ) from None
