"""The webhook in front of a real API server: etcd and kube-apiserver on loopback."""
