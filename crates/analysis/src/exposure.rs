//! What policies allow with pods that may exist: the exposure of a pod to every pod of any labels, in every namespace
//! that exists or may be made.
//!
//! No pod is tried as an example. All pods are taken through the tiers at once, as sets that selectors describe, so the
//! answer doesn't depend on which namespaces exist or how objects are named:
//!
//! ```text
//! policies of the subject ──► symbolic: sets of pods through the tiers ──► cover: sets with what each pod of them gets
//!                                          │ too many sets                          │
//!                                          ▼                                        ▼
//!                                       bounds ───────────────────────────────► rows, sorted
//! ```

mod bounds;
pub(crate) mod cover;
mod coverage;
pub(crate) mod pod_set;
pub(crate) mod pod_traffic;
#[cfg(test)]
mod pointwise;
mod row;
mod rows;
mod subject;
pub(crate) mod symbolic;

use palisade_policy::{Cluster, Direction, IpRange, Policy, Rule};

pub(crate) use self::coverage::Coverage;
use self::{
    cover::Cover,
    pod_set::{Overflow, World},
    pod_traffic::Ports,
    rows::Answer,
    subject::profiles,
};
pub use self::{
    coverage::{CoveredPart, RuleAt, RulePart},
    pod_set::PodSet,
    pod_traffic::{NamedPort, PodTraffic},
    row::{ExposureRow, MoreTraffic, Reached},
    subject::Subject,
};

/// The traffic that the policies of a subject allow in one direction with pods that may exist.
///
/// A pod gets what all rows that contain it say in [`Reached::all`], and [`Exposure::any_pod`]; nothing else, unless the
/// exposure is not [exact](Self::exact).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The direction: ingress is from the pods to the subject, egress from the subject to the pods.
    pub direction: Direction,
    /// What every pod gets, whatever its labels and namespace, and what some pod gets.
    pub any_pod: Reached,
    /// The sets of pods that get more than every pod, sorted by set.
    pub rows: Vec<ExposureRow>,
    /// Whether the rows are exact. If there are too many sets to tell apart, they are bounds: pods get at least
    /// [`Reached::all`] and at most [`Reached::some`].
    pub exact: bool,
}

/// The exposure that a change of the cluster opens or closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposureChange {
    /// What is newly allowed; the rows are as those of [`Exposure`].
    pub opened: Exposure,
    /// What is no longer allowed.
    pub closed: Exposure,
}

/// What is known about pods that may exist.
#[derive(Clone, Debug, Default)]
pub struct ExposureOptions {
    /// The addresses that pods may have; `None` if they are not known. Then a rule with an `ipBlock` gives rows with
    /// [`PodSet::addresses`].
    pub pod_addresses: Option<Vec<IpRange>>,
}

/// Returns the exposure of a subject in one direction: what its policies allow, regardless of those of the other side.
///
/// For a subject of several pods, [`Reached::all`] is allowed by the policies of all of them, and [`Reached::some`] by
/// those of some. The cost is that of the rows: linear in rules that accept, and exponential in the different labels
/// of rules that deny or pass, up to a limit from which the rows are bounds.
#[must_use]
pub fn exposure(
    cluster: &Cluster,
    subject: &Subject<'_>,
    direction: Direction,
    options: &ExposureOptions,
) -> Exposure {
    let world = World::new(&[cluster], options.pod_addresses.as_deref());
    let found = profiles(&[cluster], std::slice::from_ref(subject), direction, &world);
    let (profiles, complete) = match found {
        Ok(found) => (found, true),
        Err(Overflow) => (Vec::new(), false),
    };
    let ports = ports(subject, direction, profiles.iter().flatten());
    let computed = || {
        let covers = profiles.iter().map(|p| symbolic::allowed(&p[0], direction, &ports, &world));
        answer(covers, ports.all(), &world)?.rows(&world)
    };
    let (any_pod, rows, exact) = match (complete, computed()) {
        (true, Ok((any, rows))) => (any, rows, true),
        (true, Err(Overflow)) if profiles.len() == 1 => {
            let (any, rows) = bounds::rows(&profiles[0][0], direction, &ports, &world);
            (any, rows, false)
        }
        _ => (unknown(&ports), Vec::new(), false),
    };
    let mut out = Exposure { direction, any_pod, rows, exact };
    out.mark_existing(cluster, subject);
    out
}

