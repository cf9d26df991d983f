"""Runs the containers of a Pod as a kubelet would, for tests: real processes, namespaces, volumes, signals.

`Node` is the way in: ``with Node(secrets=…) as node: run = node.start(pod); run.wait_started()``.
"""

from __future__ import annotations

from tests.podrunner.fields import UnsupportedPod
from tests.podrunner.machine import missing
from tests.podrunner.node import Node
from tests.podrunner.pod import BlockedPod, Run

__all__ = ["BlockedPod", "Node", "Run", "UnsupportedPod", "missing"]
