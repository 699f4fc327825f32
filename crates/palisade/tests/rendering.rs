//! `-k` and `--helm`: the programs that render, their arguments, their limits, and what is said about them.
//!
//! The programs are scripts that check how they are called. One test runs the real ones.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]
#![cfg(unix)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use support::{palisade, run};
use tempfile::TempDir;

/// What the scripts print: a policy without a namespace, as charts have it, and two pods.
const RENDERED: &str = "\
---
# Source: shop/templates/shop.yaml
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 5432}]}]}
";

/// Makes a folder with a program that prints the manifests if it gets exactly these arguments, separated by spaces.
fn program(name: &str, arguments: &str) -> TempDir {
    let script = format!(
        "[ \"$*\" = '{arguments}' ] || {{ echo \"unexpected: $*\" >&2; exit 7; }}\necho careful >&2\nprintf '%s' '{RENDERED}'\n"
    );
    script_called(name, &script)
}

fn script_called(name: &str, script: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The program with only these programs in `PATH`.
fn with(programs: &Path, words: &str) -> Command {
    let mut command = palisade(words);
    command.env("PATH", programs);
    command
}

#[test]
fn the_rendered_manifests_are_read_and_positions_point_at_them() {
    for (name, arguments, options, file) in [
        ("kubectl", "kustomize overlays/prod", "-k overlays/prod", "kustomize:overlays/prod"),
        ("kustomize", "build overlays/prod", "--kustomize overlays/prod", "kustomize:overlays/prod"),
        ("helm", "template ./chart --namespace=shop", "--helm ./chart -n shop", "helm:./chart"),
        (
            "helm",
            "template web ./chart --namespace=shop --values=a.yaml --values=b.yaml --set=x=1,y={2}",
            "--helm ./chart -n shop --values a.yaml --values b.yaml --set x=1,y={2} --release-name web",
            "helm:./chart",
        ),
    ] {
        let programs = program(name, arguments);
        let (code, out, err) = run(&mut with(programs.path(), &format!("can web db:5432 {options}")));
        assert_eq!(code, 1, "{options}: {out}{err}");
        assert!(out.contains(&format!("/deny ({file}:3)")), "{options}: {out}");
        let command = format!("{name} {arguments}").replace("--set=x=1,y={2}", "'--set=x=1,y={2}'");
        assert_eq!(err, format!("{name}: careful\nnote: {file} is the output of `{command}`\n"), "{options}");
    }
}

#[test]
fn a_program_that_is_missing_fails_or_prints_nothing_gives_no_answer() {
    let empty = TempDir::new().unwrap();
    for (options, part) in [
        ("-k x", "-k needs `kubectl` or `kustomize`, and neither is in PATH"),
        ("--helm x", "--helm needs `helm`, which is not in PATH"),
        ("-k --enable-exec", "unexpected argument"),
        ("-k=--enable-exec", "must not begin with a dash"),
        ("--helm=--post-renderer=x", "must not begin with a dash"),
        ("--values x -f .", "--helm"),
    ] {
        let (code, out, err) = run(&mut with(empty.path(), &format!("can web db:5432 {options}")));
        assert_eq!((code, &*out), (2, ""), "{options}: {err}");
        assert!(err.contains(part), "{options}: {err}");
    }
    for (script, part) in [
        (
            "echo 'no such overlay' >&2; exit 3",
            "kubectl: no such overlay\nerror: `kubectl kustomize x` failed (exit status: 3)",
        ),
        ("exit 0", "`kubectl kustomize x` printed nothing"),
        ("printf '\\377'", "is not UTF-8"),
        ("echo 'kind: Pod'", "kustomize:x:1:1"),
        ("kill -9 $$", "failed (signal: 9"),
    ] {
        let programs = script_called("kubectl", script);
        let (code, out, err) = run(&mut with(programs.path(), "can web db:5432 -k x"));
        assert_eq!((code, &*out), (2, ""), "{script}: {err}");
        assert!(err.contains(part), "{script}: {err}");
    }
    // A program of the repository is not run.
    let here = program("kubectl", "kustomize x");
    let (code, _, err) = run(with(Path::new(".:"), "can web db:5432 -k x").current_dir(here.path()));
    assert_eq!(code, 2);
    assert!(err.contains("neither is in PATH"), "{err}");
}

#[test]
fn a_program_that_does_not_end_is_stopped_and_waiting_is_said() {
    // What it leaves behind keeps its output open.
    let programs = script_called("kubectl", "/bin/sleep 60 & while :; do /bin/sleep 0.1; done");
    let began = std::time::Instant::now();
    let (code, out, err) = run(&mut with(programs.path(), "can web db:5432 -k x --render-timeout 3s"));
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("waiting for `kubectl kustomize x` …"), "{err}");
    assert!(err.contains("did not end within 3 s and was stopped; --render-timeout allows more"), "{err}");
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());

    let programs = script_called(
        "kubectl",
        "while :; do echo '# xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; done | /bin/cat",
    );
    let (code, _, err) = run(&mut with(programs.path(), "can web db:5432 -k x --render-timeout 60s"));
    assert_eq!(code, 2);
    assert!(err.contains("is larger than the limit of 64 MiB"), "{err}");

    // What it leaves behind can't write on: its pipe is closed.
    let marker = programs.path().join("ended");
    let script =
        format!("(trap '' PIPE; while echo x; do :; done 2>/dev/null; echo > {}) & exit 0", marker.display());
    let programs = script_called("kubectl", &script);
    run(&mut with(programs.path(), "can web db:5432 -k x"));
    let ended = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        marker.exists()
    });
    assert!(ended, "the process that the program left behind still writes");
}

