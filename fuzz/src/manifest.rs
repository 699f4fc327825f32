//! YAML, manifests, objects of the API server, addresses.

use std::{net::IpAddr, ops::Range};

use ipnet::IpNet;
use palisade_manifest::{
    Admission, Channel, Input, LoadOptions, Style,
    api_objects::{ApiNode, ApiObjectMeta, ApiPod, ObjectDecoder},
    cidr::{Cidr, parse_ip},
    load, names, render,
    scalar::Scalar,
    tree::{At, Documents, Limits, Value},
};
use serde_json::{Map, Number, Value as Json};

/// A tree that has more values than this when its aliases are expanded is not compared.
const VALUES: usize = 10_000;

/// YAML to trees. Every span is a piece of the text and inside that of the value around it. What JSON can express survives being
/// printed as JSON and read again; and what `serde_json` reads, the YAML reader reads as the same value.
pub fn tree(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut trees = Vec::new();
    for document in Documents::new(&text, Limits::default()) {
        match document {
            Ok(tree) => {
                let mut left = VALUES;
                check_spans(&text, &tree.root(), 0..text.len() as u32, &mut left);
                let mut left = VALUES;
                trees.push(Ok(to_json(&tree.root(), &mut left)));
            }
            Err(problems) => {
                assert!(!problems.is_empty(), "a document is refused without a reason");
                for problem in &problems {
                    assert!(
                        text.get(problem.span.start as usize..problem.span.end as usize).is_some(),
                        "{problem:?} is outside of the text"
                    );
                }
                trees.push(Err(problems));
            }
        }
    }
    for value in trees.iter().flatten().flatten() {
        assert_eq!(read_json(&value.to_string()).as_ref(), Some(value), "printed as JSON and read again");
    }
    // Beyond the integers of 64 bits, serde_json has floats and the tree has not.
    if let Ok(expected) = serde_json::from_str::<Json>(&text)
        && let [Ok(Some(found))] = &trees[..]
        && !has_floats(&expected)
    {
        assert_eq!(found, &expected, "YAML and JSON differ");
    }
}

fn check_spans(text: &str, at: &At<'_>, around: Range<u32>, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    let span = at.span();
    assert!(text.get(span.start as usize..span.end as usize).is_some(), "{at:?} is not in the text");
    // The position of an alias is outside of the value that it refers to.
    let inside = around.start <= span.start && span.end <= around.end;
    assert!(inside || text.contains('*'), "{at:?} is outside of {around:?}");
    for (_, key, value) in at.entries() {
        check_spans(text, &key, span.clone(), left);
        check_spans(text, &value, span.clone(), left);
    }
    for item in at.items() {
        check_spans(text, &item, span.clone(), left);
    }
}

/// None for what JSON can't express, and for what is too large.
fn to_json(at: &At<'_>, left: &mut usize) -> Option<Json> {
    *left = left.checked_sub(1)?;
    Some(match at.value() {
        Value::Scalar(scalar) => match scalar {
            Scalar::Null => Json::Null,
            Scalar::Bool(value) => Json::Bool(*value),
            Scalar::Int(value) => Json::Number(Number::from_i128(*value)?),
            // The number of printed digits doesn't matter to the reader.
            Scalar::Float(_) => return None,
            Scalar::Str(text) => Json::String(text.to_string()),
        },
        Value::Sequence(_) => {
            Json::Array(at.items().map(|item| to_json(&item, left)).collect::<Option<_>>()?)
        }
        Value::Mapping(_) => {
            let entries = at.entries().map(|(key, _, value)| Some((key.to_owned(), to_json(&value, left)?)));
            Json::Object(entries.collect::<Option<Map<_, _>>>()?)
        }
    })
}

fn read_json(text: &str) -> Option<Json> {
    let mut documents = Documents::new(text, Limits::default());
    let tree = documents.next()?.ok()?;
    let mut left = 2 * VALUES;
    to_json(&tree.root(), &mut left)
}

fn has_floats(value: &Json) -> bool {
    match value {
        Json::Number(number) => number.is_f64(),
        Json::Array(items) => items.iter().any(has_floats),
        Json::Object(fields) => fields.values().any(has_floats),
        _ => false,
    }
}

/// Manifests of any text, read in several ways. Every diagnostic can be drawn, and every policy that is read has been counted.
pub fn load_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let ways = [
        (Channel::Standard, Admission::Check, true),
        (Channel::Experimental, Admission::Check, false),
        (Channel::Experimental, Admission::Passed, false),
    ];
    for (channel, admission, strict) in ways {
        // A few bytes may declare a hundred thousand pods, which is slow and finds nothing.
        let options = LoadOptions {
            channel,
            admission,
            strict,
            strict_cidr: strict,
            max_made_pods: 100,
            ..LoadOptions::default()
        };
        check_load(&Input::Text { name: "t.yaml".to_owned(), text: text.to_string() }, &options);
    }
}

