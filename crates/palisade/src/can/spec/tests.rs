//! Every form of an end.

use super::*;

const TCP: Option<ProtocolSpec> = Some(ProtocolSpec::WithPorts(Protocol::Tcp));
const UDP: Option<ProtocolSpec> = Some(ProtocolSpec::WithPorts(Protocol::Udp));

fn spec(text: &str) -> Spec {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn named(namespace: Option<&str>, kind: Option<EndpointKind>, name: &str) -> EndpointSpec {
    EndpointSpec::Named { namespace: namespace.map(Into::into), kind, name: name.into() }
}

fn error(text: &str) -> String {
    text.parse::<Spec>().expect_err(text).to_string()
}

#[test]
fn names_in_every_form() {
    assert_eq!(spec("web").endpoint, named(None, None, "web"));
    assert_eq!(spec("shop/web").endpoint, named(Some("shop"), None, "web"));
    assert_eq!(spec("deploy/web").endpoint, named(None, Some(EndpointKind::Workload("Deployment")), "web"));
    assert_eq!(
        spec("shop/sts/db").endpoint,
        named(Some("shop"), Some(EndpointKind::Workload("StatefulSet")), "db")
    );
    assert_eq!(spec("svc/web:80").endpoint, named(None, Some(EndpointKind::Service), "web"));
    assert_eq!(spec("node/n1").endpoint, named(None, Some(EndpointKind::Node), "n1"));
    assert_eq!(spec("internet:443").endpoint, EndpointSpec::Internet);
    assert_eq!(spec("pod/internet").endpoint, named(None, Some(EndpointKind::Pod), "internet"));
}

#[test]
fn ports_and_protocols() {
    let tail = |text: &str| (spec(text).port, spec(text).protocol);
    assert_eq!(tail("web"), (None, None));
    assert_eq!(tail("web:80"), (Some(PortSpec::Number(80)), TCP));
    assert_eq!(tail("shop/deploy/web:53/udp"), (Some(PortSpec::Number(53)), UDP));
    assert_eq!(tail("web:http"), (Some(PortSpec::Name("http".into())), None));
    assert_eq!(tail("shop/web/ICMP"), (None, Some(ProtocolSpec::Icmp)));
    assert_eq!(tail("web/UDP"), (None, UDP));
    assert_eq!(spec("shop/web/ICMP").endpoint, named(Some("shop"), None, "web"));
}

#[test]
fn addresses_with_and_without_ports() {
    let address = |a: &str| EndpointSpec::Address(a.parse().unwrap());
    assert_eq!(spec("10.0.0.7").endpoint, address("10.0.0.7"));
    assert_eq!(
        spec("10.0.0.7:80/TCP"),
        Spec { endpoint: address("10.0.0.7"), port: Some(PortSpec::Number(80)), protocol: TCP }
    );
    assert_eq!(spec("fd00::7").endpoint, address("fd00::7"));
    assert_eq!(spec("[fd00::7]").endpoint, address("fd00::7"));
    assert_eq!(
        spec("[fd00::7]:53/UDP"),
        Spec { endpoint: address("fd00::7"), port: Some(PortSpec::Number(53)), protocol: UDP }
    );
    for mapped in ["::ffff:10.0.0.7", "[::ffff:10.0.0.7]", "[::ffff:a00:7]"] {
        assert_eq!(spec(mapped).endpoint, address("10.0.0.7"), "{mapped}");
    }
    assert_eq!(spec("64:ff9b::a00:7").endpoint, address("64:ff9b::a00:7"), "translated, not mapped");
    assert_eq!(spec("fd00::7/ICMP").protocol, Some(ProtocolSpec::Icmp));
    assert_eq!(spec("10.0.0.7/ICMP").protocol, Some(ProtocolSpec::Icmp));
    assert_eq!(spec("[fd00::7]/ICMP").protocol, Some(ProtocolSpec::Icmp));
}

#[test]
fn syntax_errors_name_the_cure() {
    assert!(error("").contains("internet"));
    assert!(error("web:0").contains("1 to 65535"));
    assert!(error("web:65536").contains("1 to 65535"));
    assert!(error("web:HTTP").contains("port `HTTP` is neither"));
    assert!(error("shop/web:HTTP").contains("port `HTTP` is neither"));
    assert!(error("web:").contains("no port after the colon"));
    assert!(error("web:80-90").contains("give one port"));
    assert!(error("web:80,90").contains("give one port"));
    assert!(error("web:80/QUIC").contains("supported are TCP"));
    assert!(error("web:80/ICMP").contains("ICMP has no ports"));
    assert!(error("web/XTCP").contains("supported are TCP"));
    assert!(error("10.0.0.0/33").contains("invalid range"));
    assert!(error("10.0.0.0/8x").contains("invalid range"));
    assert!(error("gopher://web").contains("unknown scheme"));
    assert!(error("pod:app").contains("invalid label"));
    assert!(error("pod:app=a b@shop").contains("invalid label"));
    assert!(error("shop/we*").contains("no pattern"));
    assert!(error("fd00::7:80/TCP").contains("[ADDRESS]:PORT"));
    assert!(error("a:b:c").contains("[ADDRESS]:PORT"));
    assert!(error("[fd00::7").contains("closing bracket"));
    assert!(error("[web]:80").contains("not an IPv6 address"));
    assert!(error("[fd00::7]80").contains("after the bracket"));
    assert!(error("Web").contains("lower-case"));
    assert!(error("shop/gateway/web").contains("is not a kind"));
    assert!(error("a/pod/b/c").contains("slashes"));
    assert!(error("shop/node/n1").contains("node/n1"));
    assert!(error("/web").contains("names consist of"));
}

#[test]
fn ranges_and_sets_of_pods() {
    let range = |text: &str| EndpointSpec::Range(text.parse().unwrap());
    assert_eq!(spec("10.0.0.0/8").endpoint, range("10.0.0.0/8"));
    assert_eq!(spec("10.1.2.3/8").endpoint, range("10.0.0.0/8"));
    assert_eq!(
        spec("10.0.0.0/8:443/UDP"),
        Spec { endpoint: range("10.0.0.0/8"), port: Some(PortSpec::Number(443)), protocol: UDP }
    );
    assert_eq!(spec("fd00::/8").endpoint, range("fd00::/8"));
    assert_eq!(spec("::ffff:10.0.0.7/104").endpoint, range("10.0.0.0/8"));
    assert_eq!(spec("[::ffff:10.0.0.0/104]:80").endpoint, range("10.0.0.0/8"));
    assert_eq!(spec("::/0").endpoint, range("::/0"));
    assert_eq!(spec("::ffff:0:0/95").endpoint, range("::fffe:0:0/95"));
    assert_eq!(spec("[fd00::/8]:443").endpoint, range("fd00::/8"));
    assert_eq!(spec("10.0.0.0/8/ICMP").protocol, Some(ProtocolSpec::Icmp));
    let everything =
        |namespace: Option<&str>| EndpointSpec::Everything { namespace: namespace.map(Into::into) };
    assert_eq!(spec("*:80").endpoint, everything(None));
    assert_eq!(spec("shop/*").endpoint, everything(Some("shop")));
    assert_eq!(spec("ns/shop:80").endpoint, everything(Some("shop")));
    assert_eq!(spec("namespace/shop").endpoint, everything(Some("shop")));
}

#[test]
fn urls_are_hosts_and_ports() {
    let parts = |text: &str| (spec(text).endpoint, spec(text).port, spec(text).protocol);
    let web = named(None, None, "web.shop");
    assert_eq!(parts("http://web.shop:8080/x?y#z"), (web.clone(), Some(PortSpec::Number(8080)), TCP));
    assert_eq!(parts("https://web.shop/"), (web.clone(), Some(PortSpec::Number(443)), TCP));
    assert_eq!(parts("udp://web.shop:53"), (web.clone(), Some(PortSpec::Number(53)), UDP));
    assert_eq!(parts("postgres://me:secret@web.shop/db"), (web, Some(PortSpec::Number(5432)), TCP));
    assert_eq!(parts("http://[fd00::7]/").0, EndpointSpec::Address("fd00::7".parse().unwrap()));
}

#[test]
fn pods_that_do_not_exist() {
    let made_up = |text: &str| match spec(text).endpoint {
        EndpointSpec::MadeUp { labels, namespace } => {
            let labels = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
            (labels, namespace, spec(text).port)
        }
        other => panic!("{other:?}"),
    };
    let (shop, port) = (MadeUpNamespace::Named("shop".into()), Some(PortSpec::Number(80)));
    assert_eq!(
        made_up("pod:app=nginx,tier=web@shop:80"),
        ("app=nginx,tier=web".into(), shop.clone(), port.clone())
    );
    assert_eq!(made_up("pod:a.b/c=d@shop"), ("a.b/c=d".into(), shop, None));
    assert_eq!(made_up("pod:app=x:80/TCP"), ("app=x".into(), MadeUpNamespace::Default, port));
    assert_eq!(spec("pod:app=x/ICMP").protocol, Some(ProtocolSpec::Icmp));
    let labels = MadeUpNamespace::Labels(vec![("team".into(), "a".into())]);
    assert_eq!(made_up("pod:@team=a"), (String::new(), labels, None));
}
