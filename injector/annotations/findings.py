"""What is found wrong or risky with one Pod, gathered so that all of it is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from injector.errors import InvalidPod, Violation, without_credentials

MOST = 500  # violations: nobody reads on, and databases times variables, say, can be many


@dataclass
class Findings:
    """What is found wrong (violations) or risky (warnings) with one Pod, gathered so that all is told at once.

    `origins` says, in words, where the values of keys come from that the Pod's author did not write.
    """

    group: str
    violations: list[Violation] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    origins: Mapping[str, str] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """The full key of an annotation of our group."""
        return f"{self.group}/{name}"

    def deny(self, name: str, value: str | None, expected: str) -> None:
        """Notes that the annotation of this name (below the group) is wrong; credentials in a URL are not repeated."""
        shown = None if value is None else without_credentials(name, value)
        origin = None if shown is None else self.origins.get(name)
        whose = f" (the value is of {origin})" if origin else ""
        self.deny_field(self.key(name), shown, expected + whose)

    def deny_field(self, path: str, value: str | None, expected: str) -> None:
        """Notes that the field of the Pod at this path (`spec.os`) is wrong.

        Raises:
            InvalidPod: if it is one of many; nothing more is looked for then.
        """
        self.violations.append(Violation(path, value, expected))
        if len(self.violations) >= MOST:
            self.end()

    def end(self) -> None:
        """Ends the injection if anything is wrong.

        Raises:
            InvalidPod: with every violation, and the warnings.
        """
        if self.violations:
            raise InvalidPod(self.violations, self.warnings)

    def warn(self, text: str) -> None:
        """Notes a risk."""
        self.warnings.append(text)
