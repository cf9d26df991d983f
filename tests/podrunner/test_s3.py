"""The S3 server can be taken away in each of the ways in which a network and a server go away."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request

import pytest

from tests.podrunner.proxy import Proxy
from tests.podrunner.s3 import S3, Keys, S3Error

pytestmark = pytest.mark.slow


def answers(endpoint: str, seconds: float = 1) -> bool:
    """Whether an HTTP answer comes in time; ConnectionRefusedError if nobody listens."""
    try:
        urllib.request.urlopen(endpoint, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except TimeoutError:
        return False
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            raise error.reason from None
        return False
    return True


def test_a_server_can_hang_be_slow_and_be_gone() -> None:
    with S3(buckets=("one", "two")) as s3:
        assert s3.request("PUT", "/one/a%20key").status < 300
        assert s3.list_keys("one") == ["a key"]
        assert s3.request("PUT", "/two/content", b"some bytes").status < 300
        assert s3.get("two", "content") == b"some bytes"
        s3.delete("two", "content")
        assert (s3.list_keys("one", "b"), s3.list_keys("two")) == ([], [])
        with pytest.raises(S3Error, match="404"):
            s3.list_keys("three")
        known, s3.keys = s3.keys, Keys("key", "wrong")
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            s3.list_keys("one")
        s3.keys = known

        with Proxy(s3.port) as proxy:
            assert answers(proxy.endpoint)
            proxy.delay = 0.3
            began = time.monotonic()
            assert answers(proxy.endpoint, 10)
            assert time.monotonic() - began >= 0.6
            proxy.delay = 0
            proxy.swallow = True
            assert not answers(proxy.endpoint)
            proxy.swallow = False
            assert answers(proxy.endpoint, 10)
        with pytest.raises(ConnectionRefusedError):
            answers(proxy.endpoint)

        s3.pause()
        assert not answers(s3.endpoint)
        s3.resume()
        assert answers(s3.endpoint, 10)

        s3.stop()
        with pytest.raises(ConnectionRefusedError):
            answers(s3.endpoint)
        s3.start()
        assert s3.list_keys("one") == ["a key"]
        assert s3.request("PUT", "/two/content", b"some bytes").status == 200
        port = s3.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
