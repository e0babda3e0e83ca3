"""A `stackctl serve` of a test, and requests to it as senders make them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stackctl.sync.dispatch.signature import STACKCTL, Keys, Scheme, sign
from tests.backend import DEADLINE

if TYPE_CHECKING:
    import subprocess
    import uuid
    from collections.abc import Iterator

    from tests.backend import Project

KEY = "a-signing-key-of-the-tests-0123456789"
TOKEN = "a-token-of-the-tests-0123456789"


@dataclass
class Server:
    """A running one. `log` are the objects that it has said so far."""

    process: subprocess.Popen[str]
    port: int
    log: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sync_url(self) -> str:
        return f"{self.url}/sync-engine"

    def request(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = TOKEN, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers (small letters) and document of one request; `Stackctl_Signature=…` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named.setdefault("Authorization", f"Bearer {token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            text = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            is_json = found.get("content-type") == "application/json" and text
            return response.status, found, json.loads(text) if is_json else text.decode()
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> tuple[int, Any]:
        status, _, document = self.request("GET", path, **options)
        return status, document

    def sync(self, tenancy: uuid.UUID | str, **options: Any) -> tuple[int, dict[str, str], Any]:
        """A request for this tenancy, signed."""
        body = json.dumps({"tenancyId": str(tenancy)}).encode()
        scheme: Scheme = options.pop("scheme", STACKCTL)
        token = sign(
            Keys(options.pop("key", KEY)), url=self.sync_url, body=body, jti="t", now=time.time(), scheme=scheme
        )
        return self.request("POST", "/sync-engine", body, token=None, **{scheme.header: token})

    def send_raw(self, data: bytes) -> bytes:
        """What is answered to these bytes, until it hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as sock:
            sock.sendall(data)
            received = b""
            try:
                while part := sock.recv(65536):
                    received += part
                    head, _, rest = received.partition(b"\r\n\r\n")
                    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                                   if line.startswith(b"content-length")), None)  # fmt: skip
                    if length is not None and len(rest) >= length:
                        break
            except ConnectionResetError:
                pass
            return received

    def drain(self) -> None:
        """Read what it says from now on, so that it goes on saying it."""
        stdout = self.process.stdout
        assert stdout is not None
        threading.Thread(target=lambda: [None for _ in stdout], daemon=True).start()

    def read_log(self, stage: str) -> dict[str, Any]:
        """The next object of this stage."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            said = json.loads(line)
            self.log.append(said)
            if said["stage"] == stage:
                return said
        raise AssertionError(f"it ended without {stage}: {self.process.communicate()[1]}")


def configure(project: Project, *, token: str | None = TOKEN, **sync: Any) -> Project:
    """What a server needs."""
    project.settings["serve"] = {"token": token}
    return project.sync_settings(signing_keys={"current": KEY}, **sync)


@contextmanager
def serving(project: Project, *arguments: str, port: int = 0, **options: Any) -> Iterator[Server]:
    """A server on a port of its own, or on this one; it is killed at the end if it is still there."""
    process = project.start("serve", "--json", "--port", str(port), *arguments, **options)
    server = Server(process, 0)
    try:
        url: str = server.read_log("start")["url"]
        server.port = int(url.rpartition(":")[2])
        yield server
    finally:
        process.kill()
        process.communicate()
