//! Every way to a Service, in both modes of kube-proxy: cluster IP, headless, node port with either traffic policy, host port. Who
//! answers is compared with what the engine decides, first without policies and then with them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use palisade_netns::namespace::Namespace;
use palisade_policy::Protocol;
use serde_json::{Value, json};

use crate::{
    Cluster, network,
    node::ProxyMode,
    palisade,
    pods::{self, PORT},
    probe::{self, Backend, Probe},
    progress::say,
};

const SHOP: &str = "shop";
const SERVERS: [(&str, &str, &str); 2] = [("web-1", "n1", "one"), ("web-2", "n2", "two")];
const CLIENTS: [(&str, &str, &str); 4] = [
    ("friend-1", "n1", "friend"),
    ("friend-2", "n2", "friend"),
    ("stranger-1", "n1", "none"),
    ("stranger-2", "n2", "none"),
];
const NODE_PORT: u16 = 30080;
const NODE_PORT_LOCAL: u16 = 30081;
const HOST_PORT: u16 = 8081;

/// Runs the suite.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    super::install_palisade(cluster)?;
    create(cluster)?;
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        cluster.set_proxy_mode(mode)?;
        let ways = ways(cluster)?;
        cluster.kubectl(&["-n", SHOP, "delete", "networkpolicy", "--all"])?;
        let open = probe::agree(cluster, &format!("kube-proxy in mode {mode}, no policy"), &ways)?;
        ensure!(
            open.open == open.probes,
            "without policies {} of {} ways are closed",
            open.probes - open.open,
            open.probes
        );
        pods::apply(cluster, &policies())?;
        let closed = probe::agree(cluster, &format!("kube-proxy in mode {mode}, policies"), &ways)?;
        ensure!(
            closed.open < closed.probes && closed.open > 0,
            "the policies of this suite open {} of {} ways",
            closed.open,
            closed.probes
        );
        by_name(cluster)?;
        explained(cluster)?;
        palisade::verify(cluster)?;
    }
    cluster.set_proxy_mode(ProxyMode::Iptables)?;
    cluster.delete_namespaces(&[SHOP])
}

fn create(cluster: &Cluster) -> Result<()> {
    pods::apply(cluster, &[pods::namespace(SHOP)])?;
    let mut objects = vec![
        service(
            "web",
            json!({"ports": [
                {"name": "http", "port": 80, "targetPort": "http"},
                {"name": "udp", "port": 80, "targetPort": PORT, "protocol": "UDP"},
            ]}),
        ),
        service("headless", json!({"clusterIP": "None", "ports": [{"port": PORT}]})),
        service(
            "cluster",
            json!({
                "type": "NodePort",
                "externalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "targetPort": "http", "nodePort": NODE_PORT}],
            }),
        ),
        service(
            "local",
            json!({
                "type": "NodePort",
                "externalTrafficPolicy": "Local",
                "ports": [{"port": 80, "targetPort": "http", "nodePort": NODE_PORT_LOCAL}],
            }),
        ),
    ];
    for (name, node, shard) in SERVERS {
        let mut pod = pods::server(SHOP, name, node, &[("app", "web"), ("shard", shard)]);
        pod["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(HOST_PORT);
        objects.push(pod);
    }
    objects.extend(
        CLIENTS.map(|(name, node, role)| pods::server(SHOP, name, node, &[("role", role), ("name", name)])),
    );
    pods::apply(cluster, &objects)?;
    pods::wait_ready(cluster, SHOP)
}

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": {"selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]},
    });
    if let (Some(into), Value::Object(spec)) = (service["spec"].as_object_mut(), spec) {
        into.extend(spec);
    }
    service
}

/// Friends may reach the web servers, and so may one client outside. The second friend may reach only the first shard.
fn policies() -> [Value; 2] {
    let [v4, v6] = network::outside(1);
    [
        policy(
            "web",
            &json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        "from": [{"podSelector": {"matchLabels": {"role": "friend"}}}],
                        "ports": [{"port": "http"}, {"port": PORT, "protocol": "UDP"}],
                    },
                    {
                        "from": [{"ipBlock": {"cidr": format!("{v4}/32")}}, {"ipBlock": {"cidr": format!("{v6}/128")}}],
                        "ports": [{"port": PORT}],
                    },
                ],
            }),
        ),
        policy(
            "friend-2",
            &json!({
                "podSelector": {"matchLabels": {"name": "friend-2"}},
                "policyTypes": ["Egress"],
                "egress": [
                    {"to": [{"podSelector": {"matchLabels": {"shard": "one"}}}]},
                    {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]},
                ],
            }),
        ),
    ]
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": spec,
    })
}

/// A client, with its addresses as policies see them.
struct Client {
    name: String,
    network: Namespace,
    addresses: [IpAddr; 2],
    /// Whether packets must be given the address to leave from.
    bind: bool,
}

impl Client {
    fn probe(
        &self,
        what: &str,
        family: usize,
        to: SocketAddr,
        protocol: Protocol,
        backends: Vec<Backend>,
    ) -> Result<Probe> {
        let source = self.bind.then(|| self.addresses[family]);
        let what = format!("{} → {what} ({to}/{protocol})", self.name);
        Ok(Probe { what, from: self.network.try_clone()?, source, to, protocol, backends })
    }
}

