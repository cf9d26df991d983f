"""TLS that needs nobody: a certificate from files, from a Secret that the replicas share, or of our own."""

from __future__ import annotations

from injector.tls.certificate import BadCertificate
from injector.tls.rotation import Certificates, Served, open_certificates

__all__ = ["BadCertificate", "Certificates", "Served", "open_certificates"]