#[test]
fn diff_renders_both_sides_and_revisions() {
    let script =
        "case $2 in *new) printf '%s' \"$(/bin/cat \"$2\"/*.yaml)\";; *) /bin/cat \"$2\"/*.yaml;; esac";
    let programs = script_called("kubectl", script);
    let dir = TempDir::new().unwrap();
    let policy = RENDERED.split("---").nth(1).unwrap();
    for (side, text) in [("old", RENDERED.to_owned()), ("new", RENDERED.replace(policy, "\n"))] {
        fs::create_dir(dir.path().join(side)).unwrap();
        fs::write(dir.path().join(side).join("m.yaml"), text).unwrap();
    }
    let (code, out, err) = run(with(programs.path(), "diff -k old new").current_dir(dir.path()));
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("NetworkPolicy default/deny removed (kustomize:old:3)"), "{out}");

    let git = |words: &str| {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(words.split(' '))
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    };
    for words in ["init -q", "add -A", "commit -qm one", "rm -q old/m.yaml", "mv new/m.yaml old/m.yaml"] {
        if words.starts_with("mv") {
            fs::create_dir_all(dir.path().join("old")).unwrap();
        }
        git(words);
    }
    git("commit -qam two");
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let (code, out, err) =
        run(palisade("diff -k --git HEAD~1..HEAD old").env("PATH", path).current_dir(dir.path()));
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("NetworkPolicy default/deny removed (kustomize:HEAD~1:old:3)"), "{out}");
}

/// The real programs, from the folder that tests/cluster/build.sh prints.
#[test]
#[ignore = "needs kubectl and helm: PALISADE_CONTROL_PLANE=$(tests/cluster/build.sh) cargo test --test rendering -- --ignored"]
fn the_real_programs_render_the_layouts() {
    let programs = std::env::var("PALISADE_CONTROL_PLANE")
        .expect("PALISADE_CONTROL_PLANE names the folder of kubectl and helm");
    let layouts = "crates/palisade/tests/layouts";
    for (words, code, part) in [
        (
            format!("can web db:5432 -n shop -k {layouts}/kustomize-overlays/overlays/production"),
            0,
            "overlays/production:",
        ),
        (
            format!("can shop-web shop-db:5432 -n shop --release-name shop --helm {layouts}/helm-chart"),
            0,
            "helm-chart:",
        ),
        (
            format!(
                "can shop-web shop-db:5432 -n shop --release-name shop --helm {layouts}/helm-chart --set open=false"
            ),
            1,
            "helm-chart:",
        ),
    ] {
        let (got, out, err) = run(&mut with(Path::new(&programs), &words));
        assert_eq!(got, code, "{words}: {out}{err}");
        assert!(out.contains(part), "{words}: {out}");
    }
}
