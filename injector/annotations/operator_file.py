"""The operator's file: defaults for all namespaces and for some, and what nobody else may choose.

    defaults: {KEY: VALUE, …}
    namespaces: {NAMESPACE: {KEY: VALUE, …}, …}
    enforce: [KEY, …]
    allow: {KEY: [PATTERN, …], …}
    litestream-options: {KEY: VALUE, …}

YAML, in which every value is read as text, as it would be in an annotation: no quotes are needed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from injector.annotations import litestream_options, settings
from injector.annotations.defaults import LIMITED, NONE, PLACEHOLDER, Default, Defaults, expression, normal
from injector.annotations.findings import Findings
from injector.annotations.table import BY_KEY, STATUS, group, meant, similar
from injector.errors import InvalidOptions, quoted, without_credentials
from injector.options import Options
from injector.stores import SPECIAL_KEYS, STORES, Store, kind
from injector.values import is_label

LARGEST_FILE = 1024 * 1024  # a ConfigMap holds no more
SECTIONS = ("defaults", "namespaces", "enforce", "allow", "litestream-options")
KEYS = [key for key in BY_KEY if key != "inject"]
EVERYWHERE = "the operator's defaults"
MOST_UNKNOWN = 20  # keys of a Namespace are told
Texts = Mapping[str, str]


class InvalidDefaults(InvalidOptions):
    """The operator's file can't be used: every problem, one a line."""


@dataclass(frozen=True)
class OperatorFile:
    """What the file says, all of it sound."""

    everywhere: Texts = field(default_factory=dict)
    namespaces: Mapping[str, Texts] = field(default_factory=dict)
    enforce: frozenset[str] = frozenset()
    allow: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    litestream: Mapping[str, Any] = field(default_factory=dict)  # keys of its config, see litestream_options

    def of(self, namespace: str, annotations: Mapping[str, Any] | None = None) -> Defaults:
        """What holds in a namespace.

        Args:
            namespace: its name.
            annotations: of the Namespace object, those of our group, by their key below it.
        """
        if self == NOTHING and not annotations:
            return NONE
        near, written = self.namespaces.get(namespace, {}), annotations or {}
        used = {key: Default(text, EVERYWHERE) for key, text in self.everywhere.items()}
        used |= {key: Default(text, f"{EVERYWHERE} for namespace {namespace}") for key, text in near.items()}
        origin = f"the annotations of Namespace {namespace}"
        used |= {key: Default(str(text), origin) for key, text in written.items() if key in KEYS}
        unknown = [key for key in written if key not in KEYS][:MOST_UNKNOWN]
        warnings = [f"Namespace {namespace}: {quoted(key)} {_no_default(key)}" for key in unknown]
        if store := _store(written):
            strange = sorted(SPECIAL_KEYS & written.keys() - store.keys)
            warnings += [f"Namespace {namespace}: {quoted(key)} is nothing that {store.name} has" for key in strange]
        return Defaults(
            namespace, {**self.everywhere, **near}, used, self.enforce, self.allow, warnings, self.litestream
        )


NOTHING = OperatorFile()


def load(path: str, options: Options) -> OperatorFile:
    """What a file says; without a path nothing. Raises InvalidDefaults with every problem, one a line."""
    if not path:
        return NOTHING
    try:
        content = Path(path).read_bytes()
        if len(content) > LARGEST_FILE:
            raise InvalidDefaults(f"is larger than {LARGEST_FILE} bytes")
        return read(content.decode(), options)
    except OSError as error:
        problems = f"can't be read: {error.strerror}"
    except UnicodeDecodeError as error:
        problems = f"is not UTF-8: {error.reason} at byte {error.start}"
    except InvalidDefaults as invalid:
        problems = str(invalid)
    raise InvalidDefaults("\n".join(f"{path}: {problem}" for problem in problems.splitlines()))


@functools.lru_cache(maxsize=4)
def read(text: str, options: Options) -> OperatorFile:
    """What the text of a file says.

    Args:
        text: YAML.
        options: the operator's, to judge what several values give together.

    Raises:
        InvalidDefaults: with every problem, one a line: the key, its value and what would be right.
    """
    document = _plain(text) or {}
    if not isinstance(document, dict):
        raise InvalidDefaults(f"is no mapping: write {', '.join(f'{name}:' for name in SECTIONS)}")
    problems = [
        f"{quoted(name)}: is none of {', '.join(SECTIONS)}{similar(name, [*SECTIONS])}"
        for name in document
        if name not in SECTIONS
    ]
    everywhere = _texts("defaults", document.get("defaults"), problems)
    namespaces = {}
    for name, below in _mapping("namespaces", document.get("namespaces"), problems).items():
        if not is_label(name):
            problems.append(f"namespaces: {quoted(name)}: write the name of a namespace, such as shop")
        namespaces[name] = _texts(f"namespaces.{name}", below, problems)
    enforce = frozenset(_keys("enforce", document.get("enforce"), problems))
    allow = {
        key: tuple(_patterns(key, patterns, problems))
        for key, patterns in _mapping("allow", document.get("allow"), problems).items()
    }
    written = _mapping("litestream-options", document.get("litestream-options"), problems)
    litestream = litestream_options.read(written, problems, "litestream-options")
    found = OperatorFile(everywhere, namespaces, enforce, allow, litestream)
    problems += problems or [*_together(found, options), *_strange(found)]
    if problems:
        raise InvalidDefaults("\n".join(dict.fromkeys(problems)))
    return found


def _plain(text: str) -> Any:  # noqa: ANN401 (whatever the file holds)
    """YAML with every scalar as text; an empty document is an empty mapping. Raises InvalidDefaults."""
    import yaml  # only where there is such a file

    def plain(node: yaml.Node | None) -> Any:  # noqa: ANN401
        if node is None:
            return {}
        if isinstance(node, yaml.SequenceNode):
            return [plain(item) for item in node.value]
        if not isinstance(node, yaml.MappingNode):
            return None if node.tag.endswith(":null") else str(node.value)
        found: dict[str, Any] = {}
        for key, value in node.value:
            name, line = str(plain(key)), key.start_mark.line + 1
            if name in found:
                raise InvalidDefaults(f"line {line}: {quoted(name)} is there twice: write it once")
            found[name] = plain(value)
        return found

    try:
        return plain(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise InvalidDefaults(f"{line}is no YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidDefaults(f"is no YAML: {' '.join(str(error).split())}") from None


def _mapping(place: str, found: object, problems: list[str]) -> dict[str, Any]:
    if isinstance(found, dict):
        return found
    if found is not None:
        problems.append(f"{place}: {_shown(found)}: write KEY: VALUE, one a line")
    return {}


def _texts(place: str, found: object, problems: list[str]) -> dict[str, str]:
    """The values of keys, each of which an annotation could have."""
    texts = {}
    for key, text in _mapping(place, found, problems).items():
        if key not in KEYS:
            problems.append(f"{place}.{quoted(key)[1:-1]}: {_no_default(key)}")
        elif not isinstance(text, str):
            problems.append(f"{place}.{key}: {_shown(text)}: write one value, as in an annotation")
        else:
            try:
                BY_KEY[key].read(text)
                texts[key] = text
            except ValueError as right:
                problems.append(f"{place}.{key}: {quoted(without_credentials(key, text))}: {right}")
    return texts


def _no_default(key: str) -> str:
    if key == "inject":
        return "has no effect here: each Pod asks for itself"
    if key == STATUS:
        return "is written by the webhook alone: remove it"
    return f"is no key of an annotation{meant(key, KEYS)}"


def _keys(place: str, found: object, problems: list[str]) -> Iterator[str]:
    if found is not None and not isinstance(found, list):
        problems.append(f"{place}: {_shown(found)}: write a list of keys, such as [endpoint, bucket]")
        return
    for key in found or []:
        if key in KEYS:
            yield key
        else:
            problems.append(f"{place}: {_shown(key)}: {_no_default(str(key))}")


def _patterns(key: str, found: object, problems: list[str]) -> Iterator[str]:
    if key not in LIMITED:
        problems.append(
            f"allow.{quoted(key)[1:-1]}: only {', '.join(LIMITED)} can be limited{similar(key, [*LIMITED])}"
        )
        return
    if not isinstance(found, list) or not found:
        problems.append(f'allow.{key}: {_shown(found)}: write a list of patterns, such as ["{{namespace}}-*"]')
        return
    for pattern in found:
        try:
            if not isinstance(pattern, str) or not pattern.isprintable() or not pattern or " " in pattern:
                raise ValueError
            if set("{}") & set(PLACEHOLDER.sub("", pattern)):
                raise ValueError
            expression(key, pattern, None)
            yield pattern
        except ValueError:
            right = "write a text in which * stands for anything but a /, ** for anything, and {namespace} for that"
            problems.append(f"allow.{key}: {_shown(pattern)}: {right}")


def _together(found: OperatorFile, options: Options) -> Iterator[str]:
    """What values give together, as a Pod that adds nothing would be told, and defaults that are not allowed."""
    for place, namespace, texts in (
        ("defaults", None, found.everywhere),
        *((f"namespaces.{name}", name, {**found.everywhere, **texts}) for name, texts in found.namespaces.items()),
    ):
        findings = Findings(group(options.variant))
        used = {key: Default(text, "") for key, text in texts.items()}
        settings.read({"inject": "true"}, options, findings, Defaults(used=used))
        for violation in findings.violations:
            key = violation.field.rpartition("/")[2]
            shown = "" if violation.value is None else f" {quoted(violation.value)}:"
            yield f"{place}.{key}:{shown} {violation.expected}"
        for key in sorted({*LIMITED} - {"replica-path"} & texts.keys() & found.allow.keys()):
            value = str(normal(key, texts[key]))
            if not any(expression(key, pattern, namespace).fullmatch(value) for pattern in found.allow[key]):
                yield f"{place}.{key}: {quoted(texts[key])}: is not what allow.{key} allows: change one of them"


def _strange(found: OperatorFile) -> Iterator[str]:
    """What stands beside a bucket whose store has no such thing; a default may be for a namespace's other bucket."""
    near = [store for texts in found.namespaces.values() if (store := _store(texts))]
    sections = [(f"namespaces.{name}", texts, ()) for name, texts in found.namespaces.items()]
    for place, texts, others in (("defaults", found.everywhere, near), *sections):
        if store := _store(texts):
            useful = store.keys.union(*(other.keys for other in others))
            for key in sorted(SPECIAL_KEYS & texts.keys() - useful):
                yield f"{place}.{key}: {quoted(texts[key])}: is nothing that {store.name} has: remove it"


def _store(texts: Mapping[str, Any]) -> Store | None:
    """The store of the bucket among these values, if there is one."""
    return STORES[kind(str(texts["bucket"]))] if "bucket" in texts else None


def _shown(found: object) -> str:
    return quoted(found) if isinstance(found, str) else "nothing" if found is None else "a list or mapping"