fn inside(cluster: &Cluster) -> Result<Vec<Client>> {
    let names = SERVERS.map(|s| s.0).into_iter().chain(CLIENTS.map(|c| c.0));
    let pods = names.map(|name| {
        let (network, addresses) = (cluster.pod_network(SHOP, name)?, pods::addresses(cluster, SHOP, name)?);
        Ok(Client { name: name.to_owned(), network, addresses, bind: false })
    });
    let nodes = cluster.nodes().iter().map(|node| {
        let network = node.network().try_clone()?;
        Ok(Client { name: node.name().to_owned(), network, addresses: node.addresses(), bind: false })
    });
    pods.chain(nodes).collect()
}

fn outside(cluster: &Cluster) -> Result<Vec<Client>> {
    [1, 2]
        .into_iter()
        .map(|number| {
            let network = cluster.control().namespace().try_clone()?;
            Ok(Client {
                name: format!("outside-{number}"),
                network,
                addresses: network::outside(number),
                bind: true,
            })
        })
        .collect()
}

fn ways(cluster: &Cluster) -> Result<Vec<Probe>> {
    let servers = SERVERS
        .into_iter()
        .map(|(name, node, _)| Ok((name, node, pods::addresses(cluster, SHOP, name)?)))
        .collect::<Result<Vec<_>>>()?;
    let web = cluster.get(&["service", "-n", SHOP, "web"])?;
    let mut ways = Vec::new();
    for family in [0, 1] {
        let cluster_ip: IpAddr =
            web["spec"]["clusterIPs"][family].as_str().context("no cluster IP of this family")?.parse()?;
        let backend = |(name, _, addresses): &(&str, &str, [IpAddr; 2]), client: IpAddr| Backend {
            name: (*name).to_owned(),
            address: addresses[family],
            port: PORT,
            client,
        };
        for client in inside(cluster)? {
            let seen = client.addresses[family];
            let all: Vec<Backend> = servers.iter().map(|s| backend(s, seen)).collect();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let to = SocketAddr::new(cluster_ip, 80);
                ways.push(client.probe("cluster IP", family, to, protocol, all.clone())?);
            }
            // What a headless Service stands for.
            for one in all {
                let to = SocketAddr::new(one.address, PORT);
                ways.push(client.probe(&one.name.clone(), family, to, Protocol::Tcp, vec![one])?);
            }
        }
        for client in outside(cluster)? {
            let client_address = client.addresses[family];
            for node in cluster.nodes() {
                let own = node.addresses()[family];
                // The node that is asked masquerades what it forwards to another one, after its own rules.
                let seen = |at: &str| if at == node.name() { client_address } else { own };
                let every = servers.iter().map(|s| backend(s, seen(s.1))).collect();
                let here: Vec<Backend> = servers
                    .iter()
                    .filter(|s| s.1 == node.name())
                    .map(|s| backend(s, client_address))
                    .collect();
                for (what, port, backends) in [
                    ("node port, Cluster", NODE_PORT, every),
                    ("node port, Local", NODE_PORT_LOCAL, here.clone()),
                    ("host port", HOST_PORT, here),
                ] {
                    let to = SocketAddr::new(own, port);
                    ways.push(client.probe(
                        &format!("{what} of {}", node.name()),
                        family,
                        to,
                        Protocol::Tcp,
                        backends,
                    )?);
                }
            }
        }
    }
    Ok(ways)
}

/// The same through the name server, by a program in a container: a headless Service resolves to its pods.
fn by_name(cluster: &mut Cluster) -> Result<()> {
    for (client, service, family, expected) in [
        ("friend-1", "headless", "-4", true),
        ("friend-1", "headless", "-6", true),
        ("friend-1", "web", "-4", true),
        ("stranger-2", "headless", "-4", false),
        ("stranger-1", "web", "-6", false),
    ] {
        let port = if service == "web" { 80 } else { PORT };
        let url = format!("http://{service}.{SHOP}.svc.cluster.local:{port}/hostname");
        let arguments = [
            "-n",
            SHOP,
            "exec",
            client,
            "--",
            "curl",
            "-sS",
            family,
            "--connect-timeout",
            "3",
            "--retry",
            "0",
            url.as_str(),
        ];
        let what = format!("{client} asks {url} ({family})");
        let once = |c: &Cluster| match (c.kubectl(&arguments), expected) {
            (Ok(_), true) => Ok(Ok(())),
            // curl: 28 is a timeout, and 6 a name that is not resolved.
            (Err(e), false) if format!("{e:#}").contains("exit code 28") => Ok(Ok(())),
            (Ok(name), false) => Ok(Err(format!("{name} answers, but it is denied"))),
            (Err(e), _) => Ok(Err(format!("{e:#}"))),
        };
        cluster.eventually(&what, once)?;
    }
    say("by name: 5 requests from containers agree");
    Ok(())
}

/// The command line gives the same answers with the cluster's own objects.
fn explained(cluster: &Cluster) -> Result<()> {
    for (client, server, allowed) in [
        ("friend-1", "web-1", true),
        ("friend-1", "web-2", true),
        ("friend-2", "web-2", false),
        ("stranger-1", "web-1", false),
    ] {
        let (from, to) = (format!("{SHOP}/{client}"), format!("{SHOP}/{server}:{PORT}/TCP"));
        let mut can = std::process::Command::new(cluster.programs().palisade());
        can.args(["can", &from, &to]);
        let output = cluster.output(can, "")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.code() == Some(i32::from(!allowed)),
            "palisade can {from} {to}: {}, {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
