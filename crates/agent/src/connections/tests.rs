//! Records of connections, with virtual time.

use std::collections::BTreeSet;

use palisade_policy::{Change, ObjectKey, Service, ServicePort, TargetPort};

use super::{seen::tests::connection, *};
use crate::{
    Input,
    drops::tests::reconciler,
    flows::{FlowPage, FlowRequest},
    metrics::Metrics,
};

const DB: [u8; 4] = [10, 0, 0, 1];
const WEB: [u8; 4] = [10, 0, 0, 2];
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const SERVICE: [u8; 4] = [10, 96, 0, 9];

struct Trial {
    reconciler: Reconciler,
    log: ConnectionLog,
    store: Arc<FlowStore>,
    now: Instant,
}

impl Trial {
    /// Two pods, which policies isolate for ingress.
    fn new() -> Self {
        let store = Arc::new(FlowStore::new(4 << 20, None, Arc::new(Metrics::new("1", "n1"))));
        let words = Arc::new(|side: &palisade_policy::Side, at: palisade_policy::Direction| {
            vec![format!("{at} {:?}", mem::discriminant(&side.reason))]
        });
        let log = ConnectionLog::new("n1".into(), Arc::default(), Arc::clone(&store), words, true);
        let reconciler = reconciler();
        log.seen().set_local(&BTreeSet::from([DB.into(), WEB.into()]));
        Self { reconciler, log, store, now: Instant::now() }
    }

    fn see(&mut self, connection: &Connection, times: u64) {
        for _ in 0..times {
            self.log.seen().add(connection.clone(), Sum::of_new());
        }
        self.log.note();
    }

    /// Lets time pass, as the worker does.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + TICK_INTERVAL).min(end);
            self.log.tick((&self.reconciler, 7), self.now);
        }
    }

    async fn page(&self) -> FlowPage {
        let mut request = FlowRequest::default();
        let mut page = self.store.page(&request).await.unwrap();
        while page.more {
            request.after = page.next;
            let next = self.store.page(&request).await.unwrap();
            page = FlowPage { records: [page.records, next.records].concat(), ..next };
        }
        page
    }

    async fn records(&self) -> Vec<(String, String, u64)> {
        let records = self.page().await.records;
        records.iter().map(|r| (r.source.to_string(), r.destination.to_string(), r.count)).collect()
    }
}

fn row(source: &str, destination: &str, count: u64) -> (String, String, u64) {
    (source.to_owned(), destination.to_owned(), count)
}

#[tokio::test]
async fn equal_connections_are_a_record_at_once_and_one_each_second() {
    let mut trial = Trial::new();
    assert_eq!(trial.log.due(), None);
    trial.see(&connection(DB, OUTSIDE, 443), 3);
    assert!(trial.log.due().is_some());
    trial.pass(Duration::from_millis(200));
    let of = |count| row("shop/db", "192.0.2.1", count);
    assert_eq!(trial.records().await, [of(3)]);
    assert_eq!(trial.log.due(), None);
    trial.see(&connection(DB, OUTSIDE, 443), 2);
    trial.pass(Duration::from_millis(500));
    trial.see(&connection(DB, OUTSIDE, 443), 2);
    assert_eq!(trial.records().await, [of(3)], "not so soon");
    trial.pass(Duration::from_millis(1000));
    assert_eq!(trial.records().await, [of(3), of(4)]);
    let record = trial.page().await.records.remove(0);
    assert_eq!(
        (record.verdict, record.direction),
        (palisade_flow::Verdict::Forwarded, palisade_flow::Direction::Egress)
    );
    assert_eq!((record.generation, &*record.node, record.policies.len()), (7, "n1", 0));
    assert!(record.reason[0].starts_with("egress "), "{record:?}");
}

