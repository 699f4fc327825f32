//! The real data plane: nftables and connection tracking of the network namespace in which it was opened.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use palisade_nft::{
    Commit, Enforcer, Feature, Kernel, Left, Options, Surroundings, Verification, conntrack, cut_off, drift,
    drops,
};
use palisade_policy::{Delta, Direction, NodePlan};

use crate::{Connection, DataPlane, DataPlaneError, FiveTuple, Programmed, Revoked, links::Links};

/// Programs the kernel through [`palisade_nft`].
///
/// To be used from one network namespace: the sockets stay in that of [`NftDataPlane::open`], but the node's own
/// addresses are read in that of the calling thread.
#[derive(Debug)]
pub struct NftDataPlane {
    options: Options,
    state: State,
    nothing: NodePlan,
    /// None where they could not be listened to yet.
    links: Option<Links>,
    /// Why the links could not be read, if that is still to be told.
    trouble: Option<DataPlaneError>,
}

#[derive(Debug)]
enum State {
    Idle(Option<Kernel>),
    Programmed(Box<Enforcer>),
}

const LISTENING: &str = "listening to changes of the node's links";
const READING: &str = "reading the node's links";

fn failed<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl FnOnce(E) -> DataPlaneError {
    move |e| DataPlaneError { doing, source: Box::new(e) }
}

impl NftDataPlane {
    /// Opens the kernel's interfaces in the calling thread's network namespace. Touches no rule yet.
    ///
    /// # Errors
    /// If the kernel has no nftables, or the caller may not use it.
    pub fn open() -> Result<Self, DataPlaneError> {
        Self::open_with(Options::default())
    }

    /// [`NftDataPlane::open`] with other options.
    ///
    /// # Errors
    /// As [`NftDataPlane::open`].
    pub fn open_with(options: Options) -> Result<Self, DataPlaneError> {
        let kernel = Kernel::open().map_err(failed("opening the kernel's nftables"))?;
        let (links, trouble) = match Links::open() {
            Ok(links) => (Some(links), None),
            Err(error) => (None, Some(failed(LISTENING)(error))),
        };
        let (state, nothing) = (State::Idle(Some(kernel)), NodePlan::default());
        Ok(Self { options, state, nothing, links, trouble })
    }

    /// What an earlier run left in the kernel. None before [`DataPlane::start`] has succeeded.
    #[must_use]
    pub fn left(&self) -> Option<Left> {
        match &self.state {
            State::Idle(_) => None,
            State::Programmed(enforcer) => Some(enforcer.left()),
        }
    }

