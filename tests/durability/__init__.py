"""Measures the promise in rows: Pods as the webhook makes them, run, ended and made again."""