/// Returns what a change of the cluster opens and closes for a subject: a pod as it was and as it is, or the pods that
/// a selector selects on both sides. A namespace whose labels changed is left out, since no set of labels describes it
/// on both sides; the connections of its pods show the change.
#[must_use]
pub fn exposure_change(
    clusters: [&Cluster; 2],
    subjects: &[Subject<'_>; 2],
    direction: Direction,
    options: &ExposureOptions,
) -> ExposureChange {
    let world = World::new(&clusters, options.pod_addresses.as_deref());
    let found = profiles(&clusters, subjects, direction, &world);
    let empty = Vec::new();
    let all_profiles = found.as_ref().unwrap_or(&empty);
    let ports = [0, 1].map(|at| ports(&subjects[at], direction, all_profiles.iter().flatten()));
    let all = ports[0].all().union(&ports[1].all());
    let change = |from: usize, to: usize| {
        let computed = || {
            world.renew();
            let profiles = found.as_ref().map_err(|overflow| *overflow)?;
            let covers = profiles.iter().map(|profile| {
                let cover = |at: usize| symbolic::allowed(&profile[at], direction, &ports[at], &world);
                cover(to)?.difference(&cover(from)?, &world)
            });
            answer(covers, all.clone(), &world)?.rows(&world)
        };
        let (any_pod, rows, exact) = match computed() {
            Ok((any, rows)) => (any, rows, true),
            Err(Overflow) => (unknown(&ports[to]), Vec::new(), false),
        };
        let mut out = Exposure { direction, any_pod, rows, exact };
        out.mark_existing(clusters[to], &subjects[to]);
        out
    };
    ExposureChange { opened: change(0, 1), closed: change(1, 0) }
}

/// Joins the covers of the pods of a subject.
fn answer(
    covers: impl Iterator<Item = Result<Cover, Overflow>>,
    all: PodTraffic,
    world: &World,
) -> Result<Answer, Overflow> {
    let mut out: Option<Answer> = None;
    for cover in covers {
        let cover = cover?;
        out = Some(match out {
            None => Answer { every: cover.clone(), some: cover, all: all.clone() },
            Some(mut known) => {
                known.every = known.every.intersection(&cover, world)?;
                known.some.add_all(cover, world)?;
                known
            }
        });
    }
    // No pod can be in the subject.
    Ok(out.unwrap_or_else(|| Answer { every: Cover::default(), some: Cover::default(), all }))
}

/// Returns the ports of the destination: the subject's if it is reached, else those of pods that don't exist yet.
fn ports<'c, 'p>(
    subject: &Subject<'c>,
    direction: Direction,
    profiles: impl Iterator<Item = &'p Vec<&'c Policy>>,
) -> Ports<'c>
where
    'c: 'p,
{
    let destination = match subject {
        Subject::Pod(pod) if direction == Direction::Ingress => Some(*pod),
        Subject::Pod(_) | Subject::Pods(_) => None,
    };
    let rules = profiles.flatten().filter_map(|p| p.rules(direction)).flatten();
    let rules: Vec<&Rule> = rules.collect();
    Ports::new(destination, rules.into_iter())
}

/// Nothing is known: everything may be allowed, nothing must be.
fn unknown(ports: &Ports<'_>) -> Reached {
    Reached { all: PodTraffic::default(), some: ports.all() }
}

impl Exposure {
    /// The exposure of nothing to no pod.
    pub(crate) fn nothing(direction: Direction) -> Self {
        Self { direction, any_pod: Reached::default(), rows: Vec::new(), exact: true }
    }

    /// Returns whether no pod can get anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.any_pod.some.is_none()
    }

    /// Sets [`ExposureRow::exists`].
    fn mark_existing(&mut self, cluster: &Cluster, subject: &Subject<'_>) {
        let itself = match subject {
            Subject::Pod(pod) => Some(&pod.key),
            Subject::Pods(_) => None,
        };
        for row in &mut self.rows {
            row.exists = row.set.existing(cluster).any(|pod| Some(&pod.key) != itself);
        }
    }
}

