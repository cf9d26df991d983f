"""Namespaces of a manifest: the defaults that they have for the objects beside them, as in the cluster later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from injector.admission.verdict import NAMESPACE, key_of
from injector.annotations import operator_file, settings
from injector.annotations.defaults import Defaults
from injector.annotations.findings import Findings
from injector.annotations.table import group
from injector.errors import Violation
from injector.options import Options


class Namespaces:
    """What holds in each namespace: the operator's file and, if they count, the Namespaces among some objects.

    Args:
        objects: of manifests, of any kind and shape.
        options: the operator's.

    Raises:
        InvalidDefaults: with every problem of the operator's file.
    """

    def __init__(self, objects: Iterable[Mapping[str, Any]], options: Options) -> None:
        self._options = options
        self._file = operator_file.load(options.defaults_file, options)
        self._annotations: dict[str, Mapping[str, Any]] = {}
        for found in objects if options.namespace_defaults else ():
            metadata = found.get("metadata")
            if key_of(found) == NAMESPACE and isinstance(metadata, dict):
                self._annotations[str(metadata.get("name"))] = settings.ours(metadata, group(options.variant))

    def of(self, name: str) -> Defaults:
        """What holds in a namespace."""
        return self._file.of(name, self._annotations.get(name))

    def problems(self, found: Mapping[str, Any]) -> tuple[list[Violation], list[str]]:
        """What is wrong with a Namespace's annotations, as its Pods would be told, and what to warn of.

        Args:
            found: an object; of one that is no Namespace nothing is wrong.
        """
        if key_of(found) != NAMESPACE or not isinstance(metadata := found.get("metadata"), dict):
            return [], []
        name = str(metadata.get("name"))
        own, findings = self._annotations.get(name, {}), Findings(group(self._options.variant))
        settings.read({"inject": "true"}, self._options, findings, self.of(name))
        keys = {findings.key(key) for key in own}
        wrong = [
            Violation(findings.key(key), json.dumps(value)[:200], "must be a string: put it in quotes")
            for key, value in own.items()
            if not isinstance(value, str)
        ]
        return [*wrong, *(each for each in findings.violations if each.field in keys)], [*self.of(name).warnings]
