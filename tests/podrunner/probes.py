"""One check of a probe, or one run of a lifecycle hook, against a running container."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.podrunner.runc import Life


def handled(handler: dict[str, Any], container: dict[str, Any], life: Life, seconds: float) -> tuple[bool, str]:
    """Whether the action of a probe or hook succeeds within `seconds`, and what it said."""
    if "exec" in handler:
        done = life.execute(handler["exec"]["command"], seconds)
        return done.exit_code == 0, f"exit code {done.exit_code}: {done.text.strip()}"
    if "httpGet" in handler:
        return _http(handler["httpGet"], container, seconds)
    if "tcpSocket" in handler:
        target = handler["tcpSocket"]
        try:
            address = (target.get("host") or "127.0.0.1", _port(target["port"], container))
            with socket.create_connection(address, seconds):
                return True, "connected"
        except OSError as error:
            return False, str(error)
    if "sleep" in handler:
        return not life.wait(min(float(handler["sleep"]["seconds"]), seconds)), "slept"
    raise AssertionError(f"no handler in {handler}")


def _http(get: dict[str, Any], container: dict[str, Any], seconds: float) -> tuple[bool, str]:
    host, port = get.get("host") or "127.0.0.1", _port(get["port"], container)
    connection: http.client.HTTPConnection
    if get.get("scheme", "HTTP") == "HTTPS":
        unverified = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=unverified)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
    headers = {header["name"]: header["value"] for header in get.get("httpHeaders") or []}
    try:
        connection.request("GET", get.get("path") or "/", headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, str(error)
    finally:
        connection.close()
    return 200 <= status < 400, f"HTTP {status}"


def _port(port: int | str, container: dict[str, Any]) -> int:
    named = {entry.get("name"): entry["containerPort"] for entry in container.get("ports") or []}
    return int(named.get(port, port))
