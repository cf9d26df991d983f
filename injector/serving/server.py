"""Serving: three ports in one process, from the first log line to the last answer after SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop

from injector import __version__, tls
from injector.admission.webhook import TEXT
from injector.annotations.table import group
from injector.cluster import client, guard
from injector.cluster.namespaces import Namespaces
from injector.errors import InvalidOptions
from injector.serving import log, metrics
from injector.serving.application import Application
from injector.serving.defaulting import Defaulting
from injector.serving.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from injector.options import Options

    Routes = Mapping[str, Callable[[], tuple[int, str, bytes]]]

PACKAGE: Final = Path(__file__).resolve().parent.parent
CONNECTIONS: Final = 1000
PROBE_CONNECTIONS: Final = 50
OTHER_DESCRIPTORS: Final = 64  # files, sockets to the API server, the event loop's own
RESTART_SECONDS: Final = 5.0
COLLECT_AFTER: Final = 20_000  # objects more than were freed; most requests make a few hundred, and free them


class ListenError(Exception):
    """A port can't be served on: one sentence that says why and what to change."""


def serve(chosen: Options) -> int:
    """Serve until SIGTERM or SIGINT, then finish what was begun; the exit code, 0 if all went well.

    1: a port can't be served on, or there is no usable certificate or DEFAULTS_FILE; the last line says why.
    """
    log.configure(chosen)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(chosen))
        except (ListenError, tls.BadCertificate, InvalidOptions) as problem:
            log.event(logging.ERROR, str(problem))
            return 1
    return 0


def serve_reloading(chosen: Options) -> int:
    """Serve in a process of its own that is started anew whenever a Python file or a script changes; for development.

    The exit code is 1 where watchfiles is missing, as in the production image: uvicorn's other reloader loses what is
    saved while it restarts.
    """
    log.configure(chosen)
    try:
        from uvicorn.supervisors.watchfilesreload import WatchFilesReload
    except ModuleNotFoundError:
        log.event(logging.ERROR, "serve --reload needs another package: pip install watchfiles")
        return 1
    # A delay would be one before the watch begins, too, and what is saved until then would be lost.
    config = uvicorn.Config(
        "main",
        reload=True,
        reload_dirs=[str(PACKAGE)],
        reload_includes=["*.sh"],
        reload_delay=0,
        log_level="warning",
    )
    WatchFilesReload(config, target=functools.partial(_serve_anew, chosen), sockets=[]).run()
    return 0


def _serve_anew(chosen: Options, sockets: object) -> None:
    del sockets  # uvicorn would hand on its own, and has none
    sys.exit(serve(chosen))


async def _serve(chosen: Options) -> None:
    stopping = asyncio.Event()
    _catch_signals(stopping)
    api = client.in_cluster(os.environ)
    certificates = tls.open_certificates(chosen, api)
    readiness = functools.partial(_readiness, stopping, certificates)
    writers = _guard(chosen, api)
    defaulting = _defaulting(chosen, api)
    app = Application(chosen, writers, defaulting)
    webhook = _listener("https", "PORT", (chosen.host, chosen.port), app, _room(), certificates.ssl_context)
    pages = [
        _listener(
            "metrics",
            "METRICS_BIND_ADDRESS",
            chosen.metrics_bind_address,
            _pages({"/metrics": functools.partial(_metrics, readiness, certificates)}),
            PROBE_CONNECTIONS,
        ),
        _listener(
            "health",
            "HEALTH_PROBE_BIND_ADDRESS",
            chosen.health_probe_bind_address,
            _pages({"/healthz": lambda: (200, TEXT, b"ok\n"), "/readyz": readiness}),
            PROBE_CONNECTIONS,
        ),
    ]
    stopped = asyncio.create_task(stopping.wait())
    others = [asyncio.create_task(listener.run()) for listener in pages]
    starting = asyncio.create_task(certificates.start())  # probes are answered while it asks the API
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        await starting
    serving = asyncio.create_task(webhook.run())
    looking_after = [starting, asyncio.create_task(_forever("certificates", certificates.run))]
    if writers is not None:
        looking_after.append(asyncio.create_task(_forever("the guard's sweep", writers.run)))
    if defaulting is not None and chosen.defaults_file:
        looking_after.append(asyncio.create_task(_forever("the look at the operator's file", defaulting.run)))
    _settle()
    _announce(chosen, webhook, pages, certificates)
    await asyncio.wait({stopped, serving, *others}, return_when=asyncio.FIRST_COMPLETED)
    log.event(logging.INFO, "stopping: answering the requests under way")
    await webhook.stop()
    await serving
    for listener in pages:
        await listener.stop()
    await asyncio.gather(*others)
    for task in looking_after:
        task.cancel()
    await asyncio.gather(*looking_after, return_exceptions=True)
    if api is not None:
        await api.close()
    log.event(logging.INFO, "stopped")


