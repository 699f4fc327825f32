//! Pods that start: packets that wait for them, and packets of connections that are older than they are.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_nft::{Enforcer, new_pods::NewPods};
#[cfg(feature = "daemon")]
use {
    super::{NftDataPlane, State, failed},
    crate::DataPlaneError,
};

#[cfg(feature = "daemon")]
const NEW_PODS: &str = "distinguishing connections of new pods in table inet palisade_new_pods";

/// Returns the pods whose older connections the run before has not deleted. What can't be read is replaced when the next pod starts.
pub(super) fn left(enforcer: &mut Enforcer) -> (NewPods, BTreeSet<IpAddr>) {
    NewPods::adopt(enforcer.kernel()).unwrap_or_else(|error| {
        #[cfg(feature = "daemon")]
        tracing::warn!(
            err = crate::error_chain::with_causes(&error),
            "cannot read table inet palisade_new_pods, older connections of pods may continue"
        );
        #[cfg(not(feature = "daemon"))]
        drop(error);
        Default::default()
    })
}

#[cfg(feature = "daemon")]
impl NftDataPlane {
    /// Drops the packets that wait in the node for a pod that is isolated now: see [`LinkMonitor::drop_waiting_packets`].
    pub(crate) fn drop_waiting_packets(&mut self, addresses: &[IpAddr]) {
        if let Some(links) = &mut self.links {
            links.drop_waiting_packets(addresses);
        }
    }

    /// Returns whether the node itself has one of these addresses. Cheaper than [`DataPlane::host_addresses`].
    pub(crate) fn node_has_any(&mut self, addresses: &[IpAddr]) -> Result<bool, DataPlaneError> {
        self.links()?.has_any(addresses).map_err(failed("looking for the node's addresses"))
    }

    /// Drops the packets of connections that are older than a pod which starts, until [`NftDataPlane::retain_new_pods`]: see
    /// [`palisade_nft::new_pods`]. Returns `false` if they can't be told from those of another pod that had an address a moment ago.
    pub(crate) fn add_new_pod(
        &mut self,
        sandbox: &str,
        addresses: &[IpAddr],
    ) -> Result<bool, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(true) };
        self.new_pods.add(enforcer.kernel(), sandbox, addresses).map_err(failed(NEW_PODS))
    }

    /// Lets the packets of all connections of other addresses pass that the rules accept. Those of [`NftDataPlane::take_left_new_pods`] are kept
    /// until they are taken.
    pub(crate) fn retain_new_pods(&mut self, is_new: impl Fn(&IpAddr) -> bool) -> Result<(), DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(()) };
        let left = &self.left_new_pods;
        let is_new = |address: &IpAddr| left.contains(address) || is_new(address);
        self.new_pods.retain(enforcer.kernel(), is_new).map_err(failed(NEW_PODS))
    }

    /// Removes the table for pods that start if none has started lately.
    pub(crate) fn tidy_new_pods(&mut self) -> Result<(), DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(()) };
        self.new_pods.tidy(enforcer.kernel()).map_err(failed(NEW_PODS))
    }

    /// Returns the addresses of pods whose older connections the run before has not deleted, once.
    pub(crate) fn take_left_new_pods(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.left_new_pods)
    }
}
