//! Documents: which are read, which are rejected, and the messages.

use palisade_manifest::{Code, Input, LoadOptions, Loaded, Style, load, render};

fn text(name: &str, text: impl Into<String>) -> Input {
    Input::Text { name: name.to_owned(), text: text.into() }
}

fn load_text(yaml: impl Into<String>) -> Loaded {
    load(&[text("t.yaml", yaml)], &LoadOptions::default())
}

fn lines(loaded: &Loaded) -> Vec<String> {
    loaded.diagnostics.iter().map(ToString::to_string).collect()
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.cluster.pods.keys().map(|k| &*k.name).collect()
}

#[test]
fn a_broken_document_does_not_affect_the_others() {
    let broken = [
        "kind: [",
        "a: b: c",
        "\tkind: Pod",
        "'open",
        "? ]",
        "key: *nowhere",
        "a: \"\\q\"",
        "- a\nb: c",
        "@x",
        "a: !!int x",
    ];
    for bad in broken {
        let loaded = load_text(format!("{}---\n{bad}\n---\n{}", pod("before"), pod("after")));
        assert_eq!(names(&loaded), ["after", "before"], "{bad}");
        assert!(loaded.has_errors(), "{bad}");
        let first = &loaded.diagnostics[0];
        let line = first.origin.as_ref().unwrap().line;
        assert!((5..=8).contains(&line), "{bad}: {first}");
    }
}

#[test]
fn empty_and_commented_documents_and_all_document_ends() {
    let yaml = format!(
        "# comment\n---\n---\n# only a comment\n---\nnull\n--- # named\n{}...\n---\n{}---",
        pod("a"),
        pod("b").replace('\n', "\r\n")
    );
    let loaded = load_text(yaml);
    assert_eq!(lines(&loaded), [""; 0]);
    assert_eq!(names(&loaded), ["a", "b"]);
    assert_eq!(loaded.counts.documents, 2);
    assert_eq!(names(&load_text(format!("\u{feff}{}", pod("bom")))), ["bom"]);
    assert_eq!(load_text("").counts.documents, 0);
}

#[test]
fn consecutive_json_objects_are_a_stream() {
    let json = |name: &str| {
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": {name}}}}}\n")
    };
    let loaded = load_text(json("\"a\"") + &json("7") + "{\"a\": :}" + &json("\"b\""));
    assert_eq!(names(&loaded), ["a", "b"]);
    let found = lines(&loaded);
    assert!(found[0].starts_with("t.yaml:2:58: error: "), "{found:?}");
    assert!(found.iter().any(|l| l.starts_with("t.yaml:3:")), "{found:?}");
}

/// Go writes them as they are, so annotations of objects in a cluster may hold them.
#[test]
fn json_may_hold_characters_that_yaml_may_not() {
    for c in ['\u{7f}', '\u{82}', '\u{9f}', '\u{fffe}', '\u{ffff}'] {
        let json = |name: &str| {
            format!(
                "{{\"apiVersion\": \"v1\",\t\"kind\": \"Pod\", \"metadata\": {{\"annotations\": {{\"{c}\": \"{c}\"}}, \"name\": {name}}}}}"
            )
        };
        assert_eq!(names(&load_text(json("\"a\""))), ["a"], "{c:?}");
        assert_eq!(names(&load_text(json("\"a\"") + "\n" + &json("\"b\""))), ["a", "b"], "{c:?}");
        let before = json("").split_once("\"name\": ").unwrap().0.chars().count();
        let at = before + "\"name\": ".len() + 1;
        assert!(
            lines(&load_text(json("7")))[0].starts_with(&format!("t.yaml:1:{at}: error: ")),
            "{c:?}: {at}"
        );
        let yaml = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{b: \"{c}\"}}}}\n");
        assert!(lines(&load_text(yaml))[0].contains("unexpected character"), "kubectl refuses it too: {c:?}");
    }
}

#[test]
fn positions_count_lines_with_windows_newlines_too() {
    let yaml = "apiVersion: v1\r\nkind: Pod\r\nmetadata:\r\n  name: é\r\n  labels: {ü: [1]}\r\n";
    let found = lines(&load_text(yaml));
    assert!(
        found[0].starts_with("t.yaml:4:9: error: Pod default/é: metadata.name: Invalid value: \"é\""),
        "{found:?}"
    );
    assert!(found.iter().any(|l| l.starts_with("t.yaml:5:15: error: ")), "{found:?}");
}

