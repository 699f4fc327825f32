//! Options for reading manifests.
use palisade_policy::Family;

use crate::{addresses::AddressPlan, tree::Limits};

/// How to read manifests.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The namespace of objects without one, as with `kubectl -n`.
    pub default_namespace: String,
    /// Whether unknown fields are errors, as with `kubectl --validate=strict`. Otherwise they are warnings.
    pub strict: bool,
    /// The API server's feature gate `StrictIPCIDRValidation` (SEMANTICS A.3.8).
    pub strict_cidr: bool,
    /// The release channel of the cluster-wide policies' CustomResourceDefinitions.
    pub channel: Channel,
    /// Whether an API server has admitted the cluster-wide policies.
    pub admission: Admission,
    /// The largest file that is read.
    pub max_file_bytes: u64,
    /// The largest number of files and directories in one input.
    pub max_files: usize,
    /// Whether pipes and devices are refused even if they were named.
    pub regular_files: bool,
    /// Whether files in directories that are not manifests are errors. Otherwise there is a note about them.
    pub only_manifests: bool,
    /// Whether the files of kustomizations and Helm charts are read as they are. Otherwise what has to be rendered first
    /// is an error.
    pub raw: bool,
    /// The largest number of pods that all workloads together may make.
    pub max_made_pods: u32,
    /// Limits for each document.
    pub limits: Limits,
    /// Whether what enforces the policies learns the addresses of names. Otherwise `domainNames` match nothing, and a finding says so.
    pub learns_names: bool,
    /// Whether an undeclared namespace doesn't exist, provided that any namespace is declared.
    pub all_namespaces: bool,
    /// Whether the hosts are read that environment variables, arguments and ConfigMaps name.
    pub references: bool,
    /// What is known about the addresses of pods and nodes that report none. They get placeholders; `None`: they get
    /// none.
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
            // Enough for ten thousand policies and as many other objects, each in a file of its own.
            max_files: 200_000,
            regular_files: false,
            only_manifests: false,
            raw: false,
            // Kubernetes supports clusters of up to 150,000 pods.
            max_made_pods: 300_000,
            limits: Limits::default(),
            learns_names: false,
            all_namespaces: true,
            references: false,
            addresses: Some(AddressPlan::default()),
        }
    }
}

impl LoadOptions {
    /// Returns the default options, for a cluster of these families.
    #[must_use]
    pub fn with_families(families: &[Family]) -> Self {
        let addresses = Some(AddressPlan { families: Some(families.to_vec()), ..AddressPlan::default() });
        Self { addresses, ..Self::default() }
    }
}

/// The release channel of the cluster's CustomResourceDefinitions for cluster-wide policies (SEMANTICS 0.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// All fields, including `nodes`, `domainNames`, `namedPort` of v1alpha1 and `destinationNamedPort` of v1beta1.
    #[default]
    Experimental,
    /// Without these fields. The API server drops them before it validates, like other unknown fields.
    Standard,
}

/// Whether cluster-wide policies have been admitted by an API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// They have not, since they come from a file. What the API server would reject is an error.
    #[default]
    Check,
    /// They have, since they come from an API server. They are not validated, and unknown fields come from a newer
    /// version of the API. A rule with an unknown field fails closed.
    Passed,
}