#[tokio::test]
async fn a_connection_to_a_service_has_both() {
    let mut trial = Trial::new();
    let service = Service {
        addresses: vec![SERVICE.into()],
        ports: vec![ServicePort {
            name: None,
            protocol: palisade_policy::Protocol::Tcp,
            port: 80,
            target: TargetPort::Number(8080),
            node_port: None,
        }],
        ..Service::new(ObjectKey::new("shop", "front"))
    };
    trial.reconciler.handle(Input::Changes(vec![Change::SetService(service)]), Duration::ZERO);
    let to_service = Connection { opened_to: Some((SERVICE.into(), 80)), ..connection(WEB, OUTSIDE, 8080) };
    trial.see(&to_service, 1);
    let elsewhere = Connection { opened_to: Some(([203, 0, 113, 1].into(), 81)), ..to_service };
    trial.see(&elsewhere, 1);
    trial.pass(Duration::from_millis(200));
    let mut to: Vec<String> =
        trial.page().await.records.iter().map(|r| r.opened_to.as_ref().unwrap().to_string()).collect();
    to.sort();
    assert_eq!(to, ["203.0.113.1:81", "service shop/front:80"]);
}

/// A change of Services costs a new index at most once each second. Why connections passed stays known.
#[tokio::test]
async fn records_name_the_service_of_now() {
    let mut trial = Trial::new();
    let named = |name: &str| Service {
        addresses: vec![SERVICE.into()],
        ..Service::new(ObjectKey::new("shop", name))
    };
    let change = |trial: &mut Trial, changes: Vec<Change>| {
        trial.log.forget_services();
        trial.reconciler.handle(Input::Changes(changes), Duration::ZERO);
    };
    let to_service = Connection { opened_to: Some((SERVICE.into(), 80)), ..connection(WEB, OUTSIDE, 8080) };
    change(&mut trial, vec![Change::SetService(named("old"))]);
    trial.see(&to_service, 1);
    trial.pass(Duration::from_millis(1500));
    let epoch = trial.log.services_epoch;
    let old = ObjectKey::new("shop", "old");
    change(&mut trial, vec![Change::SetService(Service { selector: None, ..named("old") })]);
    trial.see(&to_service, 1);
    trial.pass(Duration::from_millis(1500));
    assert_eq!(trial.log.services_epoch, epoch, "nothing that records name has changed");
    change(&mut trial, vec![Change::RemoveService(old), Change::SetService(named("new"))]);
    trial.see(&to_service, 1);
    trial.pass(Duration::from_millis(1500));
    let to: Vec<String> =
        trial.page().await.records.iter().map(|r| r.opened_to.as_ref().unwrap().to_string()).collect();
    assert_eq!(to, ["service shop/old:80", "service shop/old:80", "service shop/new:80"]);
    assert_eq!(trial.log.epoch, 0, "policies have not changed");
    // A user can choose any external IP, and wish for any address of a load balancer.
    let mut mine = Service::new(ObjectKey::new("aaa", "mine"));
    mine.access.external_ips = vec![SERVICE.into()];
    mine.access.load_balancer = vec![SERVICE.into()];
    mine.access.load_balancer_wish = Some(SERVICE.into());
    change(&mut trial, vec![Change::SetService(mine.clone())]);
    trial.see(&to_service, 1);
    trial.pass(Duration::from_millis(1500));
    let last = trial.page().await.records.pop().unwrap().opened_to.unwrap().to_string();
    assert_eq!(last, "service shop/new:80", "the cluster IP decides");
    mine.access.external_ips.clear();
    change(&mut trial, vec![Change::SetService(mine), Change::RemoveService(ObjectKey::new("shop", "new"))]);
    trial.see(&to_service, 1);
    trial.pass(Duration::from_millis(1500));
    let last = trial.page().await.records.pop().unwrap().opened_to.unwrap().to_string();
    assert_eq!(last, "10.96.0.9:80", "nothing has the address");
}

#[tokio::test]
async fn what_no_policy_allows_now_says_so() {
    let mut trial = Trial::new();
    trial.see(&connection(WEB, DB, 5432), 1);
    trial.pass(Duration::from_millis(200));
    let record = trial.page().await.records.remove(0);
    assert!(record.reason[0].contains("no policy allows it now"), "{record:?}");
    assert_eq!((record.rule, record.policies[0].name.as_str()), (None, "closed"));
}

