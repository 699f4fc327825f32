//! How inputs are found, and what is said about them: folders with files of other programs, kustomizations, charts,
//! templates, encrypted files. No answer is given where something that decides could not be read.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod support;

use std::{fs, path::Path};

use support::{palisade, run};
use tempfile::TempDir;

/// The inputs of known wrong answers.
const CASES: &str = "crates/palisade/tests/cases/reading";

/// A namespace with two pods and a policy that denies everything to them.
const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
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
spec: {podSelector: {}}
";

/// Makes a folder of these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        write(dir.path(), name, text.as_bytes());
    }
    dir
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Runs a command in a folder; returns the exit code, standard output and standard error.
fn within(dir: &Path, words: &str) -> (i32, String, String) {
    run(palisade(words).current_dir(dir))
}

/// Asserts that the folder's answer is that the policy denies, and returns what was said.
#[track_caller]
fn denied(dir: &Path) -> String {
    let (code, out, err) = within(dir, "can shop/web shop/db:5432 -f .");
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("denied"), "{out}");
    err
}

/// Asserts that there is no answer because of one thing, and returns what was said.
#[track_caller]
fn no_answer(dir: &Path, parts: &[&str]) -> String {
    let (code, out, err) = within(dir, "can shop/web shop/db:5432 -f .");
    assert_eq!((code, &*out), (2, ""), "{parts:?}: {err}");
    for part in parts {
        assert!(err.contains(part), "no {part:?} in {err}");
    }
    assert_eq!(err.matches("error[").count(), 1, "one message for one cause: {err}");
    err
}

#[test]
fn files_of_other_programs_are_counted_in_one_note() {
    let (code, out, err) = run(&mut palisade(&format!("connections -f {CASES}/folder")));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("data/pod/db"), "{out}");
    assert_eq!(err, "note: 2 files are not Kubernetes manifests: kustomization.yaml, values.yaml\n");

    let dir = folder(&[
        ("shop.yaml", SHOP),
        ("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n"),
        ("package.json", "{\"name\": \"shop\", \"dependencies\": {}}"),
        ("tsconfig.json", "{\n  // the usual\n  \"compilerOptions\": {},\n}"),
        ("docker-compose.yml", "services: {web: {image: x}}"),
        ("workflows/ci.yml", "on: push\njobs: {a: {steps: [{run: \"echo ${{ github.sha }}\"}]}}"),
        ("grafana/datasources.yaml", "apiVersion: 1\ndatasources: []"),
        ("grafana/dashboard.json", "[{\"title\": \"x\"}]"),
        ("values-ds.yaml", "kind: DaemonSet\nimage: {tag: x}"),
        ("stack.yaml", "Resources: {A: {Ref: !Ref B}}"),
        ("notes.yaml", "plain text"),
    ]);
    write(dir.path(), "latin.yaml", b"title: caf\xe9\n");
    let err = denied(dir.path());
    assert!(
        err.starts_with("note: 11 files are not Kubernetes manifests: Chart.yaml, docker-compose.yml, "),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_named_file_of_another_program_is_an_error() {
    let dir = folder(&[("shop.yaml", SHOP), ("values.yaml", "replicas: 2\n")]);
    let (code, out, err) = within(dir.path(), "can shop/web shop/db:5432 -f shop.yaml -f values.yaml");
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("values.yaml:1:1") && err.contains("apiVersion and kind are not set"), "{err}");
}

#[test]
fn what_was_meant_to_be_an_object_is_never_passed_over() {
    for (text, part) in [
        ("kind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelector: {}}", "apiVersion is not set"),
        ("apiVersion: networking.k8s.io/v1\nmetadata: {name: x}\nspec: {podSelector: {}}", "kind is not set"),
        (
            "metadata: {name: x}\nspec: {podSelector: {}, policyTypes: [Ingress]}",
            "apiVersion and kind are not set",
        ),
        ("Kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: x}", "kind is not set"),
        (
            "[{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"x\"}}]",
            "objects in an array",
        ),
        (
            "{\"x\": {\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"x\"}}}",
            "objects in an object",
        ),
        ("kind: {a: b\napiVersion: v1", "error[syntax]"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\nreplicas: 2",
            "apiVersion and kind are not set",
        ),
    ] {
        let dir = folder(&[("shop.yaml", SHOP), ("x.yaml", text)]);
        no_answer(dir.path(), &["x.yaml", part]);
    }
}

