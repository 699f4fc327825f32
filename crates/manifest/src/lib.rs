//! Kubernetes manifests to Palisade's domain values, with source positions, API defaulting and validation.
