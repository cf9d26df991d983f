"""The image, built from the Dockerfile as it stands and run as k8s/ runs it: read-only and without privileges."""

from __future__ import annotations

import http.client
import json
import os
import platform
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from injector import GROUP, __version__, options
from injector.tls import certificate

ROOT = Path(__file__).parents[1]
PYTHON = "3.13"
HOST = "litestream-hook.litestream-hook.svc"
BUILDER = f"docker.io/library/python:{PYTHON}-slim-trixie"
FINAL = "gcr.io/distroless/python3-debian13:nonroot"
# What stands in for the registries' images: Debian's own packages, under the names that the Dockerfile asks for.
PACKAGES = {
    BUILDER: "base-files,python3,dash,coreutils,findutils,sed",
    FINAL: "base-files,python3-minimal,libpython3.13-stdlib,libssl3t64,libffi8,libstdc++6,libgcc-s1",
}
# No build sees a network: wheels come from a folder, as this machine's pip has downloaded them.
DOCKERFILES = {
    BUILDER: r"""
FROM scratch
ADD root.tar /
COPY wheels /wheels
RUN ln -s python3 /usr/bin/python && printf '[global]\nno-index = true\nfind-links = /wheels\n' > /etc/pip.conf \
 && PYTHONPATH=$(echo /wheels/pip-*.whl) python -m pip install --quiet --target /usr/lib/python3/dist-packages pip
""",
    FINAL: """
FROM scratch
ADD root.tar /
""",
}
MISSING = [tool for tool in ("buildah", "mmdebstrap", "runc") if not shutil.which(tool)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.containers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian packages)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]


class Image(NamedTuple):
    """A built image: its root and that of the image below it as directories, and what it says of itself."""

    root: Path
    base: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]


class Running(NamedTuple):
    """The webhook in a container; `ports` by the name of the path that each serves."""

    pid: int
    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    tls: ssl.SSLContext
    seconds: float


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


def download_wheels(folder: Path) -> None:
    """The wheels that the Dockerfile's pip will ask for, by this machine's pip and its settings."""
    tags = [f"manylinux_2_{minor}_{platform.machine()}" for minor in range(17, 42)]
    tags.append(f"manylinux2014_{platform.machine()}")
    pinned = re.search(r"^watchfiles==(.*\\\n)+.*\n", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    reload = folder.parent / "reload.txt"
    reload.write_text(pinned[0])
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder),
        *("--python-version", PYTHON, "--only-binary", ":all:", "--require-hashes"),
        *(argument for tag in tags for argument in ("--platform", tag)),
        *("-r", ROOT / "requirements.txt", "-r", reload),
    )
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "pip")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    buildah = ("buildah", "--root", folder / "storage", "--runroot", folder / "run")
    build = (*buildah, "bud", "--runtime", "runc", "--isolation", "oci", "--network", "none", "--quiet")
    for name, packages in PACKAGES.items():
        context = folder / name.rpartition("/")[2]
        context.mkdir()
        arguments = ("--quiet", "--variant=extract", f"--include={packages}", "trixie", context / "root.tar")
        run("mmdebstrap", *arguments)
        (context / "Dockerfile").write_text(DOCKERFILES[name])
        if "wheels" in DOCKERFILES[name]:
            download_wheels(context / "wheels")
        run(*build, "--tag", name, context)
    try:
        run(*build, "--pull-never", "--build-arg", "REVISION=abc", "--tag", "litestream-hook", ROOT)
        run(*build, "--pull-never", "--target", "dev", "--tag", "development", ROOT)
        base, root = (
            Path(run(*buildah, "mount", run(*buildah, "from", "--pull-never", name)))
            for name in (FINAL, "localhost/litestream-hook")
        )
        said = json.loads(run(*buildah, "inspect", "--type", "image", "localhost/litestream-hook"))
        yield Image(root, base, said["OCIv1"]["config"], said["OCIv1"]["history"])
    finally:
        subprocess.run([*buildah, "rm", "--all"], check=False, capture_output=True)
        subprocess.run([*buildah, "rmi", "--all", "--force"], check=False, capture_output=True)


