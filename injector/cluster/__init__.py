"""What is asked of the Kubernetes API: the few calls, and the single-writer guard that makes them.

It may know Pods and options. It may not know AdmissionReviews, HTTP of ours, or certificates.
"""