#[test]
fn yaml_is_read_like_kubectl_does() {
    let label = |value: &str| {
        let loaded =
            load_text(format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{a: {value}}}}}\n"));
        match loaded.cluster.pods.values().next() {
            Some(pod) => pod.labels.get("a").map(str::to_owned).ok_or_else(String::new),
            None => Err(loaded.diagnostics[0].message.clone()),
        }
    };
    for text in ["no", "yes", "on", "off", "y", "N", "True"] {
        assert_eq!(
            label(text),
            Err("cannot unmarshal bool into a field of type string".to_owned()),
            "{text}"
        );
    }
    for text in ["0777", "1_000", "0x1f", "1.5", "08", "1e3", ".inf"] {
        assert_eq!(
            label(text),
            Err("cannot unmarshal number into a field of type string".to_owned()),
            "{text}"
        );
    }
    for (text, value) in [
        ("'no'", "no"),
        ("\"0777\"", "0777"),
        ("!!str no", "no"),
        ("2026-11-23", "2026-11-23"),
        ("1.2.3", "1.2.3"),
        ("~", ""),
        ("", ""),
        ("null", ""),
    ] {
        assert_eq!(label(text).as_deref(), Ok(value), "{text}");
    }
    assert_eq!(
        load_text("apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: no}}\n").diagnostics[0]
            .help
            .as_deref(),
        Some("quote it: \"no\"")
    );
}

#[test]
fn numbers_are_read_like_kubectl_does() {
    let port = |value: &str| {
        let loaded = load_text(format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{ports: [{{containerPort: {value}}}]}}]}}\n"
        ));
        loaded.cluster.pods.values().next().map(|p| p.ports[0].port)
    };
    for (text, value) in [
        ("0777", 511),
        ("0o17", 15),
        ("0x50", 80),
        ("8_0", 80),
        ("80.0", 80),
        ("8e1", 80),
        ("08", 8),
        ("!!int 80", 80),
    ] {
        assert_eq!(port(text), Some(value), "{text}");
    }
    for text in [
        "'80'",
        "80.5",
        "0",
        "-1",
        "65536",
        "4294967376",
        "99999999999999999999999999999999999999999999",
        "1e99",
        ".nan",
        "yes",
        "[80]",
        "{}",
    ] {
        assert_eq!(port(text), None, "{text}");
    }
}

#[test]
fn of_duplicate_keys_the_last_counts_and_they_are_a_warning_however_they_are_spelled() {
    for yaml in [
        "{a: 1, b: 2, 'a': 3}",
        "{true: 1, yes: 2}",
        "{1: a, 0x1: b}",
        "{a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, j: 1, c: 2}",
    ] {
        let loaded = load_text(yaml);
        let warned = loaded.diagnostics.iter().filter(|d| d.code == Code::DuplicateKey).count();
        assert_eq!(warned, 1, "{yaml}: {:?}", lines(&loaded));
    }
    let labels = |labels: &str| {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {labels}}}\n");
        let loaded = load_text(text);
        (loaded.cluster.pods.values().next().unwrap().labels.to_string(), lines(&loaded))
    };
    let (found, warnings) = labels("{a: '1', b: x, a: '2'}");
    assert_eq!(found, "a=2,b=x");
    assert_eq!(
        warnings,
        ["t.yaml:3:44: warning: Pod p: key \"a\" already set in map; the last value is used"]
    );
    // go-yaml merges in the order of the text: a merge key replaces what is written before it.
    let (found, warnings) = labels("{a: '1', <<: {a: '2', b: '2'}, b: '3'}");
    assert_eq!(found, "a=2,b=3");
    assert!(warnings[0].contains("the merge key replaces key \"a\""), "{warnings:?}");
    assert_eq!(labels("{<<: {a: '1'}, <<: {a: '2'}}"), ("a=2".to_owned(), Vec::new()));
}

#[test]
fn documents_are_divided_as_kubectl_divides_them() {
    // After `---`, only a comment may follow. The other documents are read.
    for line in ["--- {apiVersion: v1}", "---x", "--- |", "---- "] {
        let loaded = load_text(format!("{}{line}\n{}---\n{}", pod("a"), pod("lost"), pod("b")));
        assert!(
            lines(&loaded)[0].contains("4:1: error: invalid Yaml document separator: "),
            "{:?}",
            lines(&loaded)
        );
        assert!(names(&loaded).contains(&"b"), "{line}");
    }
    // go-yaml decodes the first document of those between two `---`.
    let loaded = load_text(format!("{}...\n{}", pod("a"), pod("b")));
    assert_eq!(names(&loaded), ["a"]);
    assert!(
        lines(&loaded)[0].contains("4:1: warning: Pod a: what follows the end of the document"),
        "{:?}",
        lines(&loaded)
    );
    // It reads no directives, since they stand before a `---`.
    for directive in ["%YAML 1.1", "%YAML 2.0", "%TAG ! tag:x,2000:"] {
        let loaded = load_text(format!("{directive}\n---\n{}", pod("a")));
        assert!(loaded.has_errors(), "{directive}");
    }
    assert_eq!(names(&load_text(format!("{}---\n\u{feff}{}", pod("a"), pod("b")))), ["a", "b"]);
    assert_eq!(names(&load_text(format!("---\n---\n{}---  \t\r\n{}---", pod("a"), pod("b")))), ["a", "b"]);
    assert!(load_text("a: \0").has_errors());
}

