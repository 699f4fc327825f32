//! A real Kubernetes cluster of two nodes on one machine, and the suites that run in it.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod images;