/// Objects of a cluster as `palisade` reads them for a query: JSON through the loader of manifests.
pub fn load_cluster(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    check_load(&Input::Cluster(text), &LoadOptions { max_made_pods: 100, ..LoadOptions::default() });
}

fn check_load(input: &Input, options: &LoadOptions) {
    let loaded = load(std::slice::from_ref(input), options);
    for diagnostic in &loaded.diagnostics {
        assert!(!render(diagnostic, Style::default()).is_empty(), "{diagnostic:?}");
    }
    // A policy with an error stays in the cluster, without what it allows.
    let declared: usize = loaded.counts.objects.values().chain(loaded.counts.rejected.values()).sum();
    assert!(loaded.cluster.policies.len() <= declared, "{:?}", loaded.counts);
    for pod in loaded.cluster.pods.values() {
        assert!(loaded.cluster.namespaces.contains_key(&pod.key.namespace), "{pod:?} is in no namespace");
        assert!(pod.workload.is_some(), "{pod:?} belongs to nothing");
    }
}

/// Objects as a watch delivers them: the first byte chooses the kind, the rest is JSON. A pod that the watch's decoder takes
/// without remark is the same pod to the loader of manifests.
pub fn objects(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let mut decoder = ObjectDecoder::default();
    match kind % 4 {
        0 => pod(&mut decoder, text),
        1 => {
            if let Ok(node) = serde_json::from_slice::<ApiNode<'_>>(text) {
                let read = decoder.node(&node);
                assert!(read.findings.is_empty());
            }
        }
        2 => {
            if let Ok(meta) = serde_json::from_slice::<ApiObjectMeta<'_>>(text) {
                let read = decoder.namespace(&meta);
                // The label that the API server sets is always there (SEMANTICS A.6).
                assert!(read.value.labels.get("kubernetes.io/metadata.name").is_some());
            }
        }
        _ => {
            let text = String::from_utf8_lossy(text).into_owned();
            let first = decoder.policy(text.clone());
            assert_eq!(decoder.policy(text), first, "the same text, read again");
        }
    }
}

fn pod(decoder: &mut ObjectDecoder, text: &[u8]) {
    let Ok(pod) = serde_json::from_slice::<ApiPod<'_>>(text) else { return };
    let read = decoder.pod(&pod);
    let (pod, findings) = (read.value, read.findings);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(Json::Object(mut fields)) = serde_json::from_str(text) else { return };
    // A list leaves the kind out of its items, and a watch doesn't look at it.
    fields.insert("apiVersion".to_owned(), "v1".into());
    fields.insert("kind".to_owned(), "Pod".into());
    let loaded = load(&[Input::Cluster(Json::Object(fields).to_string())], &LoadOptions::default());
    let Some(other) = loaded.cluster.pods.get(&pod.key) else { return };
    if !findings.is_empty() || !loaded.diagnostics.is_empty() {
        return;
    }
    assert_eq!(
        (&pod.labels, &pod.addresses, &pod.node, pod.host_network, pod.phase, &pod.ports),
        (&other.labels, &other.addresses, &other.node, other.host_network, other.phase, &other.ports),
        "read from a watch, and read as a manifest"
    );
}

/// CIDRs, addresses, ports and names. What the standard library reads means the same here, and the canonical form is a fixed point.
pub fn addresses(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let ours = parse_ip(&text);
    if let Ok(address) = text.parse::<IpAddr>() {
        assert_eq!(ours, Some(address.to_canonical()), "{text:?}");
    }
    if let Some(address) = ours {
        assert_eq!(parse_ip(&address.to_string()), Some(address), "{text:?}");
    }
    let cidr = Cidr::parse(&text);
    // IpNet reads addresses itself, and more of them than the standard library and Go do.
    if let Some((address, prefix)) = text.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
        && let Ok(prefix) = prefix.parse::<u8>()
        && let Ok(net) = IpNet::new(address, prefix)
        && !text.contains('+')
    {
        let cidr = cidr.unwrap_or_else(|| panic!("{text:?} is a CIDR"));
        if !matches!(address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some()) {
            assert_eq!(cidr.canonical(), net.trunc(), "{text:?}");
        }
    }
    if let Some(cidr) = cidr {
        let canonical = cidr.canonical();
        let again = Cidr::parse(&canonical.to_string()).unwrap_or_else(|| panic!("{canonical} is a CIDR"));
        assert_eq!(again.canonical(), canonical, "{text:?}");
        assert!(!again.has_host_bits(), "{text:?}");
        assert!(!cidr.is_strictly_inside(&cidr), "{text:?}");
        _ = (cidr.warnings(&text), cidr.strict_errors(), cidr.is_cidr_to_cel());
    }
    _ = (names::port_name(&text), names::label_value(&text), names::label_key(&text));
    _ = (names::dns_subdomain(&text), names::dns_label(&text));
}
