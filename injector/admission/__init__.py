"""The way of a request: an AdmissionReview in, a verdict, an AdmissionReview out; the command line asks the same judge.

It may know Pods, annotations and options. It may not know sockets, TLS or the cluster: what must be asked there
is handed in.
"""
