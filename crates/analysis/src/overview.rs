//! A cluster at a glance: for each workload, whether policies isolate it, and whether it reaches DNS and the internet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use palisade_names::{DNS_PORT, DnsServer, dns_servers, usual_dns_server};
use palisade_policy::{
    Cluster, Deciding, Direction, Family, IpRange, Labels, Name, Namespace, ObjectKey, PolicyKey, PortSet,
    Protocol, Tier, Traffic,
    address::{from_number, max_number},
};

use crate::{
    connections::Connections,
    end::{ConnectionEnd, WorkloadPods},
    families::index,
    public::has_public_address,
    query::ConnectionsOptions,
    reach::Subjects,
};

/// A cluster at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The namespaces that are declared or have pods, sorted.
    pub namespaces: Vec<NamespaceOverview>,
    /// The policies that select no running pod, sorted.
    pub idle_policies: Vec<PolicyKey>,
    /// The pods that serve DNS, sorted. Empty if the cluster has none that are known: then DNS means a pod
    /// `k8s-app=kube-dns` in namespace kube-system.
    pub dns_servers: Vec<ObjectKey>,
}

/// The workloads of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceOverview {
    /// The namespace.
    pub name: Name,
    /// Its workloads, sorted. One whose pods are not equivalent has several entries.
    pub workloads: Vec<WorkloadOverview>,
}

/// A workload at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadOverview {
    /// The workload, or its pods that are equivalent.
    pub pods: WorkloadPods,
    /// Which policies apply to what it sends.
    pub egress: Protection,
    /// Which policies apply to what it receives.
    pub ingress: Protection,
    /// Whether it may ask the DNS servers, over UDP and TCP; `None` if it has no connection with them, as the only DNS
    /// server has none with itself.
    pub dns: Option<Extent>,
    /// Whether the public internet may connect to it.
    pub internet_in: Extent,
    /// Whether it may connect to the public internet.
    pub internet_out: Extent,
}

/// Which policies apply to a workload in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// No policy applies to some of its pods: everything is allowed.
    None,
    /// Rules of cluster-wide policies apply, and what they don't mention is allowed.
    Restricted,
    /// NetworkPolicies isolate it: only what they, or rules before them, allow is allowed.
    Isolated,
}

/// How much of something is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// It depends on addresses that are not known.
    Undecided,
    /// Nothing.
    Nothing,
    /// Some ports, some addresses, or one IP family only.
    Some,
    /// Everything.
    Everything,
}

impl Extent {
    /// Returns the extent of several parts, each with the requested traffic and the part of it that is allowed.
    fn of(parts: impl Iterator<Item = (Traffic, Traffic)>) -> Option<Self> {
        parts
            .map(|(requested, allowed)| match allowed {
                none if none.is_none() => Self::Nothing,
                all if all == requested => Self::Everything,
                _ => Self::Some,
            })
            .reduce(|a, b| if a == b { a } else { Self::Some })
    }
}

/// Computes the overview of a cluster. `O(connections of pods with external ranges + pods × policies of their namespaces)`.
#[must_use]
pub fn overview(cluster: &Cluster) -> Overview {
    let known: Vec<(ObjectKey, u16)> =
        dns_servers(cluster).iter().map(|DnsServer { pod, port }| (pod.key.clone(), *port)).collect();
    let with_dns;
    let (asked, servers) = if known.is_empty() {
        with_dns = with_usual_dns_server(cluster);
        (&with_dns.0, vec![(with_dns.1.clone(), DNS_PORT)])
    } else {
        (cluster, known.clone())
    };
    let connections = Connections::new(asked, &ConnectionsOptions::default());
    let overviewer = Overviewer { cluster, connections: &connections, servers: &servers };
    let (workloads, idle_policies) = overviewer.workloads();
    let mut namespaces: BTreeMap<Name, Vec<WorkloadOverview>> =
        cluster.namespaces.keys().map(|name| (name.clone(), Vec::new())).collect();
    for workload in workloads {
        namespaces.entry(workload.pods.namespace.clone()).or_default().push(workload);
    }
    Overview {
        namespaces: namespaces
            .into_iter()
            .map(|(name, workloads)| NamespaceOverview { name, workloads })
            .collect(),
        idle_policies,
        dns_servers: known.into_iter().map(|(key, _)| key).collect(),
    }
}

