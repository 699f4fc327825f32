//! The pictures of `describe`, `diff` and `connections`: SVG and Mermaid. `PALISADE_BLESS=1 cargo test` updates the snapshots.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::{fmt::Write as _, fs, path::Path};

use support::{palisade, recorded, run};
use tempfile::TempDir;

/// Names and files with everything that ends a string, begins a statement or runs in one of the formats.
const HOSTILE: &str = "</title><script>alert(1)</script>%%{init: {}}%% \\\"]-->end;style x:#f00;click a`|{{\\n\\u001b[31m\\u202e\\uffff";

/// What must not be in any picture, unescaped.
const FORBIDDEN: [&str; 4] = ["<script", "\u{1b}", "\u{202e}", "\u{ffff}"];

/// Runs a verb; returns its answer and what it says on standard error.
#[track_caller]
fn drawn(code: i32, words: &str, file: &Path) -> (String, String) {
    let (got, out, err) = run(palisade(words).arg("-f").arg(file));
    assert_eq!(got, code, "{words}: {err}");
    (out, err)
}

#[test]
fn pictures_are_as_recorded() {
    for (name, words) in [
        ("workload", "describe shop/backend -f examples/shop"),
        ("policy", "describe shop/netpol/web -f crates/palisade/tests/cases/describe/idle.yaml"),
        ("tiers", "describe cnp/guardrails -f examples/tiers"),
        ("namespace", "describe ns/shop -f examples/tiers"),
        ("forwarded", "describe shop/web -f examples/ingress"),
    ] {
        for form in ["svg", "mermaid"] {
            let (code, out, err) = run(&mut palisade(&format!("{words} -o {form}")));
            assert_eq!((code, &*err), (0, ""), "{words}");
            well_formed(form, &out);
            recorded(&format!("pictures/{name}.{form}"), &out);
        }
    }
    let (code, out, err) = run(&mut palisade("diff examples/shop examples/shop-two-rules -o mermaid"));
    assert_eq!((code, &*err), (1, ""));
    well_formed("mermaid", &out);
    recorded("pictures/diff.mermaid", &out);
}

/// Checks a picture without a program that draws it: XML whose elements are closed, a graph whose strings end in their line.
#[track_caller]
fn well_formed(form: &str, text: &str) {
    for forbidden in FORBIDDEN {
        assert!(!text.contains(forbidden), "{forbidden:?} in {form}:\n{text}");
    }
    if form == "mermaid" {
        assert!(text.starts_with("flowchart LR\n") && !text.contains('%'), "{text}");
        for line in text.lines() {
            let quotes = line.matches('"').count();
            assert!(quotes == 0 || quotes == 2, "{line}");
            let outside: String = line.split('"').step_by(2).collect();
            assert!(!outside.contains("click") && !outside.contains("style x"), "{line}");
        }
        let count = |word: &str| text.lines().filter(|line| line.trim_start().starts_with(word)).count();
        assert_eq!(count("subgraph "), text.lines().filter(|line| line.trim() == "end").count(), "{text}");
        return;
    }
    let mut open = Vec::new();
    for part in text.split('<').skip(1) {
        let (tag, words) = part.split_once('>').expect("a tag ends");
        let entities = words.split('&').skip(1).all(|rest| {
            ["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|entity| rest.starts_with(entity))
        });
        assert!(entities, "{words}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{text}");
        } else if !tag.starts_with('?') && !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(text.contains("<title") && text.contains("prefers-color-scheme:dark"), "{text}");
}

fn hostile_manifest(label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: shop\n  labels: {{app: a}}\n  ownerReferences:\n  \
         - {{apiVersion: x/v1, kind: \"{HOSTILE}\", name: \"{HOSTILE}\", uid: u}}\nspec: {{containers: [{{name: c, image: i}}]}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: b, namespace: shop, labels: {{app: b}}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n\
         ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: a}}}}\n  ingress:\n  - from:\n    - podSelector: {{matchLabels: {{app: {label}}}}}\n  \
         policyTypes: [Ingress]\n"
    )
}

/// Owners of pods may be of any kind and have any name, and files too.
#[test]
fn odd_names_stay_text() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("<script>\"]%%{init}%%`;.yaml");
    fs::write(&file, hostile_manifest("b")).unwrap();
    for form in ["svg", "mermaid"] {
        for what in ["shop/pod/b", "shop/netpol/p", "ns/shop"] {
            let (out, _) = drawn(0, &format!("describe {what} -o {form}"), dir.path());
            well_formed(form, &out);
        }
    }
    let (out, _) = drawn(0, "connections -o mermaid", dir.path());
    well_formed("mermaid", &out);
    assert!(out.contains("#60;script#62;alert(1)"), "the name is shown: {out}");
    let other = TempDir::new().unwrap();
    fs::write(other.path().join("m.yaml"), hostile_manifest("c")).unwrap();
    for form in ["svg", "mermaid"] {
        let mut command = palisade(&format!("diff -o {form}"));
        let (code, out, err) = run(command.arg(dir.path()).arg(other.path()));
        assert_eq!(code, 1, "{err}");
        well_formed(form, &out);
    }
}

/// Returns pods without policies in each of some namespaces.
fn pods(namespaces: usize, pods: usize) -> String {
    let mut out = String::new();
    for namespace in 0..namespaces {
        for pod in 0..pods {
            _ = write!(
                out,
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{pod}, namespace: n{namespace:03}, labels: {{app: p{pod}}}}}\nspec: \
                 {{containers: [{{name: c, image: i}}]}}\n---\n"
            );
        }
    }
    out
}

