use palisade_dns::LearnLimits;
use palisade_policy::{DomainName, DomainPattern, Labels};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[derive(Debug, Default)]
struct Received(Mutex<Vec<Change>>);

impl ReceiveLearned for Received {
    fn receive_learned(&self, answer: LearnedAnswer) {
        self.0.lock().unwrap().extend(answer.changes);
    }
}

impl Received {
    fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Restores names from a file with three addresses.
fn restored(allowed: &str) -> (Names, Arc<Received>) {
    let dir = tempfile::TempDir::new().unwrap();
    let mut learned = LearnedNames::new(LearnLimits::default());
    let addresses = ["198.51.100.1", "10.1.2.3", "169.254.169.254"].map(|text| (ip(text), 600));
    let patterns: Patterns = [DomainPattern::new("a.io")].into_iter().collect();
    let everything = ["0.0.0.0/0".parse().unwrap()];
    let learnable = Learnable::new(everything.into(), BTreeSet::new(), BTreeSet::new());
    let (name, pod) = (DomainName::new("a.io").unwrap(), ObjectKey::new("shop", "web"));
    learned.learn(&name, &pod, &addresses, (&patterns, &learnable), Clock::start().now().seconds);
    NamesFile::new(dir.path()).write(&palisade_dns::encode(&learned, 0).unwrap()).unwrap();
    let receiver = Arc::new(Received::default());
    let settings = NamesSettings {
        allowed: allowed.split_terminator(',').map(|text| text.parse().unwrap()).collect(),
        state_dir: Some(dir.path().to_owned()),
        ..NamesSettings::default()
    };
    (Names::new(&settings, Arc::<Received>::clone(&receiver)), receiver)
}

#[test]
fn a_file_restores_only_addresses_that_may_be_learned_now() {
    for (allowed, expected) in [("", 1), ("10.1.0.0/16", 2), ("0.0.0.0/0", 3)] {
        let changes = restored(allowed).1.take();
        let [Change::SetLearned(learned)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(learned.addresses.iter().count(), expected, "{allowed:?}");
    }
}

#[test]
fn addresses_of_pods_nodes_and_services_are_not_learned_whatever_they_are() {
    let mut cluster = Cluster::default();
    let pod = Pod::new(
        ObjectKey::new("shop", "web"),
        Labels::default(),
        vec![ip("2001:db8:5::7"), ip("10.244.0.7")],
    );
    cluster.pods.insert(pod);
    let learnable = learnable(&cluster, Vec::new());
    assert!(learnable.check(ip("2001:db8:5::7")).is_err() && learnable.check(ip("2001:db8:5::8")).is_ok());
}

const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress: [{action: Accept, to: [{domainNames: [a.io]}]}]
";

/// `set` gives the address of a name to another, and `remove` takes it back.
fn takes_the_address_of_a_name(set: Change, remove: Change) {
    let text = palisade_manifest::Input::Text { name: "m".into(), text: MANIFESTS.into() };
    let loaded = palisade_manifest::load(&[text], &palisade_manifest::LoadOptions::default());
    let mut reconciler = Reconciler::new("n1".into());
    reconciler.handle(crate::Input::Snapshot(loaded.cluster), Duration::ZERO);
    let (mut names, receiver) = restored("");
    names.follow(None, &reconciler);
    let [Change::SetLearned(_)] = &receiver.take()[..] else { panic!("it is kept") };
    let mut change = |change: Change| {
        let changes = vec![change];
        reconciler.handle(crate::Input::Changes(changes.clone()), Duration::ZERO);
        names.follow(Some(&changes), &reconciler);
        let may_be_learned = names.link.core().may_learn(ip("198.51.100.1"));
        (receiver.take(), may_be_learned)
    };
    let name = DomainName::new("a.io").unwrap();
    assert_eq!(change(set), (vec![Change::RemoveLearned(name)], false));
    assert_eq!(change(remove), (Vec::new(), true));
}

/// The address of a name becomes that of a pod elsewhere, which no policy of this node concerns.
#[test]
fn an_address_that_a_pod_gets_is_no_longer_that_of_a_name() {
    let pod = Pod::new(ObjectKey::new("shop", "new"), Labels::default(), vec![ip("198.51.100.1")]);
    takes_the_address_of_a_name(Change::SetPod(pod.clone()), Change::RemovePod(pod.key));
}

/// The same with a cluster IP, in a cluster whose range for Services is public.
#[test]
fn an_address_that_a_service_gets_is_no_longer_that_of_a_name() {
    let mut service = palisade_policy::Service::new(ObjectKey::new("shop", "new"));
    service.addresses = vec![ip("198.51.100.1")];
    takes_the_address_of_a_name(Change::SetService(service.clone()), Change::RemoveService(service.key));
}

#[test]
fn servers_follow_services_that_come_after_the_snapshot() {
    let text = palisade_manifest::Input::Text { name: "m".into(), text: MANIFESTS.into() };
    let loaded = palisade_manifest::load(&[text], &palisade_manifest::LoadOptions::default());
    let mut reconciler = Reconciler::new("n1".into());
    let settings = NamesSettings {
        resolvers: ["203.0.113.53:53", "203.0.113.54:53"].map(|text| text.parse().unwrap()).into(),
        awaits_services: true,
        ..NamesSettings::default()
    };
    let mut names = Names::new(&settings, Arc::<Received>::default());
    reconciler.handle(crate::Input::Snapshot(loaded.cluster), Duration::ZERO);
    names.follow(None, &reconciler);
    assert!(names.servers.trusted().is_empty(), "a Service could have their addresses");
    let mut service = palisade_policy::Service::new(ObjectKey::new("tenant", "web"));
    service.access.external_ips = vec![ip("203.0.113.53")];
    let follow = |names: &mut Names, reconciler: &mut Reconciler, change: Change| {
        names.is_dirty = false;
        let changes = vec![change];
        reconciler.handle(crate::Input::Changes(changes.clone()), Duration::ZERO);
        names.follow(Some(&changes), reconciler);
        (names.servers.trusted().len(), names.is_dirty)
    };
    let first = Change::SetService(service.clone());
    assert_eq!(follow(&mut names, &mut reconciler, first), (0, false));
    names.know_services(&reconciler);
    assert_eq!(names.servers.trusted().len(), 1);
    service.key = ObjectKey::new("tenant", "other");
    service.access.external_ips = vec![ip("203.0.113.55")];
    let of_no_server = Change::SetService(service.clone());
    assert_eq!(follow(&mut names, &mut reconciler, of_no_server), (1, false));
    service.access.external_ips.push(ip("203.0.113.54"));
    let of_a_server = Change::SetService(service.clone());
    assert_eq!(follow(&mut names, &mut reconciler, of_a_server), (0, true));
    let gone = Change::RemoveService(service.key);
    assert_eq!(follow(&mut names, &mut reconciler, gone), (0, false), "not at once");
}

/// As on a node whose clock is set while the agent runs.
#[test]
fn addresses_expire_by_a_clock_that_is_not_set_and_the_file_has_the_wall_clock() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = NamesFile::new(dir.path());
    let clock = Clock::with_wall(5_000);
    assert!((5_000..5_060).contains(&clock.now().seconds), "{clock:?}");
    let (name, address) = (DomainName::new("a.io").unwrap(), ip("198.51.100.1"));
    let patterns: Patterns = [DomainPattern::new("a.io")].into_iter().collect();
    let mut learned = LearnedNames::new(LearnLimits::default());
    let rules = (&patterns, &Learnable::default());
    learned.learn(&name, &ObjectKey::new("shop", "web"), &[(address, 600)], rules, clock.now().seconds);
    file.write(&palisade_dns::encode(&learned, clock.ahead()).unwrap()).unwrap();

    let now = Clock::start().now().seconds;
    let read = file.read(LearnLimits::default(), now).unwrap();
    assert!(read.expiring(now + 600).is_empty(), "for as long as the answer said");
    assert_eq!(read.expiring(now + 700), [address].into());
}
