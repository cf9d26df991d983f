"""The application of the tests: commits numbered rows and acknowledges each on standard output.

It runs inside a container and uses the standard library only. A line `committed N` is printed after row N was
committed, so whoever reads the output knows what the application was promised. On SIGTERM it goes on writing
for `--drain` seconds, as a server does that answers the requests it still has, and exits 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

REPLACE = ("vacuum", "move", "delete")


def main() -> None:
    parser = argparse.ArgumentParser(description="Commit numbered rows to an SQLite database.")
    parser.add_argument("--database", action="append", required=True, help="path; may be given several times")
    parser.add_argument("--rate", type=float, default=100, help="commits per second, over all databases")
    parser.add_argument("--drain", type=float, default=0, help="seconds to go on writing after SIGTERM")
    parser.add_argument("--rows", type=int, help="exit 0 after so many commits")
    parser.add_argument("--first", type=int, default=1, help="least number of a row")
    parser.add_argument("--late", type=float, default=0, help="seconds until the last database is made")
    parser.add_argument("--fill", type=int, default=0, help="MiB to fill the first database with once")
    parser.add_argument("--bytes", type=int, default=0, help="random bytes in each row")
    parser.add_argument("--replace", choices=REPLACE, help="put another file in place of the last database once")
    parser.add_argument("--after", type=int, default=300, help="rows until then")
    arguments = parser.parse_args()
    ends: list[float] = []

    def terminate(*_: object) -> None:
        if not ends:
            os.write(1, b"draining\n")
            ends.append(time.monotonic() + arguments.drain)

    signal.signal(signal.SIGTERM, terminate)
    waiting = arguments.database[-1:] if arguments.late else []
    databases = [_opened(path) for path in arguments.database if path not in waiting]
    _fill(databases[0], arguments.fill)
    last = max(_last(database) for database in databases)
    os.write(1, f"starting after {last}\n".encode())
    first = max(last + 1, arguments.first)
    number, began = first, time.monotonic()
    while not (ends and time.monotonic() >= ends[0]) and number - first != arguments.rows:
        if waiting and time.monotonic() >= began + arguments.late:
            databases.append(_opened(waiting.pop()))
        if arguments.replace and number - first == arguments.after:
            databases.pop().close()
            _replace(arguments.database[-1], arguments.replace)
            databases.append(_opened(arguments.database[-1]))
            os.write(1, b"replaced\n")
        row = (number, time.time(), os.urandom(arguments.bytes))
        databases[number % len(databases)].execute("INSERT INTO entry VALUES (?, ?, ?)", row)
        os.write(1, f"committed {number}\n".encode())
        number += 1
        time.sleep(max(0.0, began + (number - first) / arguments.rate - time.monotonic()))
    for database in databases:
        database.close()
    os.write(1, b"stopped\n")


def _opened(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=10)
    database.execute("PRAGMA journal_mode=wal")
    database.execute("CREATE TABLE IF NOT EXISTS entry (number INTEGER PRIMARY KEY, at REAL, bytes BLOB)")
    return database


def _replace(path: str, how: str) -> None:
    """What applications do to their database while Litestream has it open; all but `delete` keep the rows."""
    database, copy = Path(path), Path(f"{path}.copy")
    if how != "delete":
        with contextlib.closing(sqlite3.connect(database)) as before:
            before.execute("VACUUM INTO ?", (str(copy),))
    if how == "move":  # PocketBase's restore: everything in the folder but what comes in its place
        aside = database.parent / "aside"
        aside.mkdir()
        for left in list(database.parent.iterdir()):
            if left not in (aside, copy):
                shutil.move(left, aside / left.name)
    else:
        for left in (database, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if how == "delete" or left != database:
                left.unlink(missing_ok=True)
    if how != "delete":
        copy.rename(database)


def _fill(database: sqlite3.Connection, mebibytes: int) -> None:
    """Fill a database that has no filling yet with bytes that can't be compressed."""
    if not mebibytes or database.execute("SELECT 1 FROM sqlite_master WHERE name = 'filling'").fetchone():
        return
    database.execute("BEGIN")
    database.execute("CREATE TABLE filling (bytes BLOB)")
    for _ in range(mebibytes):
        database.execute("INSERT INTO filling VALUES (?)", (os.urandom(2**20),))
    database.execute("COMMIT")


def _last(database: sqlite3.Connection) -> int:
    (number,) = database.execute("SELECT coalesce(max(number), 0) FROM entry").fetchone()
    return int(number)


def acknowledged(log: str) -> list[int]:
    """The numbers of the rows that a log says are committed, in the order of their commits."""
    return [int(line.split()[1]) for line in log.splitlines() if line.startswith("committed ")]


if __name__ == "__main__":
    main()
