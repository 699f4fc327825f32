//! Files and directories: which are read, which are rejected, and the messages.

use std::{fs, path::Path};

use palisade_manifest::{Code, Input, LoadOptions, Loaded, load};

fn lines(loaded: &Loaded) -> Vec<String> {
    loaded.diagnostics.iter().map(ToString::to_string).collect()
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.cluster.pods.keys().map(|k| &*k.name).collect()
}

fn load_path(path: &Path, options: &LoadOptions) -> Loaded {
    load(&[Input::Path(path.to_owned())], options)
}

#[test]
fn directories_are_read_recursively_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("b/c")).unwrap();
    fs::create_dir_all(at("..data")).unwrap();
    for (file, name) in [
        ("a.yaml", "a"),
        ("b/b.yml", "b"),
        ("b/c/c.json", "c"),
        ("z.yaml", "z"),
        ("notes.txt", "named"),
        (".x.yaml", "hidden"),
        ("..data/d.yaml", "hidden"),
    ] {
        fs::write(at(file), pod(name)).unwrap();
    }
    let loaded = load_path(dir.path(), &LoadOptions::default());
    assert_eq!(lines(&loaded), [""; 0]);
    assert_eq!(names(&loaded), ["a", "b", "c", "z"]);
    assert_eq!(loaded.counts.files, 4);
    let files: Vec<String> =
        loaded.origins.values().map(|s| s.file.replace(&dir.path().display().to_string(), "")).collect();
    assert_eq!(files, ["/a.yaml", "/b/b.yml", "/b/c/c.json", "/z.yaml"]);
    assert_eq!(
        names(&load_path(&at("notes.txt"), &LoadOptions::default())),
        ["named"],
        "what is named is read"
    );
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_followed_and_cycles_end() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("real/deep")).unwrap();
    fs::write(at("real/deep/p.yaml"), pod("p")).unwrap();
    fs::write(at("elsewhere"), pod("linked")).unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("real/q.yaml")).unwrap();
    std::os::unix::fs::symlink(dir.path(), at("real/deep/up")).unwrap();
    std::os::unix::fs::symlink(at("real/deep"), at("real/deep/self")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("real/dangling.yaml")).unwrap();
    let loaded = load_path(&at("real"), &LoadOptions::default());
    assert_eq!(names(&loaded), ["linked", "p"]);
    let errors = loaded.diagnostics.iter().filter(|d| d.code == Code::NotReadable).count();
    assert!(errors >= 1 && loaded.has_errors(), "the dangling link is reported: {:#?}", lines(&loaded));
}

#[test]
fn a_file_is_read_once_however_often_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("p.yaml"), pod("p")).unwrap();
    fs::write(at("values.yaml"), "replicas: 2\n").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("p.yaml", at("q.yaml")).unwrap();
    #[cfg(not(unix))]
    fs::write(at("q.yaml"), "").unwrap();
    let of = |paths: &[&str]| {
        let inputs: Vec<Input> = paths.iter().map(|path| Input::Path(at(path))).collect();
        load(&inputs, &LoadOptions::default())
    };
    for paths in
        [&["p.yaml", "p.yaml"][..], &["", "p.yaml"], &["p.yaml", ""], &["", ""], &["./p.yaml", "p.yaml"]]
    {
        let loaded = of(paths);
        assert_eq!((lines(&loaded), names(&loaded)), (Vec::new(), vec!["p"]), "{paths:?}");
        assert!(loaded.notes.iter().any(|note| note.code == "read-before"), "{:?}", loaded.notes);
    }
    // What was passed over in a directory is an error by its name.
    assert!(of(&["", "values.yaml"]).has_errors());
    assert_eq!(lines(&of(&["p.yaml"])), [""; 0]);
}

#[test]
fn unreadable_files_are_reported_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("good.yaml"), pod("good")).unwrap();
    fs::write(at("latin.yaml"), b"# caf\xe9\nkind: Pod\n").unwrap();
    fs::write(at("utf16.yaml"), b"\xff\xfea\0:\0").unwrap();
    let inputs = [Input::Path(dir.path().to_owned()), Input::Path(at("missing.yaml"))];
    let loaded = load(&inputs, &LoadOptions::default());
    assert_eq!(names(&loaded), ["good"]);
    let codes: Vec<Code> = loaded.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::NotUtf8, Code::NotUtf8, Code::NotReadable]);
    let found = lines(&loaded);
    assert!(found[0].ends_with("latin.yaml:1:1: error: is not UTF-8 at byte 5"), "{}", found[0]);
    assert!(found[2].contains("missing.yaml: error: can't be read: "), "{}", found[2]);
}

#[test]
fn files_over_the_limit_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.yaml");
    // A sparse file of 200 MB. Reading it would take noticeable time and memory.
    fs::File::create(&path).unwrap().set_len(200 << 20).unwrap();
    fs::write(dir.path().join("small.yaml"), pod("small")).unwrap();
    let loaded = load_path(dir.path(), &LoadOptions::default());
    assert_eq!(names(&loaded), ["small"]);
    assert_eq!(loaded.diagnostics[0].code, Code::TooLarge);
    assert!(
        lines(&loaded)[0].ends_with("huge.yaml: error: is larger than the limit of 64 MiB"),
        "{:?}",
        lines(&loaded)
    );
    let tight = LoadOptions { max_file_bytes: 10, ..LoadOptions::default() };
    assert_eq!(load_path(dir.path(), &tight).diagnostics.len(), 2);
}

/// Links between directories multiply the files below them. The search ends with an error.
#[test]
fn too_many_files_through_links_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for level in 0..8 {
        let at = dir.path().join(level.to_string());
        fs::create_dir(&at).unwrap();
        fs::write(at.join("pod.yaml"), pod("p")).unwrap();
        for link in 0..10 {
            let next = format!("../{}", level + 1);
            std::os::unix::fs::symlink(next, at.join(format!("to{link}"))).unwrap();
        }
    }
    fs::create_dir(dir.path().join("8")).unwrap();
    let options = LoadOptions { max_files: 500, ..LoadOptions::default() };
    let loaded = load_path(&dir.path().join("0"), &options);
    let last = loaded.diagnostics.iter().find(|d| d.code == Code::TooLarge).unwrap().to_string();
    assert!(last.contains("more than 500 files and directories"), "{last}");
    assert_eq!(palisade_manifest::files(&dir.path().join("7"), &options).len(), 1);
}
