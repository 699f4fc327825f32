//! The rules of precedence, one by one, and laws that hold for every order of events.

use palisade_policy::Compiler;
use proptest::prelude::*;

use super::*;

const NODE: &str = "n1";

fn uid(n: u8) -> Uid {
    Uid::parse(&format!("{:032x}", u128::from(n) + 1))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn labels(app: &str) -> Labels {
    Labels::default().with("app", app)
}

fn sandbox(id: &str, name: &str, of: Uid, app: &str, addresses: &[&str]) -> RuntimePod {
    RuntimePod {
        network_namespace: None,
        id: id.to_owned(),
        key: ObjectKey::new("shop", name),
        uid: of,
        labels: Some(labels(app)),
        addresses: addresses.iter().map(|text| address(text)).collect(),
    }
}

fn api(name: &str, of: Uid, app: &str, addresses: &[&str]) -> Pod {
    Pod {
        uid: of,
        labels: labels(app),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        created: 1_700_000_000,
        node: Some(NODE.into()),
        phase: Phase::Pending,
        ..described(&sandbox("", name, of, app, &[]))
    }
}

/// The merged view as the agent has it, and what the API server says.
struct World {
    pods: RuntimePods,
    compiler: Compiler,
    api: Cluster,
}

impl World {
    fn new() -> Self {
        let pods = RuntimePods::new(NODE.into());
        Self { pods, compiler: Compiler::new(NODE.into()), api: Cluster::default() }
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.compiler.apply_all(changes);
    }

    fn set(&mut self, pod: Pod) {
        self.api.apply(Change::SetPod(pod.clone()));
        let change = self.pods.api_change(Change::SetPod(pod));
        self.apply([change]);
    }

    fn delete(&mut self, name: &str) {
        let key = ObjectKey::new("shop", name);
        self.api.apply(Change::RemovePod(key.clone()));
        let change = self.pods.api_change(Change::RemovePod(key));
        self.apply([change]);
    }

    fn start(&mut self, pod: RuntimePod) {
        let change = self.pods.start(pod, self.compiler.cluster()).unwrap();
        self.apply(change);
    }

    fn stop(&mut self, id: &str) {
        let change = self.pods.stop(id);
        self.apply(change);
    }

    fn synchronize(&mut self, list: Vec<RuntimePod>) {
        let (changes, result) = self.pods.synchronize(list, self.compiler.cluster());
        result.unwrap();
        self.apply(changes);
    }

    fn disconnect(&mut self) {
        let changes = self.pods.disconnect();
        self.apply(changes);
    }

    fn pod(&self, name: &str) -> Option<&Pod> {
        self.compiler.cluster().pods.get(&ObjectKey::new("shop", name))
    }

    /// The app label and the addresses of a pod.
    fn of(&self, name: &str) -> Option<(String, Vec<String>)> {
        let pod = self.pod(name)?;
        let app = pod.labels.get("app").unwrap_or_default().to_owned();
        Some((app, pod.addresses.iter().map(ToString::to_string).collect()))
    }

    fn owner(&self, of: &str) -> Option<&str> {
        self.compiler.pod_at(address(of)).map(|pod| &*pod.key.name)
    }
}

fn seen(app: &str, addresses: &[&str]) -> Option<(String, Vec<String>)> {
    Some((app.to_owned(), addresses.iter().map(|text| (*text).to_owned()).collect()))
}

#[test]
fn a_pod_unknown_to_the_api_server_is_as_the_runtime_says_in_both_families() {
    let mut world = World::new();
    world.start(sandbox("s", "web", uid(1), "web", &["10.0.0.1", "fd00::1"]));
    assert_eq!(world.of("web"), seen("web", &["10.0.0.1", "fd00::1"]));
    assert_eq!(world.pod("web").unwrap().node.as_deref(), Some(NODE));
    world.stop("s");
    assert_eq!(world.of("web"), None);
}

#[test]
fn labels_are_the_api_servers_once_it_knows_the_pod_and_addresses_are_the_runtimes() {
    let mut world = World::new();
    world.start(sandbox("s", "web", uid(1), "web", &["10.0.0.1", "fd00::1"]));
    world.set(api("web", uid(1), "edited", &[]));
    assert_eq!(world.of("web"), seen("edited", &["10.0.0.1", "fd00::1"]));
    world.set(api("web", uid(1), "again", &["10.0.0.1"]));
    assert_eq!(world.of("web"), seen("again", &["10.0.0.1", "fd00::1"]));
    // Known before the sandbox starts.
    world.set(api("db", uid(2), "edited", &[]));
    world.start(sandbox("d", "db", uid(2), "db", &["10.0.0.2"]));
    assert_eq!(world.of("db"), seen("edited", &["10.0.0.2"]));
}

#[test]
fn an_older_pod_of_the_same_name_lends_nothing_to_the_new_one() {
    let mut world = World::new();
    world.set(api("web-0", uid(1), "old", &["10.0.0.1"]));
    world.start(sandbox("s", "web-0", uid(2), "new", &["10.0.0.2"]));
    assert_eq!(world.of("web-0"), seen("new", &["10.0.0.2"]));
    world.delete("web-0");
    assert_eq!(world.of("web-0"), seen("new", &["10.0.0.2"]));
    world.set(api("web-0", uid(2), "newest", &[]));
    assert_eq!(world.of("web-0"), seen("newest", &["10.0.0.2"]));
}

#[test]
fn an_address_that_is_used_again_belongs_to_the_sandbox_that_started_last() {
    let mut world = World::new();
    let running =
        |name, of| Pod { phase: Phase::Running, created: 1 << 40, ..api(name, of, "x", &["10.0.0.1"]) };
    world.set(running("old", uid(1)));
    world.set(Pod { node: Some("n2".into()), ..running("far", uid(2)) });
    world.start(sandbox("s", "new", uid(3), "new", &["10.0.0.1"]));
    assert_eq!(world.owner("10.0.0.1"), Some("new"));
    world.start(sandbox("t", "a-newer", uid(4), "new", &["10.0.0.1"]));
    assert_eq!(world.owner("10.0.0.1"), Some("a-newer"));
    world.set(running("new", uid(3)));
    assert_eq!(world.owner("10.0.0.1"), Some("a-newer"), "the API server's word changes nothing");
}

#[test]
fn a_stopped_sandbox_frees_its_address_at_once_and_the_deletion_changes_nothing() {
    let mut world = World::new();
    world.set(api("web", uid(1), "web", &[]));
    world.start(sandbox("s", "web", uid(1), "web", &["10.0.0.1"]));
    world.set(api("web", uid(1), "web", &["10.0.0.1"]));
    world.stop("s");
    assert_eq!(world.of("web"), seen("web", &[]));
    world.stop("s");
    world.set(api("web", uid(1), "edited", &["10.0.0.1"]));
    assert_eq!((world.of("web"), world.owner("10.0.0.1")), (seen("edited", &[]), None));
    world.delete("web");
    assert_eq!(world.of("web"), None);
    assert!(world.pods.held.is_empty());
    assert_eq!(world.pods.stopped, 0);
}

#[test]
fn a_stopped_pod_that_the_api_server_does_not_know_yet_gets_no_address_later() {
    let mut world = World::new();
    world.start(sandbox("s", "web", uid(1), "web", &["10.0.0.1"]));
    world.stop("s");
    world.set(api("web", uid(1), "web", &["10.0.0.1"]));
    assert_eq!(world.of("web"), seen("web", &[]));
    world.set(api("web", uid(2), "web", &["10.0.0.1"]));
    assert_eq!(world.of("web"), seen("web", &["10.0.0.1"]), "another pod");
}

#[test]
fn a_pod_whose_sandbox_died_has_the_address_of_the_next_one() {
    let mut world = World::new();
    world.set(api("web", uid(1), "web", &["10.0.0.1"]));
    world.start(sandbox("s", "web", uid(1), "web", &["10.0.0.1"]));
    world.start(sandbox("t", "web", uid(1), "web", &["10.0.0.2"]));
    assert_eq!(world.of("web"), seen("web", &["10.0.0.2", "10.0.0.1"]), "until the first is stopped");
    world.stop("s");
    assert_eq!(world.of("web"), seen("web", &["10.0.0.2"]));
    // And if the first is stopped before.
    world.stop("t");
    world.start(sandbox("u", "web", uid(1), "web", &["10.0.0.1"]));
    assert_eq!(world.of("web"), seen("web", &["10.0.0.1"]));
}

#[test]
fn a_pod_deleted_by_force_keeps_its_policies_until_its_sandbox_is_stopped() {
    let mut world = World::new();
    world.start(sandbox("s", "web", uid(1), "web", &["10.0.0.1"]));
    world.set(api("web", uid(1), "quarantined", &["10.0.0.1"]));
    world.delete("web");
    assert_eq!(world.of("web"), seen("quarantined", &["10.0.0.1"]));
    world.set(api("web", uid(2), "next", &[]));
    assert_eq!(world.of("web"), seen("quarantined", &["10.0.0.1"]));
    world.stop("s");
    assert_eq!(world.of("web"), seen("next", &[]));
}

#[test]
fn a_pod_whose_uid_the_runtime_does_not_say_is_matched_by_its_name() {
    let mut world = World::new();
    world.start(sandbox("s", "by-hand", Uid::UNKNOWN, "web", &["10.0.0.1"]));
    world.set(api("by-hand", uid(9), "mirror", &[]));
    assert_eq!(world.of("by-hand"), seen("mirror", &["10.0.0.1"]));
}

#[test]
fn a_finished_or_host_network_pod_is_as_the_api_server_says() {
    let mut world = World::new();
    world.start(sandbox("s", "job", uid(1), "job", &["10.0.0.1"]));
    for phase in [Phase::Succeeded, Phase::Failed] {
        world.set(Pod { phase, ..api("job", uid(1), "job", &["10.0.0.1"]) });
        assert_eq!(world.owner("10.0.0.1"), None);
    }
    world.set(Pod { host_network: true, ..api("job", uid(1), "job", &["192.0.2.1"]) });
    assert_eq!((world.owner("10.0.0.1"), world.owner("192.0.2.1")), (None, None));
    // Another pod of that name that has finished says nothing of this one.
    world.set(Pod { phase: Phase::Failed, ..api("job", uid(2), "job", &[]) });
    assert_eq!(world.owner("10.0.0.1"), Some("job"));
}

#[test]
fn a_list_only_fills_in_what_the_api_server_does_not_say() {
    let mut world = World::new();
    world.set(Pod { phase: Phase::Running, ..api("a", uid(1), "a", &["10.0.0.1"]) });
    world.set(api("b", uid(2), "b", &[]));
    world.synchronize(vec![
        sandbox("dead", "a", uid(1), "a", &["10.0.0.9"]),
        sandbox("b", "b", uid(2), "b", &["10.0.0.2"]),
        sandbox("c", "c", uid(3), "c", &["10.0.0.3"]),
        sandbox("gone", "d", uid(4), "d", &["10.0.0.1"]),
    ]);
    assert_eq!(world.of("a"), seen("a", &["10.0.0.1"]));
    assert_eq!(world.of("b"), seen("b", &["10.0.0.2"]));
    assert_eq!(world.of("c"), seen("c", &["10.0.0.3"]));
    assert_eq!(world.owner("10.0.0.1"), Some("a"), "a listed sandbox yields");
}

#[test]
fn a_list_without_addresses_keeps_what_has_started_and_adds_nothing() {
    let mut world = World::new();
    world.start(sandbox("s", "started", uid(1), "a", &["10.0.0.1"]));
    world.start(sandbox("t", "gone", uid(2), "a", &["10.0.0.2"]));
    world.disconnect();
    world.synchronize(vec![
        sandbox("s", "started", uid(1), "a", &[]),
        sandbox("u", "unknown", uid(3), "a", &[]),
    ]);
    assert_eq!(world.of("started"), seen("a", &["10.0.0.1"]));
    assert_eq!((world.of("gone"), world.of("unknown")), (None, None));
}

#[test]
fn a_lost_connection_keeps_sandboxes_and_the_next_list_decides() {
    let mut world = World::new();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let of = format!("10.0.0.{n}");
        world.start(sandbox(name, name, uid(n as u8), "web", &[&of]));
        world.set(api(name, uid(n as u8), "web", &[&of]));
    }
    world.stop("c");
    assert_eq!(world.of("c"), seen("web", &[]));
    world.disconnect();
    assert_eq!(world.of("a"), seen("web", &["10.0.0.0"]));
    assert_eq!(world.of("c"), seen("web", &["10.0.0.2"]), "it may have been started again");
    world.delete("a");
    assert_eq!(world.of("a"), seen("web", &["10.0.0.0"]));
    world.synchronize(vec![sandbox("a", "a", uid(0), "web", &["10.0.0.0"])]);
    assert_eq!(world.of("a"), seen("web", &["10.0.0.0"]));
    assert_eq!(world.of("b"), seen("web", &[]), "stopped meanwhile");
    world.synchronize(Vec::new());
    assert_eq!(world.of("a"), None);
}