#[test]
fn anchors_and_merge_keys() {
    let yaml = "
apiVersion: v1
kind: List
items:
- &pod
  apiVersion: v1
  kind: Pod
  metadata: &meta {name: a, labels: &labels {app: x, tier: web}}
- <<: *pod
  metadata:
    <<: *meta
    name: b
    labels: {<<: [{app: first}, *labels], own: '1'}
";
    let loaded = load_text(yaml);
    assert_eq!(lines(&loaded), [""; 0]);
    let labels: Vec<String> = loaded.cluster.pods.values().map(|p| p.labels.to_string()).collect();
    assert_eq!(labels, ["app=x,tier=web", "app=first,own=1,tier=web"]);
    let wrong = load_text("a: {<<: 7}");
    assert_eq!(wrong.diagnostics[0].message, "map merge requires map or sequence of maps as the value");
}

#[test]
fn alias_bombs_are_rejected() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..40 {
        let before = format!("*a{}", n - 1);
        laughs += &format!("a{n}: &a{n} [{}]\n", vec![before; 10].join(", "));
    }
    for (bomb, code) in [
        (laughs, Code::Alias),
        ("a: &a [*a]".to_owned(), Code::Alias),
        ("a: &a {b: *a}".to_owned(), Code::Alias),
        ("[".repeat(100_000), Code::Syntax),
        ("{a: ".repeat(100_000), Code::Syntax),
        ("- ".repeat(100_000), Code::Syntax),
        ((0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), Code::Syntax),
    ] {
        let loaded = load_text(format!("{bomb}\n---\n{}", pod("after")));
        let head: String = bomb.chars().take(30).collect();
        assert_eq!(loaded.diagnostics.first().map(|d| d.code), Some(code), "{head}");
        assert_eq!(names(&loaded), ["after"], "{head}");
    }
    let nested = |depth: usize| {
        let inner = (0..depth)
            .fold("[]".to_owned(), |inner, _| format!("[{{apiVersion: v1, kind: List, items: {inner}}}]"));
        load_text(format!("{{apiVersion: v1, kind: List, items: {inner}}}"))
    };
    assert!(!nested(2).has_errors());
    assert!(nested(20).has_errors());
}

#[test]
fn more_pods_than_the_limit_are_an_error() {
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 2000000000, template: {}}\n";
    let loaded = load_text(yaml);
    assert_eq!(loaded.diagnostics[0].code, Code::TooLarge);
    assert!(loaded.cluster.pods.is_empty());
}

#[test]
fn unrendered_templates_are_recognised() {
    for yaml in [
        "kind: {{ .Values.kind }}",
        "{{- if .Values.x }}\nkind: Pod\n{{- end }}",
        "metadata:\n  name: {{ include \"x\" . }}\n",
    ] {
        let loaded = load_text(yaml);
        let help = loaded.diagnostics[0].help.as_deref();
        assert_eq!(
            help,
            Some(
                "this looks like a Helm template: render it first, with `helm template`, or pass its chart with --helm"
            ),
            "{yaml}"
        );
    }
}

