//! How to read manifests.

use palisade_policy::Family;

use crate::{addresses::AddressPlan, tree::Limits};

/// How to read.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The namespace of objects that name none. `kubectl -n`.
    pub default_namespace: String,
    /// Unknown fields are errors, as with `kubectl --validate=strict`; else they are warnings.
    pub strict: bool,
    /// The API server's feature gate `StrictIPCIDRValidation` (SEMANTICS A.3.8).
    pub strict_cidr: bool,
    /// The release channel of the cluster-wide policies' CustomResourceDefinitions.
    pub channel: Channel,
    /// Whether the cluster-wide policies have been admitted by an API server.
    pub admission: Admission,
    /// Files of more bytes are refused unread.
    pub max_file_bytes: u64,
    /// An input of more files and directories is refused.
    pub max_files: usize,
    /// Whether pipes and devices are refused also where they were named.
    pub regular_files: bool,
    /// How many pods all workloads together may make.
    pub max_made_pods: u32,
    /// What one document may cost.
    pub limits: Limits,
    /// Whether all namespaces are declared, if any is, so that one that isn't does not exist.
    pub all_namespaces: bool,
    /// The addresses to give to pods and services that declare none; `None` leaves them without.
    pub addresses: Option<AddressPlan>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            default_namespace: "default".to_owned(),
            strict: false,
            strict_cidr: false,
            channel: Channel::default(),
            admission: Admission::default(),
            max_file_bytes: 64 << 20,
            // Ten thousand policies and as much again of everything else, each in a file of its own.
            max_files: 200_000,
            regular_files: false,
            // The largest clusters have 150,000 pods; the Kubernetes scalability limit is that number.
            max_made_pods: 300_000,
            limits: Limits::default(),
            all_namespaces: true,
            addresses: Some(AddressPlan::default()),
        }
    }
}

impl LoadOptions {
    /// The default, with addresses made up in these families.
    #[must_use]
    pub fn with_families(families: &[Family]) -> Self {
        let addresses = Some(AddressPlan { families: families.to_vec(), ..AddressPlan::default() });
        Self { addresses, ..Self::default() }
    }
}

/// Which of the project's two release channels the cluster's CustomResourceDefinitions come from (SEMANTICS 0.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// All fields: also `nodes` and `domainNames`, `namedPort` of v1alpha1 and `destinationNamedPort` of v1beta1.
    #[default]
    Experimental,
    /// Without these: the API server drops them like any unknown field before it validates.
    Standard,
}

/// Whether cluster-wide policies have passed the API server's checks already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// They have not: a file. What the API server would reject is an error, and not taken in.
    #[default]
    Check,
    /// They have: an API server sent them. Nothing is checked, and fields that we don't know come from a newer version
    /// of the API: a rule with such a field fails closed.
    Passed,
}
