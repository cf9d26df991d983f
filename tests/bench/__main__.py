"""`make bench`: measures, prints each table when it is there, and rewrites docs/performance.md."""

from __future__ import annotations

import itertools

from tests.bench import command, core, page, server


def main() -> None:
    """Measure everything, in about two minutes."""
    texts = [f"Measured on: {page.machine()}. Medians of interleaved rounds, and from where to where they went."]
    print(texts[0])
    for table in itertools.chain(server.measured(core.bodies()), core.measured(), command.measured()):
        print(f"\n{table}", flush=True)
        texts.append(str(table))
    page.PAGE.write_text(page.written(page.PAGE.read_text(), "\n\n".join(texts)))
    print(f"\nwritten to {page.PAGE.relative_to(page.PAGE.parents[1])}")


if __name__ == "__main__":
    main()