#[test]
fn the_number_of_sandboxes_and_of_stopped_ones_is_bounded() {
    let mut world = World::new();
    let start = |n: usize| sandbox(&n.to_string(), &format!("p{n}"), Uid::UNKNOWN, "x", &["10.0.0.1"]);
    for n in 0..MAX_SANDBOXES {
        world.pods.start(start(n), &world.api).unwrap();
    }
    assert_eq!(world.pods.start(start(MAX_SANDBOXES), &world.api), Err(TooManySandboxes));
    world.pods.start(start(0), &world.api).unwrap();
    for n in 0..MAX_SANDBOXES + 10 {
        world.pods.start(start(n % 7 + MAX_SANDBOXES * 10), &world.api).unwrap_err();
        world.pods.stop(&n.to_string());
        world.pods.start(start(n + MAX_SANDBOXES), &world.api).unwrap();
    }
    assert!(world.pods.stopped <= MAX_STOPPED && world.pods.held.len() <= MAX_SANDBOXES + MAX_STOPPED);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Set { name: u8, uid: u8, app: u8, address: Option<u8>, phase: u8 },
    Delete { name: u8 },
    Start { id: u8, name: u8, uid: u8, address: u8, has_uid: bool },
    Stop { id: u8 },
    List { ids: u8 },
    Disconnect,
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    let (name, id, uid, address) = (0..3_u8, 0..6_u8, 0..3_u8, 0..4_u8);
    prop_oneof![
        4 => (name.clone(), uid.clone(), 0..2_u8, proptest::option::of(address.clone()), 0..6_u8)
            .prop_map(|(name, uid, app, address, phase)| Step::Set { name, uid, app, address, phase }),
        2 => name.clone().prop_map(|name| Step::Delete { name }),
        5 => (id.clone(), name, uid, address, proptest::bool::weighted(0.9))
            .prop_map(|(id, name, uid, address, has_uid)| Step::Start { id, name, uid, address, has_uid }),
        3 => id.prop_map(|id| Step::Stop { id }),
        1 => any::<u8>().prop_map(|ids| Step::List { ids }),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Relist),
    ]
}

