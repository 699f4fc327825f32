//! The cluster as the API server has it, decoded by the crate that decodes manifests.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use http::Request;
use kube::Client;
use palisade_manifest::{Admission, Input, LoadOptions, load};
use palisade_policy::{Change, Cluster, Name, ObjectKey};

const PATHS: [&str; 5] = [
    "/api/v1/namespaces",
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/services",
    "/apis/networking.k8s.io/v1/networkpolicies",
];
/// Served only while their CustomResourceDefinitions exist.
const OPTIONAL_PATHS: [&str; 3] = [
    "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
    "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies",
    "/apis/policy.networking.k8s.io/v1alpha1/baselineadminnetworkpolicies",
];

/// Returns the cluster with the pods that are bound to these nodes.
///
/// # Errors
/// If the API server doesn't respond, or has an object that can't be decoded.
pub async fn read(client: &Client, nodes: &BTreeSet<Name>) -> Result<Cluster> {
    let mut inputs = Vec::new();
    for path in PATHS {
        let text = client.request_text(Request::get(path).body(Vec::new())?).await?;
        inputs.push(Input::Text { name: path.to_owned(), text });
    }
    for path in OPTIONAL_PATHS {
        match client.request_text(Request::get(path).body(Vec::new())?).await {
            Ok(text) => inputs.push(Input::Text { name: path.to_owned(), text }),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut cluster = parse(&inputs)?;
    let is_elsewhere = |p: &palisade_policy::Pod| p.node.as_ref().is_none_or(|n| !nodes.contains(n));
    let other_pods: Vec<ObjectKey> =
        cluster.pods.values().filter(|p| is_elsewhere(p)).map(|p| p.key.clone()).collect();
    for key in other_pods {
        cluster.apply(Change::RemovePod(key));
    }
    let other_nodes: Vec<Name> = cluster.nodes.keys().filter(|n| !nodes.contains(*n)).cloned().collect();
    for name in other_nodes {
        cluster.apply(Change::RemoveNode(name));
    }
    Ok(cluster)
}

/// Decodes objects of the API server: no addresses are assigned, and what the server has validated is not validated again.
///
/// # Errors
/// If an object can't be decoded.
pub fn parse(inputs: &[Input]) -> Result<Cluster> {
    let options = LoadOptions { addresses: None, admission: Admission::Passed, ..LoadOptions::default() };
    let loaded = load(inputs, &options);
    if loaded.has_errors() {
        let errors: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        bail!("cannot decode objects of the API server:\n{}", errors.join("\n"));
    }
    Ok(loaded.cluster)
}
