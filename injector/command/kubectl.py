"""The cluster as the user has it: through their own kubectl, kubeconfig and rights.

kubectl runs as a program, and no client library is in the way: contexts, proxies, exec and auth plugins work as they do
on the user's own command line, exec needs no code of ours for its WebSocket, and a client that is kept up to date with
the cluster is there already. Nothing goes through a shell. What fails becomes one sentence (`KubectlError`).

What the API server thinks of a call is read from the reason that kubectl prints in parentheses, which is a field of the
API's Status; never from the message beside it.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

import msgspec

from injector.errors import cut, escaped, quoted
from injector.values import Object

PATIENCE = 60.0  # seconds for one call
KEPT = 300  # characters of what kubectl says
CHUNK = 64 * 1024  # bytes that are read at once
MOST_OUTPUT = 16 * 1024**2  # bytes that a container may say: its owner decides how much it does
KINDS = {
    "cronjobs": "CronJob",
    "daemonsets": "DaemonSet",
    "deployments": "Deployment",
    "jobs": "Job",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "pods": "Pod",
    "replicasets": "ReplicaSet",
    "secrets": "Secret",
    "statefulsets": "StatefulSet",
}
SHORT_NAMES = {
    "cj": "cronjob",
    "deploy": "deployment",
    "ds": "daemonset",
    "po": "pod",
    "rs": "replicaset",
    "sts": "statefulset",
}
_LOG = re.compile(r"[EFIW]\d{4} \d\d:")  # how a line of kubectl's own log begins
_REASON = re.compile(r"error from server \((\w+)\)", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class KubectlError(Exception):
    """A call failed: why, in one sentence. `reason` is the API's (`NotFound`, `AlreadyExists`, …), empty if none."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class MissingRight(KubectlError):
    """The user may not do that; the sentence names the rule that would let them."""


class NotFound(KubectlError):
    """There is no such object, or no longer."""


class _TooMuch(Exception):
    """A container says more than MOST_OUTPUT."""


class Answer(NamedTuple):
    """How a command in a container ended."""

    code: int
    output: bytes
    error: str


