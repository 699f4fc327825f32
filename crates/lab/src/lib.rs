//! A Kubernetes network on one machine: namespaces as pods and nodes, the real kernel, real probes.
