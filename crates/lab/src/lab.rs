//! A running lab: a [`Layout`], built from namespaces, links, routes and servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use palisade_policy::{Change, Cluster, Name, ObjectKey, Protocol};

use crate::{
    dns::{DnsServer, NameServers, Zones},
    enforce::{Enforcer, MakeEnforcer},
    error::LabError,
    layout::{Layout, Place},
    namespace::Namespace,
    network::Network,
    ports::Ports,
    sandbox::Sandbox,
    servers::Servers,
    translation::Translation,
};

/// What an update did.
#[derive(Clone, Debug, Default)]
pub struct UpdateSummary {
    /// The changes of the cluster that the enforcers applied.
    pub changes: Vec<Change>,
    /// Pods that were attached.
    pub added: Vec<ObjectKey>,
    /// Pods that were removed.
    pub removed: Vec<ObjectKey>,
    /// The time until the kernel of the slowest node held the new rules.
    pub enforced_in: Duration,
}

/// A running lab. Dropping it removes everything that it created.
pub struct Lab {
    // Fields are dropped in this order: servers and enforcers before the namespaces in which they run.
    servers: Servers,
    dns: BTreeMap<(Place, SocketAddr), DnsServer>,
    /// What DNS servers answer, if there are any.
    zones: Option<Arc<Zones>>,
    /// The sockets of DNS servers, which are not for probes.
    of_dns: NameServers,
    enforcers: BTreeMap<Name, Enforcer>,
    translations: BTreeMap<Name, Translation>,
    network: Network,
    layout: Layout,
    make: MakeEnforcer,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Lab {
    /// Builds a lab: the nodes and their enforcers, then pods, services and servers.
    ///
    /// When it returns, every node enforces the policies and every server listens.
    ///
    /// # Errors
    /// Fails if the kernel refuses a request. Nothing is left behind.
    pub fn build(_: &Sandbox, layout: Layout, make: MakeEnforcer) -> Result<Self, LabError> {
        let mut lab = Self {
            servers: Servers::start()?,
            dns: BTreeMap::new(),
            zones: None,
            of_dns: NameServers::default(),
            enforcers: BTreeMap::new(),
            translations: BTreeMap::new(),
            network: Network::new(&layout)?,
            layout,
            make,
        };
        let nodes: Vec<Name> = lab.layout.nodes.keys().cloned().collect();
        lab.start_nodes(&nodes)?;
        let pods: Vec<ObjectKey> = lab.layout.pods.keys().cloned().collect();
        lab.network.add_pods(&lab.layout, &pods)?;
        lab.refresh_links()?;
        lab.translate()?;
        lab.open_servers()?;
        Ok(lab)
    }

    /// Changes the lab to another cluster.
    ///
    /// Deleted pods are removed first, then every node enforces the new state, then new pods are attached. So a new pod is
    /// never without its rules, and a new pod never gets an address that still has the rules of another.
    ///
    /// # Errors
    /// Fails if the kernel or an enforcer refuses a request. The lab is then between the two states and must be dropped.
    pub fn update(&mut self, cluster: &Cluster) -> Result<UpdateSummary, LabError> {
        let next = self.layout.with_cluster(cluster)?;
        let changes = self.layout.cluster.changes_to(&next.cluster);
        let removed_nodes: Vec<Name> = differing(&self.layout.nodes, &next.nodes);
        let new_nodes: Vec<Name> = differing(&next.nodes, &self.layout.nodes);
        let moved = |from: &Layout, to: &Layout| -> Vec<ObjectKey> {
            let stays = |k: &ObjectKey| {
                to.pods.get(k) == from.pods.get(k) && !removed_nodes.contains(&from.pods[k].node)
            };
            from.pods.keys().filter(|k| !stays(k)).cloned().collect()
        };
        let removed = moved(&self.layout, &next);
        let added: Vec<ObjectKey> = next
            .pods
            .keys()
            .filter(|k| !self.layout.pods.contains_key(*k) || removed.contains(k))
            .cloned()
            .collect();
        for key in &removed {
            let place = Place::Pod(key.clone());
            self.dns.retain(|(of, _), _| *of != place);
            self.servers.close(&place)?;
        }
        self.network.remove_pods(&self.layout, &removed)?;
        for node in &removed_nodes {
            let place = Place::Node(node.clone());
            self.dns.retain(|(of, _), _| *of != place);
            self.servers.close(&place)?;
            self.translations.remove(node);
            self.enforcers.remove(node);
        }
        self.network.set_nodes(&self.layout, &next, &removed_nodes)?;
        self.network.set_outside(&self.layout, &next)?;
        self.layout = next;
        let enforced_in = self.enforce(&changes)?;
        self.start_nodes(&new_nodes)?;
        self.network.add_pods(&self.layout, &added)?;
        if !(added.is_empty() && removed.is_empty() && new_nodes.is_empty()) {
            self.refresh_links()?;
        }
        self.translate()?;
        self.move_dns(!new_nodes.is_empty())?;
        self.open_servers()?;
        self.open_dns()?;
        Ok(UpdateSummary { changes, added, removed, enforced_in })
    }

    /// Starts DNS servers, in place of the servers that answer probes at their addresses and ports. An update moves them to the pods that are behind the
    /// cluster's DNS Service then, and tells the nodes if pods ask at other addresses.
    ///
    /// # Errors
    /// Fails if the lab lacks a place of theirs, or if the kernel refuses a socket.
    pub fn serve_names(&mut self, zones: Zones, servers: NameServers) -> Result<(), LabError> {
        self.dns.clear();
        self.zones = Some(Arc::new(zones));
        self.of_dns = servers;
        self.open_servers()?;
        self.open_dns()
    }

    /// Returns what DNS servers answer, and where they are, if there are any.
    #[must_use]
    pub fn names(&self) -> Option<(&Zones, &NameServers)> {
        Some((self.zones.as_deref()?, &self.of_dns))
    }

    /// Stops the DNS servers whose place the layout no longer has, and lets the nodes trust those that pods ask.
    fn move_dns(&mut self, has_new_nodes: bool) -> Result<(), LabError> {
        let Some(zones) = &self.zones else { return Ok(()) };
        let servers = NameServers::of(&self.layout, zones);
        self.dns.retain(|of, _| servers.at.contains(of));
        let before = std::mem::replace(&mut self.of_dns, servers);
        if before.ask != self.of_dns.ask || has_new_nodes {
            let servers = Arc::new(self.of_dns.ask.clone());
            self.enforcers.values().for_each(|enforcer| enforcer.trust(&servers));
            self.outcomes()?;
        }
        Ok(())
    }

    fn open_dns(&mut self) -> Result<(), LabError> {
        let Some(zones) = &self.zones else { return Ok(()) };
        for of in self.of_dns.at.iter().filter(|of| !self.dns.contains_key(of)).cloned().collect::<Vec<_>>() {
            let (place, at) = &of;
            let namespace = self.namespace(place).ok_or_else(|| LabError::NoSuchPlace(place.to_string()))?;
            let failed = |source| LabError::Dns { at: *at, place: place.to_string(), source };
            let server = DnsServer::start(namespace, *at, zones).map_err(failed)?;
            self.dns.insert(of, server);
        }
        Ok(())
    }

    /// Returns the current layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the nodes with their namespaces.
    pub fn nodes(&self) -> impl Iterator<Item = (&Name, &Namespace)> {
        self.network.nodes()
    }

    /// Returns the pods that have a network namespace of their own, with it.
    pub fn pods(&self) -> impl Iterator<Item = (&ObjectKey, &Namespace)> {
        self.network.pods()
    }

    /// Returns the namespace of a place. For a host-network pod this is the node's.
    #[must_use]
    pub fn namespace(&self, place: &Place) -> Option<&Namespace> {
        match place {
            Place::Pod(key) => self.network.pod(key).or_else(|| {
                let pod = self.layout.cluster.pods.get(key).filter(|p| p.host_network)?;
                self.network.node(pod.node.as_ref()?)
            }),
            Place::Node(name) => self.network.node(name),
            Place::Outside => Some(self.network.outside()),
        }
    }

    /// Runs `f` on a new thread in the namespace of `place`, and waits for it. A program that `f` starts runs there too.
    ///
    /// # Errors
    /// Fails if there is no such place, or if no thread can be started in it.
    pub fn run_in<T: Send>(&self, place: &Place, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let namespace = self.namespace(place).ok_or_else(|| LabError::NoSuchPlace(place.to_string()))?;
        namespace.run(f).map_err(|source| LabError::Namespace { place: place.to_string(), source })
    }

    fn start_nodes(&mut self, names: &[Name]) -> Result<(), LabError> {
        let cluster = Arc::new(self.layout.cluster.clone());
        for name in names {
            let Some(namespace) = self.network.node(name) else { continue };
            let failed = |source| LabError::Namespace { place: format!("node {name}"), source };
            let enforcer = Enforcer::spawn(name, namespace, &self.make).map_err(failed)?;
            enforcer.start(&cluster);
            self.enforcers.insert(name.clone(), enforcer);
        }
        for name in names {
            if let Some(enforcer) = self.enforcers.get(name) {
                enforcer.outcome().map_err(|source| LabError::Enforce { node: name.clone(), source })?;
            }
        }
        Ok(())
    }

    /// Applies the changes on all nodes at once. Returns the time that the slowest took.
    fn enforce(&self, changes: &[Change]) -> Result<Duration, LabError> {
        if changes.is_empty() {
            return Ok(Duration::ZERO);
        }
        let changes: Arc<[Change]> = changes.into();
        self.enforcers.values().for_each(|e| e.apply(&changes));
        // Every outcome is received, also after an error, so that the next call doesn't get an outcome of this one.
        let outcomes: Vec<_> = self.enforcers.iter().map(|(n, e)| (n, e.outcome())).collect();
        outcomes.into_iter().try_fold(Duration::ZERO, |slowest, (node, outcome)| match outcome {
            Ok(took) => Ok(slowest.max(took)),
            Err(source) => Err(LabError::Enforce { node: node.clone(), source }),
        })
    }

    /// Makes every enforcer read the links and routes of its node again.
    fn refresh_links(&self) -> Result<(), LabError> {
        self.enforcers.values().for_each(Enforcer::refresh_links);
        self.outcomes()
    }

    /// Waits for the outcome of every enforcer.
    fn outcomes(&self) -> Result<(), LabError> {
        let outcomes: Vec<_> = self.enforcers.iter().map(|(n, e)| (n, e.outcome())).collect();
        outcomes.into_iter().try_for_each(|(node, outcome)| {
            outcome.map(drop).map_err(|source| LabError::Enforce { node: node.clone(), source })
        })
    }

    fn translate(&mut self) -> Result<(), LabError> {
        for (name, namespace) in self.network.nodes() {
            let failed = |source| LabError::Services { node: name.clone(), source };
            let translation = match self.translations.entry(name.clone()) {
                std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
                std::collections::btree_map::Entry::Vacant(e) => {
                    e.insert(Translation::open(namespace).map_err(failed)?)
                }
            };
            translation.set(&self.layout).map_err(failed)?;
        }
        Ok(())
    }

    fn open_servers(&mut self) -> Result<(), LabError> {
        for (place, mut sockets) in Ports::of(&self.layout).sockets(&self.layout) {
            sockets.retain(|(address, (protocol, port))| {
                !(matches!(protocol, Protocol::Tcp | Protocol::Udp)
                    && self.of_dns.at.contains(&(place.clone(), SocketAddr::new(*address, *port))))
            });
            let namespace = match &place {
                Place::Pod(key) => self.network.pod(key),
                Place::Node(name) => self.network.node(name),
                Place::Outside => Some(self.network.outside()),
            };
            if let Some(namespace) = namespace {
                self.servers.set(&place, namespace, &sockets)?;
            }
        }
        Ok(())
    }
}

/// Returns the keys of `a` that `b` lacks or has with another value.
fn differing(a: &BTreeMap<Name, Vec<IpAddr>>, b: &BTreeMap<Name, Vec<IpAddr>>) -> Vec<Name> {
    let keys: BTreeSet<&Name> = a.iter().filter(|(k, v)| b.get(*k) != Some(*v)).map(|(k, _)| k).collect();
    keys.into_iter().cloned().collect()
}