impl World {
    /// Performs a step. `running` are the sandboxes that have started and not stopped.
    fn perform(&mut self, step: Step, running: &mut BTreeMap<String, RuntimePod>) {
        let name = |n: u8| format!("p{n}");
        let at = |n: u8| format!("10.0.0.{n}");
        match step {
            Step::Set { name: n, uid: u, app, address, phase } => {
                let phase = match phase {
                    0 => Phase::Succeeded,
                    1 | 2 => Phase::Pending,
                    _ => Phase::Running,
                };
                let addresses: Vec<String> = address.map(at).into_iter().collect();
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                self.set(Pod { phase, ..api(&name(n), uid(u), &name(app), &addresses) });
            }
            Step::Delete { name: n } => self.delete(&name(n)),
            Step::Start { id, name: n, uid: u, address, has_uid } => {
                let of = if has_uid { uid(u) } else { Uid::UNKNOWN };
                let pod = sandbox(&id.to_string(), &name(n), of, "runtime", &[&at(address)]);
                running.insert(pod.id.clone(), pod.clone());
                self.start(pod);
            }
            Step::Stop { id } => {
                running.remove(&id.to_string());
                self.stop(&id.to_string());
            }
            Step::List { ids } => {
                running.retain(|id, _| id.parse::<u8>().unwrap() & ids == 0);
                self.synchronize(running.values().cloned().collect());
            }
            Step::Disconnect => self.disconnect(),
            Step::Relist => {
                let mut cluster = self.api.clone();
                self.pods.api_snapshot(&mut cluster);
                let changes = self.compiler.cluster().changes_to(&cluster);
                // A snapshot that says what is known changes nothing.
                assert_eq!(changes, []);
            }
        }
    }
}

