"""litestream-hook: gives SQLite databases in Pods a Litestream replica when the Pod is created."""

__version__ = "0.1.0"

GROUP = "litestream-hook.kaidotio.github.io"