/// Otherwise `suggest` would allow what was dropped.
#[tokio::test]
async fn what_the_policies_of_a_receiver_on_another_node_deny_is_not_forwarded() {
    let mut trial = Trial::new();
    let far = [10, 0, 1, 1];
    let pod = palisade_policy::Pod {
        node: Some("n2".into()),
        ..palisade_policy::Pod::new(
            ObjectKey::new("shop", "far"),
            palisade_policy::Labels::default(),
            vec![far.into()],
        )
    };
    let closed = palisade_policy::PolicyKey::network_policy("shop", "closed");
    trial.reconciler.handle(Input::Changes(vec![Change::SetPod(pod)]), Duration::ZERO);
    trial.see(&connection(WEB, far, 5432), 1);
    trial.see(&connection(WEB, OUTSIDE, 443), 1);
    trial.pass(Duration::from_millis(200));
    assert_eq!(trial.records().await, [row("shop/web", "192.0.2.1", 1)]);
    assert_eq!(trial.page().await.connections_unrecorded, 0, "the other node has the record");

    trial.log.forget_policies();
    trial.reconciler.handle(Input::Changes(vec![Change::RemovePolicy(closed)]), Duration::ZERO);
    trial.see(&connection(WEB, far, 5432), 1);
    trial.pass(Duration::from_millis(1500));
    let expected = [row("shop/web", "192.0.2.1", 1), row("shop/web", "shop/far", 1)];
    assert_eq!(trial.records().await, expected);
}

#[tokio::test]
async fn a_flood_is_bounded_and_counted_and_does_not_hide_a_neighbor() {
    let mut trial = Trial::new();
    let mut sent = 0;
    for round in 0..20 {
        for port in 1..=2_000 {
            trial.see(&connection(DB, OUTSIDE, round * 2_000 + port), 1);
            sent += 1;
        }
        trial.pass(TICK_INTERVAL);
        assert!(trial.log.waiting.len() <= MAX_WAITING && trial.log.queue.len() <= MAX_WAITING);
    }
    trial.see(&connection(WEB, OUTSIDE, 443), 1);
    trial.pass(Duration::from_secs(60));
    let page = trial.page().await;
    let of_db: u64 = page.records.iter().filter(|r| r.source.to_string() == "shop/db").map(|r| r.count).sum();
    assert_eq!(of_db + page.connections_unrecorded, sent, "each is recorded or counted");
    assert!(page.records.iter().any(|r| r.source.to_string() == "shop/web"), "the neighbor");
    assert!(trial.log.explained.len() <= MAX_EXPLAINED && trial.log.waiting.is_empty());
    assert!(trial.log.waiting_of.is_empty() && trial.log.queue.is_empty());
}

#[tokio::test]
async fn reasons_are_looked_up_again_after_a_change_and_ends_that_change_keep_their_pods() {
    let mut trial = Trial::new();
    trial.see(&connection(DB, OUTSIDE, 443), 1);
    trial.pass(Duration::from_millis(200));
    trial.log.forget_policies();
    trial.see(&connection(DB, OUTSIDE, 443), 1);
    trial.pass(Duration::from_secs(2));
    assert_eq!(trial.records().await.len(), 2);
    // The second record waits when the pod goes.
    trial.see(&connection(DB, OUTSIDE, 443), 5);
    trial.pass(TICK_INTERVAL);
    trial.log.forget_ends(&HashSet::from([DB.into()]));
    let gone = Change::RemovePod(ObjectKey::new("shop", "db"));
    trial.reconciler.handle(Input::Changes(vec![gone]), Duration::ZERO);
    trial.pass(Duration::from_secs(2));
    let records = trial.records().await;
    assert_eq!(records.last(), Some(&row("shop/db", "192.0.2.1", 5)), "{records:?}");
    assert_eq!(trial.log.explained_bytes, 0);
}