    /// What was asked for and this kernel lacks, in words with the consequence. Enforcement goes on without.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        let State::Programmed(enforcer) = &self.state else { return Vec::new() };
        enforcer.lacking().map(in_words).collect()
    }

    /// Begins to listen to changes of the table by others. None before [`DataPlane::start`] has succeeded.
    ///
    /// # Errors
    /// If the kernel doesn't let us listen.
    pub fn watch(&mut self) -> Result<Option<drift::Watcher>, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(None) };
        drift::Watcher::open(enforcer.kernel())
            .map(Some)
            .map_err(failed("listening to changes by other programs"))
    }

    /// Whether the kernel's table is still the one that was written last; cheap, and blind to edits that leave its number
    /// alone.
    ///
    /// # Errors
    /// If the kernel doesn't say.
    pub fn in_step(&mut self) -> Result<bool, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(true) };
        enforcer.in_step().map_err(failed("looking at the table"))
    }

    /// How many elements the sets and maps of the table hold. `O(1)`.
    #[must_use]
    pub fn elements(&self) -> usize {
        match &self.state {
            State::Idle(_) => 0,
            State::Programmed(enforcer) => enforcer.elements(),
        }
    }

    /// How many packets were dropped since `tally` began; none if the kernel doesn't say.
    pub fn count_drops(&mut self, tally: &mut drops::Tally) -> Option<drops::Counts> {
        let State::Programmed(enforcer) = &mut self.state else { return None };
        drops::Counters::read(enforcer.kernel()).ok().map(|counters| tally.add(counters))
    }

    /// Reads the kernel and says where it differs from the plan as programmed. Changes nothing.
    ///
    /// # Errors
    /// If the kernel can't be read.
    pub fn verify(&mut self) -> Result<Option<Verification>, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(None) };
        enforcer.verify().map(Some).map_err(failed("reading the table back"))
    }

    /// Looks at the node's links again if they have changed, at most once a second, and takes in what differs. What local
    /// pods' comings and goings change is taken in with the commit that brings them.
    ///
    /// # Errors
    /// If the links can't be read, or the kernel refuses what follows from them: also at the last start or commit. Then
    /// the rules go by the links as they were known before, and the next call tries again.
    pub fn look_around(&mut self) -> Result<Option<Programmed>, DataPlaneError> {
        if let Some(trouble) = self.trouble.take() {
            return Err(trouble);
        }
        let is_due = self.links()?.is_due().map_err(failed(LISTENING))?;
        if is_due { self.look_around_now() } else { Ok(None) }
    }

    /// [`NftDataPlane::look_around`] whether anything was told of or not, and however short a time ago the last one was.
    ///
    /// # Errors
    /// As [`NftDataPlane::look_around`].
    pub fn look_around_now(&mut self) -> Result<Option<Programmed>, DataPlaneError> {
        self.links()?;
        let (State::Programmed(enforcer), Some(links)) = (&mut self.state, &mut self.links) else {
            return Ok(None);
        };
        let surroundings = links.read(&enforcer.programmed().local).map_err(failed(READING))?;
        surround(enforcer, links, &surroundings)
    }

    /// The links, which are listened to from here on if they were not.
    fn links(&mut self) -> Result<&mut Links, DataPlaneError> {
        match &mut self.links {
            Some(links) => Ok(links),
            missing => Ok(missing.insert(Links::open().map_err(failed(LISTENING))?)),
        }
    }

    /// Takes in which local addresses came and went.
    fn follow(&mut self, delta: &Delta) {
        let (State::Programmed(enforcer), Some(links)) = (&mut self.state, &mut self.links) else { return };
        let surroundings = links.follow(&delta.local.added, &delta.local.removed);
        let outcome = surroundings
            .map_err(failed(READING))
            .and_then(|surroundings| surround(enforcer, links, &surroundings));
        self.trouble = outcome.err().or(self.trouble.take());
    }

    /// Reads the kernel and mends what differs from the plan as programmed, whoever changed it.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    pub fn repair(&mut self) -> Result<Programmed, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(Programmed::default()) };
        enforcer.repair().map(|c| programmed(&c)).map_err(failed("mending the table"))
    }
}

/// Takes other surroundings in, if they are others.
fn surround(
    enforcer: &mut Enforcer,
    links: &mut Links,
    surroundings: &Surroundings,
) -> Result<Option<Programmed>, DataPlaneError> {
    if enforcer.surroundings() == surroundings {
        return Ok(None);
    }
    match enforcer.set_surroundings(surroundings) {
        Ok(commit) => Ok(Some(programmed(&commit))),
        Err(error) => {
            links.again();
            Err(failed("programming what follows from the node's links")(error))
        }
    }
}

fn in_words(feature: Feature) -> &'static str {
    match feature {
        Feature::SourceCheck => {
            "this kernel does not look up reverse paths in the forward hook (it takes Linux 5.19 with CONFIG_NFT_FIB_INET): \
             packets with forged source addresses are judged by the address that they claim"
        }
        Feature::Bridge => {
            "this kernel has no nftables of the bridge family (CONFIG_NF_TABLES_BRIDGE): frames with a VLAN tag pass \
             between bridged pods whatever policies say"
        }
    }
}

impl NftDataPlane {
    /// Makes the table anew as the plan as programmed needs it, without reading what is there.
    ///
    /// # Errors
    /// Whatever the kernel refuses.
    pub fn remake(&mut self) -> Result<Programmed, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(Programmed::default()) };
        enforcer.remake().map(|c| programmed(&c)).map_err(failed("making the table anew"))
    }
}

fn programmed(commit: &Commit) -> Programmed {
    Programmed {
        transactions: commit.transactions,
        elements: commit.elements,
        generation: u64::from(commit.generation),
    }
}

impl DataPlane for NftDataPlane {
    type Entry = conntrack::Connection;

    fn programmed(&self) -> &NodePlan {
        match &self.state {
            State::Idle(_) => &self.nothing,
            State::Programmed(enforcer) => enforcer.programmed(),
        }
    }