#[test]
fn wrong_types_are_errors_with_a_position() {
    let policy = |spec: &str| {
        load_text(format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
        ))
    };
    for (spec, path) in [
        ("[]", "spec"),
        ("7", "spec"),
        ("{podSelector: []}", "spec.podSelector"),
        ("{podSelector: {matchLabels: [a]}}", "spec.podSelector.matchLabels"),
        ("{podSelector: {matchLabels: {a: {}}}}", "spec.podSelector.matchLabels.a"),
        ("{podSelector: {matchExpressions: {}}}", "spec.podSelector.matchExpressions"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: In, values: b}]}}",
            "spec.podSelector.matchExpressions[0].values",
        ),
        ("{podSelector: {matchExpressions: [null]}}", "spec.podSelector.matchExpressions[0]"),
        ("{policyTypes: Ingress}", "spec.policyTypes"),
        ("{policyTypes: [1]}", "spec.policyTypes[0]"),
        ("{policyTypes: [null]}", "spec.policyTypes[0]"),
        ("{ingress: {}}", "spec.ingress"),
        ("{ingress: [x]}", "spec.ingress[0]"),
        ("{ingress: [{from: {}}]}", "spec.ingress[0].from"),
        ("{ingress: [{from: [null]}]}", "spec.ingress[0].from[0]"),
        ("{ingress: [{ports: 80}]}", "spec.ingress[0].ports"),
        ("{ingress: [{ports: [80]}]}", "spec.ingress[0].ports[0]"),
        ("{ingress: [{ports: [{port: 1.5}]}]}", "spec.ingress[0].ports[0].port"),
        ("{ingress: [{ports: [{port: true}]}]}", "spec.ingress[0].ports[0].port"),
        ("{ingress: [{ports: [{port: 1, endPort: '2'}]}]}", "spec.ingress[0].ports[0].endPort"),
        ("{ingress: [{ports: [{protocol: 6}]}]}", "spec.ingress[0].ports[0].protocol"),
        ("{ingress: [{ports: [{protocol: ''}]}]}", "spec.ingress[0].ports[0].protocol"),
        ("{egress: [{to: [{ipBlock: 10.0.0.0/8}]}]}", "spec.egress[0].to[0].ipBlock"),
        ("{egress: [{to: [{ipBlock: {cidr: 10}}]}]}", "spec.egress[0].to[0].ipBlock.cidr"),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [null]}}]}]}",
            "spec.egress[0].to[0].ipBlock.except[0]",
        ),
    ] {
        let loaded = policy(spec);
        assert!(loaded.has_errors() && loaded.refused.len() == 1, "{spec}");
        let paths: Vec<_> = loaded.diagnostics.iter().filter_map(|d| d.path.as_deref()).collect();
        assert!(paths.iter().any(|p| p.starts_with(path)), "{spec}: {paths:?}");
    }
    // Null elements of lists are the zero value (A4).
    for spec in [
        "{ingress: [null]}",
        "{ingress: [{ports: [null]}]}",
        "{podSelector: null, ingress: null, egress: null, policyTypes: null}",
    ] {
        assert_eq!(lines(&policy(spec)), [""; 0], "{spec}");
    }
}

#[test]
fn findings_are_rendered_with_their_line_and_without_control_characters() {
    let loaded =
        load_text("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    x: \"\\e[31m\" # red\n");
    let drawn = render(&loaded.diagnostics[0], Style::default());
    assert!(!drawn.contains('\u{1b}'), "{drawn}");
    let loaded = load_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {team: no}}\n");
    let drawn = render(&loaded.diagnostics[0], Style::default());
    let expected = "\
error[wrong-type]: Pod default/a: metadata.labels.team: cannot unmarshal bool into a field of type string
 --> t.yaml:3:36
  |
3 | metadata: {name: a, labels: {team: no}}
  |                                    ^^
  |
  = help: quote it: \"no\"";
    assert_eq!(drawn, expected);
    assert!(render(&loaded.diagnostics[0], Style { colour: true, width: 80 }).contains("\u{1b}["));
    let json = serde_json::to_value(&loaded.diagnostics[0]).unwrap();
    assert_eq!(json["code"], "wrong-type");
    assert_eq!(
        (json["file"].as_str(), json["line"].as_u64(), json["column"].as_u64()),
        (Some("t.yaml"), Some(3), Some(36))
    );
}

#[test]
fn big_inputs_are_read_quickly_and_their_findings_are_bounded() {
    let many: String = (0..10_000).map(|n| format!("{}---\n", pod(&format!("p{n}")))).collect();
    let loaded = load_text(many);
    assert_eq!(loaded.cluster.pods.len(), 10_000);
    let cidrs: String = (0..100_000)
        .map(|n| format!("    - ipBlock: {{cidr: 10.{}.{}.0/24}}\n", n / 256 % 256, n % 256))
        .collect();
    let policy = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec:\n  ingress:\n  - from:\n{cidrs}"
    );
    let loaded = load_text(policy.clone());
    assert_eq!(lines(&loaded), [""; 0]);
    assert_eq!(
        loaded.cluster.policies.values().next().unwrap().ingress.as_ref().unwrap()[0]
            .peers
            .as_ref()
            .unwrap()
            .len(),
        100_000
    );
    let wrong = load_text(policy.replace("/24", "/99"));
    assert_eq!(wrong.diagnostics.len(), 100_000, "all are reported");
    assert_eq!(wrong.diagnostics.iter().filter(|d| d.excerpt.is_some()).count(), 1000);
}