class _Call(NamedTuple):
    """What a call does, for messages and for the question whether one may: VERB RESOURCE[.GROUP][/SUBRESOURCE]."""

    verb: str
    resource: str
    namespace: str | None
    about: str
    doing: str = ""
    everywhere: bool = False
    sends: bool = False

    @property
    def rule(self) -> str:
        resource, _, sub = self.resource.partition("/")
        kind, _, api_group = resource.partition(".")
        return f'{{apiGroups: ["{api_group}"], resources: ["{kind}{"/" if sub else ""}{sub}"], verbs: ["{self.verb}"]}}'

    @property
    def place(self) -> str:
        return " in all namespaces" if self.everywhere else f" in namespace {self.namespace}" if self.namespace else ""

    def __str__(self) -> str:
        return f"{self.doing or self.verb} {self.about}{self.place}"


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the user's choice of cluster.

    Resources are named as RESOURCE or RESOURCE.GROUP, in plural (`pods`, `jobs.batch`), as a role names them.
    `namespace=None` means the one of the user's context. Each method raises KubectlError or one below it.
    """

    context: str = ""
    kubeconfig: str = ""
    program: str = "kubectl"
    _flags: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        named = {"--context": self.context, "--kubeconfig": self.kubeconfig}
        flags = tuple(f"{flag}={value}" for flag, value in named.items() if value)
        object.__setattr__(self, "_flags", flags)

    def typed(self, *arguments: str) -> str:
        """A call as users type it, to the same cluster."""
        return shlex.join(["kubectl", *self._flags, *arguments])

    def require(self, verb: str, resource: str, *, namespace: str | None = None) -> None:
        """Asks before what would be in vain is begun. Raises MissingRight where the API says that the user may not."""
        call = _Call(verb, resource, namespace, _kind(resource))
        if self._lacks(call):
            raise _missing_right(call)

    def get(self, resource: str, name: str, *, namespace: str | None = None) -> Object:
        """One object. Raises NotFound where there is none."""
        call = _Call("get", resource, namespace, _object_name(resource, name))
        return _object(self._run(call, "get", resource, name, "--output=json"), call)

    def find(
        self,
        resource: str,
        *,
        namespace: str | None = None,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        """All objects of a resource.

        Args:
            resource: RESOURCE or RESOURCE.GROUP.
            namespace: that they are in.
            everywhere: in all namespaces instead.
            labels: a label selector.
            fields: a field selector.
        """
        call = _Call(
            "list", resource, None if everywhere else namespace, resource.partition(".")[0], everywhere=everywhere
        )
        selectors = [f"--selector={labels}"] * bool(labels) + [f"--field-selector={fields}"] * bool(fields)
        where = ["--all-namespaces"] * everywhere
        items: list[Object] = _object(self._run(call, "get", resource, "--output=json", *where, *selectors), call)[
            "items"
        ]
        return items

    def create(self, manifest: Mapping[str, Any], resource: str, *, namespace: str | None = None) -> Object:
        """One new object (a name or `generateName` is in it), as the API server stored it."""
        call = _Call("create", resource, namespace, _kind(resource), sends=True)
        return _object(self._run(call, "create", "--filename=-", "--output=json", given=_text(manifest)), call)

    def apply(self, manifest: Mapping[str, Any], resource: str, *, namespace: str | None = None) -> Object:
        """One object, created or changed, as the API server stored it."""
        call = _Call("patch", resource, namespace, _kind(resource), sends=True)
        return _object(self._run(call, "apply", "--filename=-", "--output=json", given=_text(manifest)), call)

    def delete(self, resource: str, name: str, *, namespace: str | None = None) -> None:
        """Let an object go, without waiting until it has; that it is gone already is fine."""
        call = _Call("delete", resource, namespace, _object_name(resource, name))
        self._run(call, "delete", resource, name, "--ignore-not-found", "--wait=false")

    def logs(self, pod: str, container: str, *, namespace: str | None = None, lines: int = -1) -> str:
        """What a container has written so far, all or the last lines of it."""
        doing = f"get the log of container {container} of"
        call = _Call("get", "pods/log", namespace, _object_name("pods", pod), doing)
        output = self._run(
            call, "logs", pod, f"--container={container}", f"--tail={lines}", f"--limit-bytes={MOST_OUTPUT}"
        )
        return output.decode(errors="replace")

    def execute(
        self,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        namespace: str | None = None,
        given: bytes | None = None,
        into: IO[bytes] | None = None,
        patience: float = PATIENCE,
    ) -> Answer:
        """Run a command in a container. That it fails is an answer, no error.

        Args:
            pod: its name.
            container: of the Pod.
            command: the program and its arguments, without a shell.
            namespace: of the Pod.
            given: its standard input.
            into: takes its output instead of the answer.
            patience: seconds until kubectl is ended.
        """
        doing = f"run a command in container {container} of"
        call = _Call("create", "pods/exec", namespace, _object_name("pods", pod), doing)
        takes = ["--stdin"] * (given is not None)
        arguments = ["exec", pod, f"--container={container}", *takes, "--", *command]
        done = self._done(call, arguments, given, into, patience)
        if done.returncode == 0:
            return Answer(0, done.stdout or b"", _decoded(done.stderr))
        error, ended, _ = _decoded(done.stderr).rpartition("command terminated with exit code")
        if not ended:
            raise self._failed(call, done)
        return Answer(done.returncode, done.stdout or b"", error)

    def _run(self, call: _Call, *arguments: str, given: bytes | None = None) -> bytes:
        done = self._done(call, arguments, given, None, PATIENCE)
        if done.returncode:
            raise self._failed(call, done)
        return done.stdout

    def _done(
        self, call: _Call, arguments: Sequence[str], given: bytes | None, into: IO[bytes] | None, patience: float
    ) -> subprocess.CompletedProcess[bytes]:
        where = [] if call.namespace is None else [f"--namespace={_named(call.namespace)}"]
        command = [self.program, *self._flags, *where, *arguments]
        try:
            with subprocess.Popen(
                command,
                # Without input of ours it is the user's: an auth plugin may ask there for a password.
                stdin=None if given is None else subprocess.PIPE,
                stdout=into or subprocess.PIPE,
                stderr=subprocess.PIPE,
            ) as process:
                try:
                    if call.resource == "pods/exec" and given is None:
                        output, error = _limited(process, patience)
                    else:
                        output, error = process.communicate(given, patience)
                except BaseException:
                    # Not subprocess.run: that would wait for a plugin of kubectl's that has the pipes still open.
                    process.kill()
                    raise
                return subprocess.CompletedProcess(command, process.returncode, output, error)
        except FileNotFoundError:
            raise KubectlError(
                f"{self.program} is not installed, or not in PATH: https://kubernetes.io/docs/tasks/tools/"
            ) from None
        except OSError as error:
            raise KubectlError(f"{self.program} can't be started: {error.strerror}") from None
        except _TooMuch:
            raise KubectlError(f"the answer when asked to {call} is longer than {MOST_OUTPUT >> 20} MiB") from None
        except subprocess.TimeoutExpired as expired:
            said = _said(_decoded(expired.stderr))
            last = f"; it said: {said}" if said else ""
            raise KubectlError(f"kubectl took more than {patience:g} s to {call}{last}", "Timeout") from None

    def _failed(self, call: _Call, done: subprocess.CompletedProcess[bytes]) -> KubectlError:
        """The error of a call that failed, in words."""
        error = _decoded(done.stderr)
        found = _REASON.search(error)
        reason, said = ("", _said(error)) if found is None else (found[1], _said(error[found.end() :]))
        if reason == "NotFound":
            gone = f"there is no {call.about}{call.place}, or no longer"
            return NotFound(f"kubectl can't {call}: {said}" if call.sends else gone, reason)
        # An exec that is forbidden has no reason: the answer came when kubectl asked to change the protocol.
        if (reason == "Forbidden" or (not reason and call.resource == "pods/exec")) and self._lacks(call):
            return _missing_right(call)
        if not reason:
            return KubectlError(f"kubectl can't {call}: {said or f'exit code {done.returncode}'}")
        return KubectlError(f"the API server refuses to {call} ({reason}): {said}", reason)

    def _lacks(self, call: _Call) -> bool:
        """Whether the API says that the user has no right to a call (by a SelfSubjectAccessReview)."""
        what, _, sub = call.resource.partition("/")
        where = ["--all-namespaces"] * call.everywhere
        done = self._done(
            call, ["auth", "can-i", call.verb, what, f"--subresource={sub}", *where], None, None, PATIENCE
        )
        return done.stdout.startswith(b"no")


def _missing_right(call: _Call) -> MissingRight:
    role = "ClusterRole" if call.everywhere else "Role"
    sentence = f"you may not {call.verb} {call.resource}{call.place}; with this rule in a {role} of yours you may: "
    return MissingRight(f"{sentence}{call.rule}", "Forbidden")


def _limited(process: subprocess.Popen[bytes], patience: float) -> tuple[bytes, bytes]:
    """What a process writes until it ends. Raises TimeoutExpired, or _TooMuch as soon as it is more than it may be."""
    ends = time.monotonic() + patience
    output, error = bytearray(), bytearray()
    with selectors.DefaultSelector() as ready:
        for stream, taken in ((process.stdout, output), (process.stderr, error)):
            if stream is not None:
                ready.register(stream, selectors.EVENT_READ, taken)
        while ready.get_map():
            if (left := ends - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired(process.args, patience, stderr=bytes(error))
            for key, _ in ready.select(left):
                part = os.read(key.fd, CHUNK)
                key.data.extend(part)
                if len(key.data) > MOST_OUTPUT:
                    raise _TooMuch
                if not part:
                    ready.unregister(key.fileobj)
    process.wait(max(0.0, ends - time.monotonic()))
    return bytes(output), bytes(error)


def _named(name: str) -> str:
    """A name that is one: it goes on a command line, where one that begins with a hyphen would be a flag."""
    if not _NAME.fullmatch(name):
        raise KubectlError(f"{quoted(name)} is no name of an object: write lower-case letters, digits, - and .")
    return name


def _object_name(resource: str, name: str) -> str:
    return f"{_kind(resource)} {_named(name)}"


def _kind(resource: str) -> str:
    plain = resource.partition(".")[0]
    return KINDS.get(plain, plain)


def _text(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest).encode()


def _object(output: bytes, call: _Call) -> Object:
    try:
        return msgspec.json.decode(output, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KubectlError(f"kubectl's answer when asked to {call} is no object in JSON: {error}") from None


def _decoded(error: bytes | str | None) -> str:
    return error if isinstance(error, str) else (error or b"").decode(errors="replace")


def _said(error: str) -> str:
    """What kubectl said, as part of a sentence: without its log, in one line, not too long."""
    lines = [line.strip() for line in error.splitlines() if line.strip() and not _LOG.match(line)]
    return escaped(cut(" ".join(lines).removeprefix("error:").removeprefix(":").lstrip(), KEPT))