    fn start(&mut self, plan: &NodePlan) -> Result<Programmed, DataPlaneError> {
        let kernel = match &mut self.state {
            State::Idle(kernel) => kernel.take(),
            State::Programmed(enforcer) => {
                let commit = enforcer.lead_to(plan).map_err(failed("programming the node's plan anew"))?;
                return Ok(programmed(&commit));
            }
        };
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => Kernel::open().map_err(failed("opening the kernel's nftables"))?,
        };
        // Enforcement goes on without: rules that need no more than addresses work.
        let read = self.links.as_mut().map_or_else(|| Ok(Surroundings::default()), |l| l.read(&plan.local));
        let surroundings = read.unwrap_or_else(|error| {
            self.trouble = Some(failed(READING)(error));
            Surroundings::default()
        });
        let (enforcer, commit) = Enforcer::start_in(kernel, self.options.clone(), surroundings, plan)
            .map_err(failed("programming the node's plan"))?;
        self.state = State::Programmed(Box::new(enforcer));
        Ok(programmed(&commit))
    }

    fn commit(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        match &mut self.state {
            State::Idle(_) => {
                // The start failed: nothing is programmed, so the delta is a whole plan.
                let mut plan = NodePlan::default();
                plan.apply(delta);
                self.start(&plan)
            }
            State::Programmed(enforcer) => {
                let commit = enforcer.commit(delta).map_err(failed("programming a change"))?;
                if !delta.local.is_empty() {
                    self.follow(delta);
                }
                Ok(programmed(&commit))
            }
        }
    }

    fn holds(&mut self) -> Result<bool, DataPlaneError> {
        // What an earlier run left, if anything, is nobody's plan.
        let State::Programmed(enforcer) = &mut self.state else { return Ok(false) };
        match enforcer.verify() {
            Ok(found) => Ok(found.agrees()),
            // Others may keep a whole listing from ever being consistent. Our number is one element, and says whether all of
            // our changes are there and no others of ours; changes by others are told by the kernel.
            Err(_) => enforcer.in_step().map_err(failed("looking at the table")),
        }
    }

    fn cut_off(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError> {
        let doing = failed("cutting pods off in table inet palisade_cut_off");
        match &mut self.state {
            State::Programmed(enforcer) => {
                let options = enforcer.options().clone();
                cut_off::cut_off(enforcer.kernel(), &options, addresses).map_err(doing)
            }
            State::Idle(_) => {
                let mut kernel = Kernel::open().map_err(failed("opening the kernel's nftables"))?;
                cut_off::cut_off(&mut kernel, &self.options, addresses).map_err(doing)
            }
        }
    }

    fn exempts_own_node(&self) -> bool {
        !self.options.egress_to_own_node
    }

    fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        let interfaces = getifaddrs().map_err(failed("reading the node's addresses"))?;
        let ip = |storage: SockaddrStorage| {
            let v4 = storage.as_sockaddr_in().map(|a| SocketAddr::from(*a).ip());
            v4.or_else(|| storage.as_sockaddr_in6().map(|a| SocketAddr::from(*a).ip()))
        };
        Ok(interfaces.filter_map(|interface| ip(interface.address?)).collect())
    }

    fn connections(
        &mut self,
        ends: &BTreeSet<IpAddr>,
    ) -> Result<Vec<(Connection, Self::Entry)>, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(Vec::new()) };
        let entries = conntrack::list(enforcer.kernel(), ends).map_err(failed("listing connections"))?;
        let with_view = entries.into_iter().map(|entry| {
            let view = Connection {
                tuple: FiveTuple::from(&entry),
                revoked: entry.is_revoked(),
                midstream: entry.midstream,
            };
            (view, entry)
        });
        Ok(with_view.collect())
    }

    fn revoke(&mut self, connections: &[(FiveTuple, &Self::Entry)]) -> Result<Revoked, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(Revoked::default()) };
        enforcer.revoke(connections).map_err(failed("revoking connections"))
    }

    fn restore(&mut self, tuples: &[FiveTuple], entries: &[&Self::Entry]) -> Result<(), DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(()) };
        enforcer.restore(tuples, entries).map_err(failed("restoring connections"))
    }

    fn is_revoked(&self, tuple: &FiveTuple) -> bool {
        matches!(&self.state, State::Programmed(enforcer) if enforcer.is_revoked(tuple))
    }

    fn revoked(&self) -> Vec<FiveTuple> {
        match &self.state {
            State::Idle(_) => Vec::new(),
            State::Programmed(enforcer) => enforcer.revoked().collect(),
        }
    }

    fn has_revoked(&self) -> bool {
        matches!(&self.state, State::Programmed(enforcer) if enforcer.revoked().next().is_some())
    }

    fn labelled(&mut self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(BTreeSet::new()) };
        let labelled = conntrack::list_revoked(enforcer.kernel()).map_err(failed("listing connections"))?;
        Ok(labelled.into_iter().map(|connection| connection.source).collect())
    }
}
