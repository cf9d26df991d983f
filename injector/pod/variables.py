"""The variables of a container that a `subPathExpr` refers to, and those that these refer to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from injector.pod.shapes import Container, EnvVar

MOST_VARIABLES = 50_000  # looked at for all `subPathExpr` of a Pod together, as one can refer to thousands
_VARIABLE = re.compile(r"\$\$|\$\(([^()]*)\)")  # `$$` stands for a dollar sign


class Variables(NamedTuple):
    """What an expression leads to: entries of the env in its order (and as one text), and names that are not in it."""

    entries: list[EnvVar]
    text: str
    missing: list[str]


class _Environment:
    """A container's variables, and which others each refers to; a text is read once."""

    def __init__(self, container: Container) -> None:
        self.entries = {entry["name"]: (index, entry) for index, entry in enumerate(container.get("env") or [])}
        self._referred: dict[str, list[str]] = {}

    def referred(self, name: str) -> list[str]:
        """The variables that the value of this one refers to."""
        if name not in self._referred:
            self._referred[name] = _referred(self.entries[name][1].get("value") or "") if name in self.entries else []
        return self._referred[name]


@dataclass(frozen=True)
class Expressions:
    """The expressions of a Pod; what one of a container leads to is looked up once."""

    environments: dict[str, _Environment] = field(default_factory=dict)  # by container
    followed: dict[tuple[str, str], Variables] = field(default_factory=dict)  # by container and expression
    looked_at: list[str] = field(default_factory=list)  # variables, each time

    def too_many(self) -> bool:
        """Whether some were not followed any more."""
        return len(self.looked_at) >= MOST_VARIABLES

    def variables(self, expression: str, container: Container) -> Variables:
        """The variables that an expression refers to, and those that they refer to.

        In the container's own order: a variable can refer to earlier ones only. Beyond MOST_VARIABLES none are
        followed, and the Pod is denied.
        """
        place = container["name"], expression
        if place not in self.followed:
            if container["name"] not in self.environments:
                self.environments[container["name"]] = _Environment(container)
            self.followed[place] = self._follow(_referred(expression), self.environments[container["name"]])
        return self.followed[place]

    def _follow(self, wanted: list[str], environment: _Environment) -> Variables:
        needed: set[str] = set()
        while wanted and not self.too_many():
            name = wanted.pop()
            if name not in needed:
                needed.add(name)
                further = environment.referred(name)
                self.looked_at.extend((name, *further))
                wanted += further
        found = sorted((environment.entries[name] for name in needed if name in environment.entries), key=_first)
        entries = [entry for _, entry in found]
        return Variables(entries, str(entries), sorted(needed.difference(environment.entries)))


def _first(pair: tuple[int, EnvVar]) -> int:
    return pair[0]


def _referred(text: str) -> list[str]:
    """The variables that a text refers to, each once."""
    return list(dict.fromkeys(name for name in _VARIABLE.findall(text) if name))