proptest! {
    /// Whatever the order: a pod that has started is there with its address unless the API server says that it has finished; names that the
    /// runtime says nothing of are as the API server says; and the whole view follows from what is held, not from the way to it.
    #[test]
    fn laws(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        let mut running = BTreeMap::new();
        for step in steps {
            world.perform(step, &mut running);
            world.perform(Step::Relist, &mut running);
            for pod in running.values() {
                let merged = world.compiler.cluster().pods.get(&pod.key).expect("a pod that runs");
                let has_finished = merged.phase == Phase::Succeeded;
                let is_there = merged.addresses.contains(&pod.addresses[0]);
                prop_assert!(is_there || has_finished, "{:?} {:?}", pod, merged);
            }
            let held: BTreeSet<&ObjectKey> = world.pods.held.keys().collect();
            for (key, pod) in world.api.pods.iter().filter(|(key, _)| !held.contains(key)) {
                prop_assert_eq!(world.compiler.cluster().pods.get(key), Some(pod));
            }
            for key in world.compiler.cluster().pods.keys() {
                prop_assert!(held.contains(key) || world.api.pods.contains_key(key));
            }
            prop_assert_eq!(world.pods.keys.len(), running.len());
            let stopped = world.pods.held.values().filter(|held| held.stopped.is_some()).count();
            prop_assert_eq!(world.pods.stopped, stopped);
            prop_assert!(world.pods.held.values().all(|h| h.stopped.is_some() == h.sandboxes.is_empty()));
        }
        // Once the runtime has no sandbox and nothing is withheld, the view is the API server's.
        world.synchronize(Vec::new());
        world.disconnect();
        prop_assert_eq!(world.compiler.cluster(), &world.api);
    }
}