def bundle(image: Image, certificates: Path) -> dict[str, Any]:
    """runc's configuration of a container as k8s/base asks for it; everything else is as the image says."""
    user, _, group = image.config["User"].partition(":")
    ports = {"PORT": "0", "METRICS_BIND_ADDRESS": "127.0.0.1:0", "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:0"}
    given = {"HOST": "127.0.0.1", "LOG_FORMAT": "json", **ports}
    mount = {"destination": options.read({}).cert_dir, "source": str(certificates), "type": "bind"}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": image.config["Entrypoint"] + image.config["Cmd"],
            "env": image.config["Env"] + [f"{name}={value}" for name, value in given.items()],
            "cwd": image.config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            mount | {"options": ["bind", "ro"]},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
    }


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder as cert-manager's Secret is mounted, and the CA that the API server would trust."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.now(UTC)
    authority = certificate.make_ca("test", now)
    leaf = certificate.make_leaf(authority, [HOST], now)
    for name, content in (("tls.crt", leaf.certificate), ("tls.key", leaf.key)):
        (folder / name).write_bytes(content)
        os.chown(folder / name, 0, 65532)
        (folder / name).chmod(0o440)
    folder.chmod(0o755)
    return folder, authority.certificate


def ports_of(line: dict[str, Any]) -> dict[str, int]:
    """The log's line about what is served where → each path's port."""
    return {name: int(re.search(r":(\d+)/", line[name])[1]) for name in ("mutate", "metrics", "readyz")}  # type: ignore[index]


@contextmanager
def started(image: Image, mounted: tuple[Path, bytes], folder: Path) -> Iterator[Running]:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(bundle(image, mounted[0])))
    identifier = f"litestream-hook-{os.getpid()}"
    log = folder / "log"
    runc = ("runc", "--root", folder / "state")
    began = time.monotonic()
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*runc, "run", "--pid-file", folder / "pid", "--bundle", folder, identifier],
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        while not (found := [line for line in log.read_text().splitlines() if '"serving"' in line]):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - began < 120, log.read_text()
            time.sleep(0.02)
        ports = ports_of(json.loads(found[0]))
        while get(ports["readyz"], "/readyz")[0] != 200:
            assert time.monotonic() - began < 120, log.read_text()
            time.sleep(0.02)
        seconds = time.monotonic() - began
        context = ssl.create_default_context(cadata=mounted[1].decode())
        yield Running(int((folder / "pid").read_text()), process, ports, context, seconds)
    finally:
        subprocess.run([*runc, "delete", "--force", identifier], check=False, capture_output=True)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(image: Image, mounted: tuple[Path, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(image, mounted, tmp_path_factory.mktemp("container")) as webhook:
        yield webhook


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def mutate(webhook: Running, review: dict[str, Any]) -> dict[str, Any]:
    """The answer to an AdmissionReview, asked for as the API server does: by the Service's name over TLS."""
    connection = Dialled(HOST, webhook.ports["mutate"], timeout=30, context=webhook.tls)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/mutate?timeout=10s", json.dumps(review), headers)
    response = connection.getresponse()
    assert response.status == 200
    answer: dict[str, Any] = json.loads(response.read())["response"]
    connection.close()
    return answer


class Dialled(http.client.HTTPSConnection):
    """Connects to loopback, but checks the certificate for the name that it was given."""

    def connect(self) -> None:
        import socket

        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]


def review(annotations: dict[str, str]) -> dict[str, Any]:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "app:1", "securityContext": {"runAsUser": 1000}}]},
    }
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "app",
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "somebody"},
        "object": pod,
        "oldObject": None,
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def test_a_container_without_privileges_answers_the_api_server(running: Running) -> None:
    answer = mutate(running, review({f"{GROUP}/inject": "true"}))
    assert answer["allowed"] is True
    assert answer["patchType"] == "JSONPatch"
    denied = mutate(running, review({f"{GROUP}/inject": "maybe"}))
    assert denied["allowed"] is False
    assert denied["status"]["code"] == 422


def answered(webhook: Running) -> float:
    """How many requests the webhook says it has answered."""
    status, text = get(webhook.ports["metrics"], "/metrics")
    assert status == 200
    return sum(map(float, re.findall(r"^litestream_hook_requests_total\{.*\} (.*)$", text, re.MULTILINE)))