/// What stands for the unknown addresses of the usual DNS server, by family: the last numbers of the ranges from which
/// placeholders are taken, which no input reaches.
const DNS_PLACEHOLDERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(0, 255, 255, 254)),
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xfffe)),
];

/// Adds the DNS server that most clusters have, at addresses that are not known. Returns its name as well.
fn with_usual_dns_server(cluster: &Cluster) -> (Cluster, ObjectKey) {
    let mut with_dns = cluster.clone();
    let mut pod = usual_dns_server();
    let families: BTreeSet<Family> =
        cluster.pods.values().flat_map(|p| &p.addresses).map(|a| Family::of(*a)).collect();
    for family in families {
        let address = DNS_PLACEHOLDERS[index(family)];
        let of_family = |range: &&IpRange| Family::of(range.first) == family;
        let mut possible: Vec<IpRange> =
            cluster.addressing.pod_ranges.iter().filter(of_family).copied().collect();
        if possible.is_empty() {
            let (first, last) = (from_number(family, 0), from_number(family, max_number(family)));
            possible.push(IpRange { first, last });
        }
        with_dns.addressing.add_placeholder(address, possible.into());
        pod.addresses.push(address);
    }
    let key = pod.key.clone();
    // Without its namespace, no selector of namespaces would match it.
    let namespace = key.namespace.clone();
    with_dns
        .namespaces
        .entry(namespace.clone())
        .or_insert_with(|| Namespace::new(namespace, &Labels::default()));
    with_dns.pods.insert(pod);
    (with_dns, key)
}

struct Overviewer<'c> {
    cluster: &'c Cluster,
    connections: &'c Connections,
    /// The DNS servers and their ports.
    servers: &'c [(ObjectKey, u16)],
}

impl Overviewer<'_> {
    fn workloads(&self) -> (Vec<WorkloadOverview>, Vec<PolicyKey>) {
        let subjects = Subjects::new(self.cluster);
        let enforced = self.cluster.deciding(Deciding::Enforced);
        let mut idle: BTreeSet<&PolicyKey> = enforced.map(|policy| &policy.key).collect();
        let externals: Vec<usize> = self.ends(|end| match end {
            ConnectionEnd::External(external) => external.ranges.iter().any(has_public_address),
            _ => false,
        });
        let servers: Vec<(usize, u16)> = self
            .servers
            .iter()
            .flat_map(|(key, port)| {
                self.ends(|end| end.holds_pod(key)).into_iter().map(move |end| (end, *port))
            })
            .collect();
        let mut out = Vec::new();
        for (at, end) in self.connections.ends().enumerate() {
            let ConnectionEnd::Workload(pods) = end else { continue };
            let Some([egress, ingress]) = self.protection(pods, &subjects, &mut idle) else { continue };
            out.push(WorkloadOverview {
                pods: pods.clone(),
                egress,
                ingress,
                dns: self.dns(at, &servers),
                internet_in: self.internet(externals.iter().map(|external| (*external, at))),
                internet_out: self.internet(externals.iter().map(|external| (at, *external))),
            });
        }
        (out, idle.into_iter().cloned().collect())
    }

    /// Returns the weakest protection of some pods for egress and ingress, and removes the policies that select any of
    /// them from `idle`. `None` if no pod is in the cluster: it is the assumed DNS server.
    fn protection<'c>(
        &self,
        pods: &WorkloadPods,
        subjects: &Subjects<'c>,
        idle: &mut BTreeSet<&'c PolicyKey>,
    ) -> Option<[Protection; 2]> {
        let labels = self.cluster.namespaces.get(&pods.namespace).map(|n| &n.labels);
        let mut weakest: Option<[Protection; 2]> = None;
        for name in &pods.pods {
            let key = ObjectKey { namespace: pods.namespace.clone(), name: name.clone() };
            let Some(pod) = self.cluster.pods.get(&key) else { continue };
            let policies = subjects.selecting(pod, labels);
            let own = Direction::BOTH.map(|direction| {
                let applying = policies.iter().filter(|p| p.rules(direction).is_some());
                let strength = |tier| match tier {
                    Tier::Developer => Protection::Isolated,
                    Tier::Admin | Tier::Baseline => Protection::Restricted,
                };
                applying.map(|p| strength(p.tier)).max().unwrap_or(Protection::None)
            });
            for policy in &policies {
                idle.remove(&policy.key);
            }
            weakest = Some(match weakest {
                None => own,
                Some([egress, ingress]) => [egress.min(own[0]), ingress.min(own[1])],
            });
        }
        weakest
    }

    fn ends(&self, test: impl Fn(&ConnectionEnd) -> bool) -> Vec<usize> {
        self.connections.ends().enumerate().filter(|(_, end)| test(end)).map(|(at, _)| at).collect()
    }

    fn dns(&self, from: usize, servers: &[(usize, u16)]) -> Option<Extent> {
        let is_undecided = servers.iter().any(|(server, port)| {
            let undecided = self.connections.undecided_between(from, *server);
            undecided.iter().any(|edge| !edge.traffic.intersection(&dns_traffic(*port)).is_none())
        });
        if is_undecided {
            return Some(Extent::Undecided);
        }
        let parts = servers.iter().flat_map(|(server, port)| {
            let requested = dns_traffic(*port);
            self.connections
                .between(from, *server)
                .map(move |edge| (requested.clone(), edge.traffic.intersection(&requested)))
        });
        Extent::of(parts)
    }

    fn internet(&self, pairs: impl Iterator<Item = (usize, usize)>) -> Extent {
        let parts = pairs.flat_map(|(from, to)| {
            self.connections.between(from, to).map(|edge| (Traffic::all(), edge.traffic.clone()))
        });
        Extent::of(parts).unwrap_or(Extent::Nothing)
    }
}