/// As the CNI plugin announces pods.
fn unlabelled(id: &str, name: &str, of: Uid, addresses: &[&str]) -> RuntimePod {
    RuntimePod { labels: None, ..sandbox(id, name, of, "", addresses) }
}

#[test]
fn labels_that_no_one_knows_are_taken_from_whoever_says_them_first() {
    let mut pods = RuntimePods::new(NODE.into());
    let cluster = Cluster::default();
    let app = |change: &Change| match change {
        Change::SetPod(pod) => pod.labels.get("app").map(str::to_owned),
        _ => None,
    };
    let changes = pods.start(unlabelled("a", "web", uid(1), &["10.0.0.1"]), &cluster).unwrap();
    assert!(app(&changes[0]).is_none() && pods.has("a") && !pods.has_labels("a"));
    // Another pod of that name.
    pods.api_change(Change::SetPod(api("web", uid(2), "old", &["10.0.0.9"])));
    assert!(!pods.has_labels("a"));
    let change = pods.api_change(Change::SetPod(api("web", uid(1), "web", &[])));
    assert!(pods.has_labels("a") && app(&change).as_deref() == Some("web"));

    // The container runtime announces the same sandbox, or lists it; and the plugin again.
    pods.start(unlabelled("b", "db", uid(3), &["10.0.0.2"]), &cluster).unwrap();
    let (changes, _) = pods.synchronize(vec![sandbox("b", "db", uid(3), "db", &["10.0.0.2"])], &cluster);
    assert!(pods.has_labels("b") && app(&changes[0]).as_deref() == Some("db"));
    let changes = pods.start(unlabelled("b", "db", uid(3), &["10.0.0.2"]), &cluster).unwrap();
    assert!(pods.has_labels("b") && app(&changes[0]).as_deref() == Some("db"));
    assert!(!pods.has_labels("a"), "not in the list");
}