#[test]
fn large_graphs_show_namespaces_and_say_so() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("m.yaml");
    fs::write(&file, pods(3, 10)).unwrap();
    for (form, edge) in [("mermaid", " -->"), ("dot", " -> ")] {
        let (out, err) = drawn(0, &format!("connections -o {form}"), &file);
        assert!(out.contains("namespace n000") && !out.contains("p0"), "{out}");
        let said = "edges between workloads are drawn by namespace";
        assert!(out.contains(said) && err.contains(said), "{out}{err}");
        assert!(err.contains("--group-by workload draws each"), "{err}");
        assert!(out.matches(edge).count() < 30, "{out}");
        // Who asks for workloads gets them, and is told that viewers refuse so many.
        let (out, err) = drawn(0, &format!("connections -o {form} --group-by workload"), &file);
        assert!(out.contains("p0") && out.matches(edge).count() > 870, "{out}");
        assert!(err.contains("Mermaid draws 500"), "{err}");
    }
    // A small graph stays as it is.
    fs::write(&file, pods(2, 2)).unwrap();
    let (out, err) = drawn(0, "connections -o mermaid", &file);
    assert!(out.contains("p0") && err.is_empty(), "{out}{err}");
}

#[test]
fn many_peers_are_drawn_by_namespace() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("m.yaml");
    fs::write(&file, pods(3, 90)).unwrap();
    for form in ["svg", "mermaid"] {
        let (out, err) = drawn(0, &format!("describe n000/p0 -o {form}"), &file);
        well_formed(form, &out);
        assert!(out.contains("90 workloads") && !out.contains("p7"), "{out}");
        assert!(err.contains("sources are drawn by namespace; -o json lists each"), "{err}");
    }
    // So many namespaces that even these are cut. Nothing is left out silently, and Mermaid draws no more than 50,000 characters.
    fs::write(&file, pods(260, 1)).unwrap();
    for form in ["svg", "mermaid"] {
        let (out, _) = drawn(0, &format!("describe n000/p0 -o {form}"), &file);
        well_formed(form, &out);
        assert!(out.contains("more, which -o json lists"), "{out}");
        assert!(form == "svg" || out.len() <= 50_000, "{}", out.len());
    }
}

#[test]
fn a_picture_of_incomplete_manifests_says_so() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("m.yaml");
    fs::write(&file, format!("{}apiVersion: v1\nkind: Pod\nmetadata: 7\n", pods(1, 2))).unwrap();
    for form in ["svg", "mermaid"] {
        let (out, _) = drawn(2, &format!("describe n000/p0 --keep-going -o {form}"), &file);
        assert!(out.contains("incomplete"), "{out}");
    }
}

#[test]
fn a_large_change_is_drawn_by_namespace() {
    let dir = TempDir::new().unwrap();
    let [before, after] = ["a.yaml", "b.yaml"].map(|name| dir.path().join(name));
    let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: n000}\nspec: {podSelector: {}, \
                policyTypes: [Ingress]}\n";
    fs::write(&before, pods(3, 10)).unwrap();
    fs::write(&after, format!("{}{deny}", pods(3, 10))).unwrap();
    let (code, out, err) = run(palisade("diff -o mermaid").arg(&before).arg(&after));
    assert_eq!(code, 1, "{err}");
    well_formed("mermaid", &out);
    assert!(err.contains("changes are drawn by namespace") && out.contains("namespace n001"), "{out}{err}");
    assert!(out.contains("linkStyle") && !out.contains("==>"), "{out}");
}