#[test]
fn templates_and_encrypted_files_give_one_message_with_the_cure() {
    let policy = |name: &str, extra: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\n  namespace: shop\n{extra}\
             spec: {{podSelector: {{}}}}\n---\n"
        )
    };
    let twice = |name: &str| policy(name, "") + &policy(name, "");
    for (text, cure) in [
        (twice("{{ .Values.name }}"), "helm template"),
        (twice("\"{{ .Values.name }}\""), "helm template"),
        ("{{ include \"shop.policies\" . }}\n".to_owned(), "helm template"),
        (twice("{% if x %}a{% endif %}"), "Jinja"),
        (twice("<%= name %>"), "ERB"),
        (twice("${NAME}"), "envsubst"),
        (twice("$NAME"), "envsubst"),
        (policy("p", "").replace("kind: NetworkPolicy", "kind: ${KIND}"), "envsubst"),
        (twice("$(NAME)"), "Kustomize"),
        (policy("p", "<<<<<<< HEAD\n=======\n>>>>>>> branch\n"), "merge conflict"),
        (
            format!("<<<<<<< HEAD\n{}=======\n{}>>>>>>> x\n", policy("p", ""), policy("q", "")),
            "merge conflict",
        ),
        (policy("ENC[AES256_GCM,data:x,type:str]", "sops: {mac: x}\n"), "sops -d"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n".to_owned(), "git lfs pull"),
    ] {
        let dir = folder(&[("shop.yaml", SHOP), ("x.yaml", &text)]);
        let err = no_answer(dir.path(), &["x.yaml", cure]);
        assert!(err.len() < 1500, "{err}");
    }
    // What is encrypted and decides nothing is no error.
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\ndata: {a: 'ENC[AES256_GCM,data:x]'}\nsops: {mac: x}\n";
    let err = denied(folder(&[("shop.yaml", SHOP), ("s.yaml", secret)]).path());
    assert_eq!(err, "note: 1 object is encrypted and decides nothing: Secret s\n");
}

#[test]
fn unreadable_files_that_could_be_manifests_are_errors_with_a_cure() {
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("kind: Pod".bytes().flat_map(|b| [b, 0])).collect();
    for (bytes, cure) in [
        (&utf16[..], "UTF-16"),
        (b"\0GITCRYPT\0\x01\x02\xff", "git-crypt unlock"),
        (b"\x7fELF\0\0\xff", "binary"),
        (b"# caf\xe9\napiVersion: v1\nkind: Pod", "save the file as UTF-8"),
    ] {
        let dir = folder(&[("shop.yaml", SHOP)]);
        write(dir.path(), "x.yaml", bytes);
        no_answer(dir.path(), &["x.yaml", cure]);
    }
    let dir = folder(&[
        ("shop.yaml", SHOP),
        ("empty.yaml", ""),
        ("np.yaml.j2", "x"),
        ("node_modules/a/x.json", "{"),
    ]);
    std::os::unix::fs::symlink("nowhere", dir.path().join("policies")).unwrap();
    std::os::unix::fs::symlink("..", dir.path().join("node_modules/loop")).unwrap();
    assert_eq!(
        denied(dir.path()),
        "note: 1 file is empty: empty.yaml\nnote: 1 template is not read: np.yaml.j2\n\
         note: 2 paths are not read: node_modules, policies\n"
    );
}