def _settle() -> None:
    """Let the garbage collector look at requests only, and seldom while one is decoded, which took half as long again.

    What was loaded until now lives as long as the process. With Python's own threshold, a request of 50,000 objects
    is walked through 70 times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)


def _catch_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
            # Not SIG_DFL: the kernel ignores that for the first process of a container.
            signal.signal(number, lambda caught, _: os._exit(128 + caught))
        stopping.set()

    for number in signals:
        loop.add_signal_handler(number, stop)


async def _forever(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Exception:
            logging.getLogger(log.ROOT).exception(
                "%s failed; starting again in %d s", name, RESTART_SECONDS, extra={"repeats": name}
            )
        await asyncio.sleep(RESTART_SECONDS)


def _guard(chosen: Options, api: client.Cluster | None) -> guard.Guard | None:
    """The single-writer guard, measured; None without a cluster."""
    if api is None:
        logging.getLogger(log.ROOT).warning("the single-writer guard is off: there is no Kubernetes API to ask")
        return None
    return guard.Guard(api, chosen.pod_namespace, chosen.guard_on_error, metrics.guard_lookup)


def _defaulting(chosen: Options, api: client.Cluster | None) -> Defaulting | None:
    """What holds in a namespace; None where the built-in defaults hold in each. Raises InvalidDefaults.

    Without a cluster no Namespace is asked for.
    """
    if not chosen.defaults_file and not chosen.namespace_defaults:
        return None
    namespaces = None
    if chosen.namespace_defaults:
        if api is None:
            logging.getLogger(log.ROOT).warning(
                "annotations of Namespaces do not count: there is no Kubernetes API to ask"
            )
        else:
            namespaces = Namespaces(api, group(chosen.variant))
    return Defaulting(chosen, namespaces, metrics.defaults_reloaded)


def _room() -> int:
    """How many connections /mutate may have, so that file descriptors are left for all else."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(8, min(CONNECTIONS, limit - OTHER_DESCRIPTORS - 2 * PROBE_CONNECTIONS))


def _listener(name: str, variable: str, address: tuple[str, int], *rest: Any) -> Listener:  # noqa: ANN401
    try:
        return Listener(name, address, *rest)
    except socket.gaierror:
        why = f"{address[0]} is no address of this machine: set {'HOST' if name == 'https' else variable}"
    except OSError as problem:
        why = {
            errno.EADDRINUSE: f"another process uses it: stop that one, or set {variable}",
            errno.EACCES: f"ports below 1024 need privileges: set {variable} to a higher one",
            errno.EADDRNOTAVAIL: "this machine has no such address: set " + ("HOST" if name == "https" else variable),
        }.get(problem.errno or 0, problem.strerror or str(problem))
    raise ListenError(f"can't listen on {_at(*address)}: {why}")


def _readiness(stopping: asyncio.Event, certificates: tls.Certificates) -> tuple[int, str, bytes]:
    if stopping.is_set():
        return 503, TEXT, b"stopping\n"
    if not certificates.ready():
        return 503, TEXT, f"{certificates.why_not_ready()}\n".encode()
    return 200, TEXT, b"ok\n"


def _metrics(readiness: Callable[[], tuple[int, str, bytes]], certificates: tls.Certificates) -> tuple[int, str, bytes]:
    if current := certificates.current():
        metrics.certificate(current.source, current.not_after)
    metrics.ready.set(readiness()[0] == 200)
    body, content_type = metrics.page()
    return 200, content_type, body


def _pages(routes: Routes) -> Callable[..., Awaitable[None]]:
    """An ASGI application of a few pages to GET."""

    async def app(
        scope: MutableMapping[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            status, content_type, body = 405, TEXT, b"send a GET request\n"
        elif page := routes.get(scope["path"]):
            status, content_type, body = page()
        else:
            status, content_type, body = 404, TEXT, f"only {' and '.join(routes)} are served here\n".encode()
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        if status == 405:
            headers += [(b"allow", b"GET, HEAD"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def _announce(chosen: Options, webhook: Listener, others: list[Listener], certificates: tls.Certificates) -> None:
    """Say what is served where: a few lines on a terminal, fields elsewhere."""
    current = certificates.current()
    source, until = (current.source, f"{current.not_after:%Y-%m-%d}") if current else ("none yet", "")
    where = {
        f"https://{_at(chosen.host, webhook.port)}/mutate": f"certificate: {source}" + (until and f", until {until}"),
        f"http://{_at(chosen.metrics_bind_address[0], others[0].port)}/metrics": "for Prometheus",
        f"http://{_at(chosen.health_probe_bind_address[0], others[1].port)}/readyz": "and /healthz: probes",
    }
    if chosen.log_format == "json" or not sys.stderr.isatty():
        log.event(
            logging.INFO,
            "serving",
            version=__version__,
            **dict(zip(("mutate", "metrics", "readyz"), where, strict=True)),
            certificate=source,
            certificateUntil=until,
        )
        return
    bold, plain = ("\x1b[1m", "\x1b[0m") if log.colored(os.environ) else ("", "")
    width = max(map(len, where))
    lines = [f"{bold}litestream-hook {__version__}{plain}, Ctrl+C stops it"]
    lines += [f"  {bold}{url:<{width}}{plain}  {note}" for url, note in where.items()]
    sys.stderr.write("\n".join(lines) + "\n")


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
