"""The commands, a module each, and what they share: files, their documents as objects, findings in them, edits.

The room prints and reads files. What is right and wrong is decided by `admission.verdict`, as for the webhook.
"""

from typing import Final

FOUND: Final = 1
"""Exit code: something is wrong with an object."""
UNREADABLE: Final = 2
"""Exit code: something is wrong with a file, an option or the call."""