/// Returns the traffic of DNS to a port.
fn dns_traffic(port: u16) -> Traffic {
    let port = PortSet::range(port, port);
    Traffic::of(Protocol::Udp, port.clone()).union(&Traffic::of(Protocol::Tcp, port))
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Endpoint, Flow, Pod, reference};
    use palisade_testkit::{Rng, Shape, cluster, seeds};

    use super::*;

    fn allowed(
        cluster: &Cluster,
        source: Endpoint,
        destination: Endpoint,
        protocol: Protocol,
        port: u16,
    ) -> bool {
        let flow = Flow { source, destination, protocol, port, through_service: false };
        reference::decide(cluster, &flow).verdict().is_allow()
    }

    fn endpoints(pod: &Pod) -> impl Iterator<Item = Endpoint> {
        pod.addresses.iter().map(|address| Endpoint::Pod { key: pod.key.clone(), address: *address })
    }

    /// What the reference allows to a workload.
    #[derive(Debug, Default)]
    struct Verdicts {
        dns: Vec<bool>,
        sent: Vec<bool>,
        received: Vec<bool>,
    }

    fn verdicts(
        cluster: &Cluster,
        with_dns: &Cluster,
        servers: &[ObjectKey],
        workload: &WorkloadPods,
    ) -> Verdicts {
        let key = |name: &Name| ObjectKey { namespace: workload.namespace.clone(), name: name.clone() };
        // An address belongs to one pod, even if several declare it.
        let of = |key: &ObjectKey| -> Vec<Endpoint> {
            let all = with_dns.pods.get(key).into_iter().flat_map(endpoints);
            all.filter(|e| {
                with_dns.addressing.is_placeholder(e.address()) || with_dns.endpoint(e.address()) == *e
            })
            .collect()
        };
        let same_family = |a: &Endpoint, b: &Endpoint| Family::of(a.address()) == Family::of(b.address());
        let mut out = Verdicts::default();
        for own in workload.pods.iter().map(key).flat_map(|key| of(&key)) {
            let others =
                servers.iter().filter(|key| !matches!(&own, Endpoint::Pod { key: own, .. } if own == *key));
            for server in others.flat_map(of).filter(|server| same_family(&own, server)) {
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    out.dns.push(allowed(with_dns, own.clone(), server.clone(), protocol, 53));
                }
            }
            let outside = ["8.8.8.8", "93.184.216.34", "2a00::1", "2600:1::7"].map(|a| a.parse().unwrap());
            let outside = outside.into_iter().map(|address| cluster.endpoint(address));
            let outside = outside.filter(|e| matches!(e, Endpoint::External(_)) && same_family(&own, e));
            for outside in outside {
                for (protocol, port) in [(Protocol::Tcp, 443), (Protocol::Udp, 5000)] {
                    out.sent.push(allowed(cluster, own.clone(), outside.clone(), protocol, port));
                    out.received.push(allowed(cluster, outside.clone(), own.clone(), protocol, port));
                }
            }
        }
        out
    }

    /// Returns whether verdicts are all alike with an extent, which may be of more than what was sampled.
    fn fits(extent: Extent, verdicts: &[bool]) -> bool {
        match extent {
            Extent::Nothing => verdicts.iter().all(|allowed| !allowed),
            Extent::Everything => verdicts.iter().all(|allowed| *allowed),
            Extent::Some | Extent::Undecided => true,
        }
    }

    #[test]
    fn extents_agree_with_the_reference() {
        let mut seen: BTreeSet<(&str, Extent)> = BTreeSet::new();
        for seed in seeds(0..150) {
            let mut rng = Rng::with_seed(seed);
            let mut cluster = cluster(&mut rng, &Shape::tiered());
            let running = |p: &&Pod| p.is_running() && !p.host_network && !p.addresses.is_empty();
            let Some(server) = cluster.pods.values().find(running).cloned() else { continue };
            // Half of the clusters have a DNS server that is known.
            if rng.bool() {
                let mut server = server.clone();
                server.key.namespace = "kube-system".into();
                server.labels = server.labels.with("k8s-app", "kube-dns");
                cluster
                    .pods
                    .remove(&ObjectKey { namespace: server.key.namespace.clone(), ..server.key.clone() });
                server.addresses = vec!["172.20.0.53".parse().unwrap(), "fd53::53".parse().unwrap()];
                server.workload = None;
                cluster.pods.insert(server);
            }
            let found = overview(&cluster);
            let (with_dns, assumed) = with_usual_dns_server(&cluster);
            let (asked, servers) = match &found.dns_servers[..] {
                [] => (&with_dns, vec![assumed]),
                known => (&cluster, known.to_vec()),
            };
            for workload in found.namespaces.iter().flat_map(|n| &n.workloads) {
                let verdicts = verdicts(&cluster, asked, &servers, &workload.pods);
                let context = || format!("seed {seed}: {workload:?} {verdicts:?}");
                assert!(fits(workload.internet_out, &verdicts.sent), "{}", context());
                assert!(fits(workload.internet_in, &verdicts.received), "{}", context());
                seen.extend([("out", workload.internet_out), ("in", workload.internet_in)]);
                let dns = &verdicts.dns;
                match workload.dns {
                    None => assert!(dns.is_empty(), "{}", context()),
                    Some(Extent::Some) => {
                        assert!(dns.contains(&true) && dns.contains(&false), "{}", context());
                    }
                    Some(Extent::Undecided) => assert!(found.dns_servers.is_empty(), "{}", context()),
                    Some(extent) => assert!(!dns.is_empty() && fits(extent, dns), "{}", context()),
                }
                seen.extend(workload.dns.map(|extent| ("dns", extent)));
            }
            let selects = |policy: &palisade_policy::Policy| {
                cluster.pods.values().filter(|p| p.is_running() && !p.host_network).any(|pod| {
                    let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
                    policy.subject.matches(&pod.key.namespace, labels, &pod.labels)
                })
            };
            let idle: Vec<&PolicyKey> =
                cluster.policies.values().filter(|p| !selects(p)).map(|p| &p.key).collect();
            assert!(idle.iter().all(|key| found.idle_policies.contains(key)), "seed {seed}");
        }
        assert!(seen.len() >= 9, "{seen:?}");
    }
}
