"""Azure Blob Storage: Azurite, over TLS with a CA of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import ssl
import urllib.parse
import urllib.request
from email.utils import formatdate
from typing import TYPE_CHECKING

from tests.podrunner.images import CACHE
from tests.podrunner.s3 import free_ports
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

AZURITE = CACHE / "azurite/node_modules/azurite/dist/src/blob/main.js"
ACCOUNT, CONTAINER = "account1", "litestream"
KEY = base64.b64encode(b"the key of an account in a test").decode()
VERSION = "2021-08-06"


def missing() -> str | None:
    """Why there is no Azurite on this machine, or None if there is one."""
    there = AZURITE.exists() and shutil.which("node")
    return None if there else "Azurite not found: run tests/stores/install"


class Azure(Server):
    """Azurite until the `with` block ends; it has one account with one container."""

    def __init__(self) -> None:
        super().__init__(*free_ports(1))
        self._ca = ""

    @property
    def annotations(self) -> dict[str, str]:
        """Those of a Pod whose replicas are there."""
        return {
            "bucket": f"abs://{ACCOUNT}/{CONTAINER}",
            "endpoint": f"https://127.0.0.1:{self.port}/{ACCOUNT}",
            "ca": "configmap/ca",
        }

    @property
    def secret(self) -> dict[str, str]:
        """The data of the Secret; a Pod reads of it what it needs."""
        return {"AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_SAS_TOKEN": self._shared_access()}

    def start(self) -> None:
        """Start Azurite, and make the container."""
        certificate, key, self._ca = self.certificate("127.0.0.1")
        self.config_maps = {"ca": {"ca.crt": self._ca}}
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self.directory)]
        options = ["--cert", str(certificate), "--key", str(key), "--disableTelemetry", "--skipApiVersionCheck"]
        self.run(["node", AZURITE, *where, *options], {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"})
        self._request("PUT", f"/{CONTAINER}", {"restype": "container"})

    def _request(self, method: str, path: str, query: Mapping[str, str]) -> bytes:
        """What the server answers to a request signed with the account's key (Azure's Shared Key)."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION}
        lines = [method, *[""] * 11, *(f"{name}:{headers[name]}" for name in sorted(headers))]
        resource = f"/{ACCOUNT}/{ACCOUNT}{path}"
        text = "\n".join([*lines, resource, *(f"{name}:{query[name]}" for name in sorted(query))])
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{_signed(text)}"
        parameters = "&".join(f"{name}={value}" for name, value in query.items())
        url = f"https://127.0.0.1:{self.port}/{ACCOUNT}{path}?{parameters}"
        request = urllib.request.Request(url, method=method, headers=headers)
        context = ssl.create_default_context(cadata=self._ca)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=20) as answer:
            return bytes(answer.read())

    def _shared_access(self) -> str:
        """A token for the container alone (Azure's Service SAS): to read, add, create, write, delete and list."""
        expiry, permissions = "2099-01-01T00:00:00Z", "racwdl"
        fields = [permissions, "", expiry, f"/blob/{ACCOUNT}/{CONTAINER}", "", "", "https", VERSION, "c", *[""] * 7]
        signature = urllib.parse.quote(_signed("\n".join(fields)), safe="")
        return f"sv={VERSION}&spr=https&se={urllib.parse.quote(expiry)}&sr=c&sp={permissions}&sig={signature}"


def _signed(text: str) -> str:
    return base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