def test_metrics_count_what_was_answered(running: Running) -> None:
    before = re.findall(
        r"^litestream_hook_requests_total\{.*\} (.*)$", get(running.ports["metrics"], "/metrics")[1], re.MULTILINE
    )
    mutate(running, review({}))
    status, text = get(running.ports["metrics"], "/metrics")
    after = re.findall(r"^litestream_hook_requests_total\{.*\} (.*)$", text, re.MULTILINE)
    assert status == 200
    assert sum(map(float, after)) == sum(map(float, before)) + 1


def test_the_process_has_the_least_rights(running: Running) -> None:
    lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    mounts = [line.split() for line in Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines()]
    (flags,) = (mount[5] for mount in mounts if mount[4] == "/")
    assert "ro" in flags.split(",")


def test_sigterm_ends_it_with_exit_code_0(
    image: Image, mounted: tuple[Path, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(image, mounted, tmp_path / "container") as webhook:
        webhook.process.send_signal(signal.SIGTERM)  # runc hands it on to the process inside
        assert webhook.process.wait(60) == 0
        seconds = webhook.seconds
    added = sum(path.lstat().st_size for path in set(files(image.root)) - within(image))
    whole = sum(path.lstat().st_size for path in files(image.root))
    with capsys.disabled():
        print(f"\nimage: {whole / 1e6:.0f} MB, of which ours {added / 1e6:.0f} MB; ready after {seconds:.2f} s")


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]


def within(image: Image) -> set[Path]:
    """The files of the image that were in the image below it already."""
    return {image.root / path.relative_to(image.base) for path in files(image.base)}


def added(image: Image) -> list[Path]:
    """What the Dockerfile adds to the image below it, as seen from inside."""
    return [Path("/") / path.relative_to(image.root) for path in set(files(image.root)) - within(image)]


def test_the_image_holds_the_webhook_and_its_packages_only(image: Image) -> None:
    paths = added(image)
    assert {path.parts[1] for path in paths} == {"app", "packages"}
    own = {path.relative_to("/app").as_posix() for path in paths if path.parts[1] == "app" and path.suffix == ".py"}
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "injector").rglob("*.py")} | {"main.py"}
    assert own == expected
    assert expected > {"injector/__init__.py", "injector/serving/server.py"}
    unwanted = {"pip", "setuptools", "wheel", "tests", "bin", ".git", ".cache", "pytest"}
    assert [path for path in paths if unwanted & set(path.parts)] == []


def test_the_image_has_no_shell_installer_or_compiler(image: Image) -> None:
    names = {path.name for path in files(image.root) if os.access(path, os.X_OK)}
    assert names & {"sh", "bash", "dash", "busybox", "apt-get", "pip", "pip3", "gcc", "cc", "curl", "wget"} == set()


def test_the_image_and_its_history_hold_no_key(image: Image) -> None:
    key = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}")
    ours = [image.root / path.relative_to("/") for path in added(image)]
    assert [path for path in ours if path.is_file() and key.search(path.read_bytes())] == []
    history = json.dumps(image.history)
    assert re.search(r"(?i)secret|token|password|BEGIN ", history) is None
    assert "injector" in history


def test_every_module_is_compiled_and_needs_no_writing(image: Image) -> None:
    sources = [path for path in added(image) if path.suffix == ".py"]
    assert sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-{PYTHON.replace('.', '')}.pyc"
        header = (image.root / compiled.relative_to("/")).read_bytes()[4:8]
        assert int.from_bytes(header, "little") == 0b01, f"{source} is checked against its source"


def test_the_image_says_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[prefix + "version"] == __version__
    assert labels[prefix + "revision"] == "abc"
    assert labels[prefix + "licenses"] == "Apache-2.0"
    assert labels[prefix + "source"].startswith("https://")
    assert {port.removesuffix("/tcp") for port in image.config["ExposedPorts"]} == {"9443", "8080", "8081"}


def test_the_stand_ins_have_the_names_that_the_dockerfile_asks_for() -> None:
    asked = set(re.findall(r"^ARG [A-Z]+=(\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert asked == {name.removeprefix("docker.io/library/") for name in PACKAGES}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_no_package_has_to_be_compiled(machine: str, tmp_path: Path) -> None:
    pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    pip += ["--require-hashes", "--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
    pip += [f"--platform=manylinux{age}_{machine}" for age in ("2014", "_2_17", "_2_28", "_2_34")]
    run(*pip, "--target", tmp_path, "-r", ROOT / "requirements.txt")
