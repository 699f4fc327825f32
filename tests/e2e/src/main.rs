//! `palisade-e2e`: a real Kubernetes cluster of two nodes on one machine.

#![forbid(unsafe_code)]

fn main() {}