/// A manifest in a directory that is a pipe or a socket would be applied, but can't be read twice.
#[test]
fn what_is_no_regular_file_but_could_be_a_manifest_is_an_error() {
    let dir = folder(&[("shop.yaml", SHOP)]);
    nix::unistd::mkfifo(&dir.path().join("more.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    no_answer(dir.path(), &["more.yaml", "not-readable", "it is not a regular file"]);
    let dir = folder(&[("shop.yaml", SHOP)]);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("agent.sock")).unwrap();
    assert_eq!(denied(dir.path()), "");
}

#[test]
fn a_kustomization_that_changes_its_resources_is_not_read_as_it_is() {
    for path in ["kustomize", "kustomize/overlay"] {
        let (code, out, err) = run(&mut palisade(&format!("connections -f {CASES}/{path}")));
        assert_eq!((code, &*out), (2, ""), "{err}");
        assert!(err.contains("a kustomization: namespace, namePrefix and patches are not applied"), "{err}");
        assert!(
            err.contains("overlay/kustomization.yaml:3:1") && err.contains("overlay` renders it"),
            "{err}"
        );
    }
    let (code, out, err) =
        run(&mut palisade(&format!("can shop/web shop/api:8080 -f {CASES}/kustomize --raw")));
    assert_eq!(code, 0, "{err}");
    // The patch does not replace the policy that it is for.
    assert!(out.starts_with("allowed") && !err.contains("already defined"), "{out}{err}");
    assert!(err.contains("note: ") && err.contains("patches are not applied"), "{err}");

    for (kustomization, part) in [
        ("resources: [shop.yaml]\nnamespace: x", "namespace is not applied"),
        ("resources: [shop.yaml]\ncommonLabels: {a: b}", "commonLabels are not applied"),
        ("resources: [shop.yaml]\ncomponents: [c]", "components are not applied"),
        (
            "resources: [shop.yaml]\ncommonAnnotations: {a: b, palisade.dev/mode: audit}",
            "commonAnnotations are not applied",
        ),
        (
            "resources: [shop.yaml]\nreplicas: [{name: web, count: 2}, {name: api, count: 0}]",
            "replicas are not applied",
        ),
        ("resources: [shop.yaml]\npatches: [{patch: '{}', target: {kind: Pod}}]", "patches are not applied"),
        ("resources: [shop.yaml]\nhelmCharts: [{name: x}]", "helmCharts are not applied"),
        ("resources: [shop.yaml, ../other]", "`../other` is not read"),
        (
            "resources: [shop.yaml, 'https://example.com/x?ref=v1']",
            "`https://example.com/x?ref=v1` is not read",
        ),
        ("resources: []", "`shop.yaml` is not among its resources"),
    ] {
        for name in ["kustomization.yaml", "kustomization.yml", "Kustomization"] {
            no_answer(folder(&[("shop.yaml", SHOP), (name, kustomization)]).path(), &[name, part, "-k ."]);
        }
    }
    let plain = "images: [{name: x, newTag: '2'}]\nreplicas: [{name: web, count: 3}]\ncommonAnnotations: {a: b}\nresources: [shop.yaml]\nconfigMapGenerator: [{name: c, literals: [a=b]}]\npatches: []";
    let err = denied(folder(&[("shop.yaml", SHOP), ("kustomization.yaml", plain)]).path());
    assert_eq!(err, "note: 1 file is not a Kubernetes manifest: kustomization.yaml\n");
}

#[test]
fn a_chart_gives_one_message() {
    let template = "{{- if .Values.x }}\nkind: NetworkPolicy\n{{- end }}\n";
    let files = [
        ("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n"),
        ("values.yaml", "x: true\n"),
        ("templates/a.yaml", template),
        ("templates/b.yaml", template),
        ("charts/sub/Chart.yaml", "apiVersion: v2\nname: sub\nversion: 1.0.0\n"),
        ("charts/sub/templates/c.yaml", template),
    ];
    let dir = folder(&files);
    for (at, words, shown) in
        [(".", "connections -f .", "."), ("..", "", ""), ("templates", "connections -f .", "")]
    {
        if words.is_empty() {
            continue;
        }
        let (code, out, err) = within(&dir.path().join(at), words);
        assert_eq!((code, &*out), (2, ""), "{at}: {err}");
        assert_eq!(err.matches("error[").count(), 1, "{at}: {err}");
        assert!(err.contains("a Helm chart: its templates are not rendered"), "{at}: {err}");
        assert!(err.contains(&format!("`--helm {shown}")), "{at}: {err}");
    }
    let umbrella = folder(&[
        ("shop.yaml", SHOP),
        ("app/Chart.yaml", "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies:\n  - name: x\n"),
    ]);
    no_answer(umbrella.path(), &["app/Chart.yaml", "--helm ./app"]);
}

#[test]
fn findings_that_differ_in_place_are_counted_and_policies_come_first() {
    let policies: String = (0..200)
        .map(|n| {
            format!(
                "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{n}, namespace: shop}}\n\
                 spec: {{podSelector: {{}}, ingres: []}}\n"
            )
        })
        .collect();
    let pods: String = (0..200)
        .map(|n| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: x{n}, namespace: shop, lables: {{}}}}\n"
            )
        })
        .collect();
    let dir = folder(&[("a.yaml", &pods), ("shop.yaml", SHOP), ("z.yaml", &policies)]);
    let err = denied(dir.path());
    assert_eq!(err.matches("warning[unknown-field]").count(), 2, "{err}");
    assert!(err.contains("unknown field \"ingres\" (and 199 more like it)"), "{err}");
    assert!(err.find("ingres").unwrap() < err.find("lables").unwrap(), "{err}");
    assert!((0..200).all(|n| err.contains(&format!("NetworkPolicy shop/p{n} ")) || n == 0), "{err}");
}
