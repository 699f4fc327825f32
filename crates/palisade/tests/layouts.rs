//! Repositories as people have them: each gives an answer, or exit code 2 with the one thing to do, never silence.

mod support;

use std::collections::BTreeSet;

use support::{palisade, root, run};

const FOLDER: &str = "crates/palisade/tests/layouts";

/// What a layout gives.
enum Gives {
    /// An answer, with these notes and no other message.
    Answer(&'static [&'static str]),
    /// No answer, and what to do.
    NoAnswer(&'static [&'static str]),
}

use Gives::{Answer, NoAnswer};

/// Each layout, and what it gives.
const LAYOUTS: &[(&str, Gives)] = &[
    ("plain", Answer(&[])),
    ("helm-chart", NoAnswer(&["a Helm chart: its templates are not rendered", "--helm LAYOUT"])),
    ("helm-rendered", Answer(&[])),
    ("kustomize-base", Answer(&["note: 1 file is not a Kubernetes manifest: kustomization.yaml"])),
    (
        "kustomize-overlays",
        NoAnswer(&[
            "a kustomization: namespace and patches are not applied",
            "-k LAYOUT/overlays/production",
            "-k LAYOUT/overlays/staging",
        ]),
    ),
    (
        "flux",
        NoAnswer(&["a kustomization: namespace and patches are not applied", "-k LAYOUT/apps/production"]),
    ),
    ("argocd", NoAnswer(&["3 Application", "the manifests have no pods"])),
    ("operators", Answer(&["Prometheus", "Cluster"])),
    ("jsonnet-list", Answer(&["note: 1 template is not read: shop.jsonnet"])),
    ("jsonnet-array", NoAnswer(&["policies.json:1:1", "objects in an array", "makes a List of them"])),
    ("dump", Answer(&[])),
    ("monorepo", Answer(&["note: 7 files are not Kubernetes manifests: "])),
    ("templates", NoAnswer(&["k8s/policies.yaml:", "envsubst"])),
    ("merge-conflict", NoAnswer(&["policies.yaml:", "merge conflict"])),
];

#[test]
fn every_layout_is_listed() {
    let folders = std::fs::read_dir(root().join(FOLDER)).unwrap();
    let folders: BTreeSet<String> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let listed: BTreeSet<String> = LAYOUTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, listed);
}

#[test]
fn each_gives_an_answer_or_the_one_thing_to_do() {
    for (name, gives) in LAYOUTS {
        let path = format!("{FOLDER}/{name}");
        // Only one of them has no database of its own.
        let question =
            if *name == "operators" { "can shop/web internet:443" } else { "can shop/web shop/db:5432" };
        for verb in ["connections", "overview", question] {
            let words = format!("{verb} -f {path}");
            let (code, out, err) = run(&mut palisade(&words));
            match gives {
                Answer(notes) => {
                    assert_eq!(code, 0, "{words}: {out}{err}");
                    assert!(!out.trim().is_empty(), "{words}");
                    assert!(!err.contains("error") && !err.contains("warning"), "{words}: {err}");
                    assert!(notes.iter().all(|note| err.contains(note)), "{words}: {err}");
                }
                NoAnswer(parts) => {
                    assert_eq!((code, &*out), (2, ""), "{words}: {err}");
                    for part in *parts {
                        let part = part.replace("LAYOUT", &path);
                        assert!(err.contains(&part), "{words}: no {part:?} in {err}");
                    }
                }
            }
        }
    }
}

/// The policies are in force: the opposite direction is denied.
#[test]
fn answers_have_the_policies() {
    for (name, gives) in LAYOUTS {
        if matches!(gives, Answer(_)) && !matches!(*name, "operators" | "dump") {
            let (code, out, err) =
                run(&mut palisade(&format!("can shop/db shop/web:8080 -f {FOLDER}/{name}")));
            assert_eq!(code, 1, "{name}: {out}{err}");
            assert!(out.contains("default-deny"), "{name}: {out}");
        }
    }
}
