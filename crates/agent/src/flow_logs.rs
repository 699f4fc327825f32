//! What the records of flows are made with, and what changes of the cluster make them forget.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use palisade_policy::Change;

use crate::{connections::ConnectionLog, drops::DropLog};

/// What makes records of denied packets, and of connections if these are wanted.
pub(crate) struct FlowLogs<'a> {
    pub(crate) drops: &'a mut DropLog,
    pub(crate) connections: Option<&'a mut ConnectionLog>,
}

impl FlowLogs<'_> {
    /// Forgets what is known of flows from and to addresses whose pods change. To be called before the change is applied.
    pub(crate) fn forget_ends(self, addresses: &HashSet<IpAddr>) {
        self.drops.forget_ends(addresses);
        if let Some(connections) = self.connections {
            connections.forget_ends(addresses);
        }
    }

    /// Forgets why flows were dropped or passed, unless only pods or Services change. To be called before the changes are applied.
    pub(crate) fn forget_policies(self, changes: &[Change]) {
        let is_service = |c: &Change| matches!(c, Change::SetService(_) | Change::RemoveService(_));
        let is_pod = |c: &Change| matches!(c, Change::SetPod(_) | Change::RemovePod(_));
        let has_services = changes.iter().any(is_service);
        let has_policies = !changes.iter().all(|c| is_pod(c) || is_service(c));
        if has_policies {
            self.drops.forget_policies();
        }
        if let Some(connections) = self.connections {
            if has_policies {
                connections.forget_policies();
            }
            if has_services {
                connections.forget_services();
            }
        }
    }

    /// Forgets everything, after a snapshot. `local` are the addresses of the node's pods.
    pub(crate) fn forget_all(self, local: &BTreeSet<IpAddr>) {
        self.drops.forget_policies();
        if let Some(connections) = self.connections {
            connections.forget_policies();
            connections.forget_services();
            connections.seen().set_local(local);
        }
    }
}
