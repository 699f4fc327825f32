//! `palisade.toml`: where it is found, what it may set, and what is said about it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::{fs, path::Path};

use support::{palisade, run};
use tempfile::TempDir;

const SHOP: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 5432}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

/// A repository with manifests in `deploy` and this file.
fn repository(settings: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    for path in [".git", "deploy/a"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    fs::write(dir.path().join("deploy/a/shop.yaml"), SHOP).unwrap();
    fs::write(dir.path().join("palisade.toml"), settings).unwrap();
    dir
}

fn within(dir: &Path, words: &str) -> (i32, String, String) {
    run(palisade(words).current_dir(dir).env_remove("PALISADE_CHANNEL"))
}

#[test]
fn options_that_are_not_given_come_from_the_file() {
    let dir = repository(
        "namespace = 'shop'\npaths = ['deploy']\n[can]\noutput = 'json'\n[connections]\ngroup-by = 'pod'\n",
    );
    let (code, out, err) = within(dir.path(), "can web db:5432");
    assert_eq!(code, 1, "{err}");
    assert!(out.starts_with('{') && out.contains("deploy/a/shop.yaml"), "{out}");
    assert_eq!(err, "note: reading deploy, as palisade.toml:2 says\n");
    // The command line takes precedence, also over its list of paths.
    let (code, out, err) = within(dir.path(), "can web db:5432 -o text -f deploy/a/shop.yaml");
    assert_eq!((code, &*err), (1, ""), "{out}");
    assert!(out.starts_with("denied"), "{out}");
    // A verb's table is for that verb.
    let (code, out, err) = within(dir.path(), "describe web");
    assert_eq!(code, 0, "{err}");
    assert!(!out.starts_with('{'), "{out}");
    let (_, out, _) = within(dir.path(), "can web db:5432 --no-config -f deploy");
    assert!(out.starts_with("denied"), "{out}");
}

#[test]
fn the_file_is_found_upwards_to_the_root_of_the_repository() {
    let dir = repository("[can]\noutput = 'json'\n");
    let is_read = |at: &Path, words: &str| {
        let (code, out, err) = within(at, words);
        assert_eq!((code, &*err), (1, ""), "{words}");
        out.starts_with('{')
    };
    assert!(is_read(&dir.path().join("deploy/a"), "can web db:5432 -f ."));
    assert!(is_read(dir.path(), "can web db:5432 -f deploy/a/shop.yaml"));
    // From the first input, not from the current directory.
    let elsewhere = TempDir::new().unwrap();
    assert!(is_read(elsewhere.path(), &format!("can web db:5432 -f {}/deploy", dir.path().display())));
    fs::create_dir(dir.path().join("deploy/.git")).unwrap();
    assert!(!is_read(dir.path(), "can web db:5432 -f deploy"), "the folder is a repository of its own");
    let file = dir.path().join("palisade.toml");
    assert!(is_read(dir.path(), &format!("can web db:5432 -f deploy --config {}", file.display())));
    assert_eq!(within(dir.path(), "can web db:5432 -f deploy --config nowhere.toml").0, 2);
}

#[test]
fn wrong_settings_are_errors_with_their_place() {
    for (settings, part) in [
        ("\nchanel = 'standard'", "palisade.toml:2: unknown key `chanel`; did you mean `channel`?"),
        ("xyz = 1", "palisade.toml:1: unknown key `xyz`; there are "),
        (
            "channel = 'beta'",
            "palisade.toml:1: invalid value 'beta' for channel [possible values: standard, experimental]",
        ),
        ("channel = ['standard']", "palisade.toml:1: channel takes one value, not a list"),
        ("channel = true", "palisade.toml:1: channel takes a value, not true or false"),
        ("strict = 'yes'", "palisade.toml:1: strict is true or false"),
        ("namespace = {a = 1}", "palisade.toml:1: there is no table [namespace]"),
        ("[cann]\nstrict = true", "palisade.toml:2: there is no table [cann]; there are can, connections"),
        ("[can]\ngroup-by = 'pod'", "palisade.toml:2: unknown key `group-by`"),
        ("[agent]\nx = 1", "there is no table [agent]"),
        ("channel = ", "palisade.toml:1: "),
        ("kustomize = ['.']", "kustomize starts programs"),
        ("[can]\nhelm = 'chart'", "palisade.toml:2: helm starts programs"),
        ("[diff]\ngit = 'main'", "git starts programs"),
        ("context = 'production'", "context names a cluster"),
        ("kubeconfig = 'x'", "kubeconfig names a cluster"),
        ("live = true", "live names a cluster"),
        ("config = 'x'", "config can be given on the command line only"),
    ] {
        let dir = repository(settings);
        let (code, out, err) = within(dir.path(), "can shop/web shop/db:5432 -f deploy");
        assert_eq!((code, &*out), (2, ""), "{settings}: {err}");
        assert!(err.contains(part) && !err.contains("panicked"), "{settings}: no {part:?} in {err}");
    }
    // Verbs that read no manifests don't read it.
    let dir = repository("xyz = 1");
    assert_eq!(within(dir.path(), "completions bash").0, 0);
    assert_eq!(within(dir.path(), "can --help").0, 0);
}

#[test]
fn settings_that_hide_something_are_said_each_time() {
    for (setting, part) in [
        ("keep-going = true", "palisade.toml:1 sets keep-going: invalid documents are skipped"),
        ("allow-incomplete = true", "palisade.toml:1 sets allow-incomplete: "),
        ("raw = true", "palisade.toml:1 sets raw: "),
        ("[can]\nquiet = true", "palisade.toml:2 sets quiet: "),
    ] {
        let dir = repository(setting);
        let (code, _, err) = within(dir.path(), "can shop/web shop/db:5432 -f deploy");
        assert_eq!(code, 1, "{setting}: {err}");
        assert!(err.contains(&format!("note: {part}")), "{setting}: {err}");
    }
    let dir = repository("keep-going = false");
    assert_eq!(within(dir.path(), "can shop/web shop/db:5432 -f deploy").2, "");
}
