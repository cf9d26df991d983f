"""Objects of one call that share a replica: the webhook is asked about one at a time, and sees no other."""

from __future__ import annotations

from dataclasses import dataclass, field

from injector.admission.verdict import Question, Verdict
from injector.annotations.table import group
from injector.errors import Violation
from injector.pod import replica
from injector.stores import location


@dataclass
class Sharing:
    """The first writer of each replica, by its place, among the objects that were judged so far."""

    first: dict[str, str] = field(default_factory=dict)

    def others(self, question: Question, verdict: Verdict) -> list[Violation]:
        """What would write one replica with an object that was judged before: two writers destroy it.

        A Pod or workload that a controller made writes what its controller's template says. An object that stands in
        several files is one, and `single-writer` other than `enforce` lets two be.

        Args:
            question: the object.
            verdict: on it.
        """
        injection = verdict.injection
        metadata = question.object.get("metadata") or {}
        if injection is None or replica.controller(metadata) is not None:
            return []
        settings = injection.settings
        if settings.single_writer != "enforce":
            return []
        name = f"{question.key[1]} {question.namespace}/{metadata.get('name') or metadata.get('generateName')}"
        places = [settings.bucket.place(settings.endpoint, path) for path in injection.replicas.values()]
        return [
            Violation(
                f"{group(settings.options.variant)}/replica-path",
                place.path,
                f"is the replica of {self.first[location(place)]} too, and two writers destroy it: write another path, "
                "such as {namespace}/{kind}/{workload}/{database}",
            )
            for place in places
            if self.first.setdefault(location(place), name) != name
        ]
