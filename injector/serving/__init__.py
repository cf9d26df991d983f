"""The server: three ports in one container, connections and their deadlines, log and metrics, and the function itself.

It may know everything below, as it puts the parts together. It may not judge: what becomes of a Pod is decided in
admission.
"""
