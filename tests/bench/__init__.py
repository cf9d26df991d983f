"""`make bench`: what the webhook costs. `core`, `server` and `command` measure, `page` writes docs/performance.md.

All is measured in rounds, in each of which everything is measured once, so that what else a machine does is in all of
it alike.
"""