impl ExposureChange {
    /// Returns whether nothing changes.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.opened.is_none() && self.closed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{
        Action, Name, NamespaceMatch, Peer, PeerEntry, Pod, PodMatch, PolicyKey, PortEntry, PortMatch,
        Protocol, Requirement, Selector, Test, Tier,
    };
    use palisade_testkit::{Rng, Shape, cluster, running_pod, seeds};

    use super::*;

    /// What bounds say is true of the exact answer.
    #[test]
    fn bounds_contain_the_exact_answer() {
        let mut seen = 0;
        for seed in seeds(0..150) {
            let cluster = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
            let world = World::new(&[&cluster], None);
            for pod in cluster.pods.values().filter(|p| p.is_running()).take(2) {
                for direction in Direction::BOTH {
                    let subject = Subject::Pod(pod);
                    let found = profiles(&[&cluster], std::slice::from_ref(&subject), direction, &world);
                    let [profile] = &found.expect("a pod has one profile")[..] else { panic!("one profile") };
                    let ports = ports(&subject, direction, profile.iter());
                    let cover = symbolic::allowed(&profile[0], direction, &ports, &world).expect("few sets");
                    let (any, rows) = bounds::rows(&profile[0], direction, &ports, &world);
                    let all = PodSet::default();
                    let rows = rows.into_iter().map(|row| (row.set, row.reached)).chain([(all, any)]);
                    for (set, bound) in rows {
                        let least = cover.guaranteed(&set, &ports.all(), &world).expect("few sets");
                        assert!(bound.all.is_subset(&least), "seed {seed} {set:?}: {bound:?}, {least:?}");
                        let most = cover.possible(&set, &world);
                        assert!(most.is_subset(&bound.some), "seed {seed} {set:?}: {bound:?}, {most:?}");
                        seen += usize::from(!bound.all.is_none());
                    }
                }
            }
        }
        assert!(seen > 50, "{seen}");
    }

    /// A cluster with a pod, and a cluster-wide policy of `count` rules with this action, each for other labels and
    /// another port.
    fn many_rules(count: u16, action: Action) -> Cluster {
        let label = |key: String| Requirement { key: key.into(), test: Test::In([Name::from("x")].into()) };
        let rule = |n: u16| Rule {
            name: None,
            action,
            peers: Some(vec![PeerEntry {
                peer: Peer::Pods(PodMatch {
                    namespaces: NamespaceMatch::Selected(Selector::new([label(format!("n{n}"))])),
                    pods: Selector::new([label(format!("a{n}")), label(format!("b{n}"))]),
                }),
                origin: None,
            }]),
            ports: Some(vec![PortEntry {
                port: PortMatch::Numbers { protocol: Protocol::Tcp, first: 10 * n, last: 10 * n + 5 },
                origin: None,
            }]),
            origin: None,
        };
        let everything = || NamespaceMatch::Selected(Selector::everything());
        let policy = Policy {
            key: PolicyKey { kind: "ClusterNetworkPolicy".into(), namespace: "".into(), name: "p".into() },
            tier: Tier::Admin,
            priority: 0,
            mode: None,
            subject: PodMatch { namespaces: everything(), pods: Selector::everything() },
            ingress: Some((1..=count).map(rule).collect()),
            egress: None,
            origin: None,
        };
        let mut cluster = Cluster::default();
        let home = palisade_policy::Namespace::new("shop", &palisade_policy::Labels::default());
        cluster.namespaces.insert(home.name.clone(), home);
        let addresses = vec![std::net::IpAddr::from([10, 0, 0, 1])];
        cluster.pods.insert(Pod { addresses, ..running_pod("shop", "web") });
        cluster.policies.insert(policy.key.clone(), std::sync::Arc::new(policy));
        cluster
    }

    fn exposure_of_first(cluster: &Cluster) -> Exposure {
        let pod = cluster.pods.values().next().expect("there is a pod");
        exposure(cluster, &Subject::Pod(pod), Direction::Ingress, &ExposureOptions::default())
    }

    #[test]
    fn a_set_that_only_the_pod_itself_is_in_does_not_exist() {
        let pods = PodMatch {
            namespaces: NamespaceMatch::Named("shop".into()),
            pods: Selector::of_labels([("app", "web")]),
        };
        let peers = Some(vec![PeerEntry { peer: Peer::Pods(pods.clone()), origin: None }]);
        let rule = Rule { name: None, action: Action::Accept, peers, ports: None, origin: None };
        let policy = Policy {
            key: PolicyKey::network_policy("shop", "web"),
            tier: Tier::Developer,
            priority: 0,
            mode: None,
            subject: pods,
            ingress: Some(vec![rule]),
            egress: None,
            origin: None,
        };
        let mut cluster = many_rules(0, Action::Accept);
        cluster.policies.insert(policy.key.clone(), std::sync::Arc::new(policy));
        let add = |cluster: &mut Cluster, name: &str, last: u8| {
            let labels = [("app", "web")].into_iter().collect();
            let addresses = vec![std::net::IpAddr::from([10, 0, 0, last])];
            cluster.pods.insert(Pod { labels, addresses, ..running_pod("shop", name) });
        };
        let exists = |cluster: &Cluster| {
            let rows = exposure_of_first(cluster).rows;
            rows.iter().map(|row| row.exists).collect::<Vec<_>>()
        };
        add(&mut cluster, "web", 1);
        assert_eq!(exists(&cluster), [false]);
        add(&mut cluster, "web-2", 2);
        assert_eq!(exists(&cluster), [true]);
    }

    #[test]
    fn too_many_sets_give_bounds() {
        let few = exposure_of_first(&many_rules(3, Action::Deny));
        assert!(few.exact && !few.rows.is_empty());
        let many = exposure_of_first(&many_rules(60, Action::Deny));
        assert!(!many.exact);
        let open = palisade_policy::Traffic::of(Protocol::Tcp, palisade_policy::PortSet::range(6, 9));
        assert_eq!(many.any_pod.some.numbers.intersection(&open), open);
    }

    #[test]
    fn rules_that_accept_are_exact_in_any_number() {
        let many = exposure_of_first(&many_rules(60, Action::Accept));
        // Everything is allowed to everyone, since no policy isolates.
        assert!(many.exact && many.rows.is_empty());
        let mut cluster = many_rules(60, Action::Accept);
        let isolating = Policy {
            key: PolicyKey::network_policy("shop", "deny"),
            tier: Tier::Developer,
            priority: 0,
            mode: None,
            subject: PodMatch {
                namespaces: NamespaceMatch::Named("shop".into()),
                pods: Selector::everything(),
            },
            ingress: Some(Vec::new()),
            egress: None,
            origin: None,
        };
        cluster.policies.insert(isolating.key.clone(), std::sync::Arc::new(isolating));
        let many = exposure_of_first(&cluster);
        assert!(many.exact && many.rows.len() == 60, "{} rows", many.rows.len());
    }
}
