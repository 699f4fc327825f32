use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    sync::mpsc::{RecvTimeoutError, channel},
};

use tempfile::TempDir;

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a file takes to settle, and shorter than it may take.
const LONG: Duration = Duration::from_millis(2000);
const _: () = assert!(SETTLE.as_millis() < LONG.as_millis() && LONG.as_millis() < UNSETTLED.as_millis());

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

/// Replaces a file at once.
fn replace(dir: &TempDir, name: &str, text: &str) {
    let fresh = dir.path().join(".fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, dir.path().join(name)).unwrap();
}

fn followed(dir: &TempDir) -> Receiver<Event> {
    let (sender, events) = channel();
    follow(dir.path().to_owned(), move |heard| sender.send(heard.event).is_ok()).unwrap();
    events
}

/// The names of the namespaces of the next snapshot.
fn next(events: &Receiver<Event>, patience: Duration) -> Result<Vec<String>, RecvTimeoutError> {
    let begin = Instant::now();
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        if let Event::Snapshot(cluster) = events.recv_timeout(left)? {
            return Ok(cluster.namespaces.keys().map(ToString::to_string).collect());
        }
    }
}

/// Waits for a snapshot with these namespaces; none other may come before.
#[track_caller]
fn until(events: &Receiver<Event>, wanted: &[&str], meanwhile: &[&[&str]]) {
    loop {
        let got = next(events, PATIENCE).unwrap();
        if got == wanted {
            return;
        }
        assert!(meanwhile.iter().any(|names| got == *names), "{got:?}");
    }
}

fn failure(events: &Receiver<Event>) -> String {
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            Event::Watch { state: WatchState::Failing { why }, .. } => return why,
            Event::Snapshot(cluster) => panic!("{:?}", cluster.namespaces.keys()),
            _ => {}
        }
    }
}

/// A writer that doesn't rename, stopped between two documents: what is there is valid, and not what is meant.
#[test]
fn a_file_that_is_being_written_is_not_taken_in_because_another_changes() {
    let dir = TempDir::new().unwrap();
    let whole = namespace("a") + &namespace("b");
    replace(&dir, "in-place.yaml", &whole);
    replace(&dir, "other.yaml", &namespace("c"));
    let events = followed(&dir);
    until(&events, &["a", "b", "c"], &[]);
    let mut writer = File::create(dir.path().join("in-place.yaml")).unwrap();
    let edit_another = || replace(&dir, "other.yaml", &(namespace("c") + &namespace("d")));
    edit_another();
    assert_eq!(next(&events, LONG), Err(RecvTimeoutError::Timeout));
    writer.write_all(namespace("a").as_bytes()).unwrap();
    edit_another();
    // Nothing is taken in until it is said why.
    let why = failure(&events);
    assert!(why.contains("in-place.yaml is being written"), "{why}");
    edit_another();
    writer.write_all(namespace("b").as_bytes()).unwrap();
    drop(writer);
    until(&events, &["a", "b", "c", "d"], &[]);
}

/// Nobody told of the writing: the agent starts in the middle of it.
#[test]
fn a_start_waits_until_files_have_settled() {
    let dir = TempDir::new().unwrap();
    let mut writer = File::create(dir.path().join("in-place.yaml")).unwrap();
    writer.write_all(namespace("a").as_bytes()).unwrap();
    let events = followed(&dir);
    let once = thread::spawn({
        let path = dir.path().to_owned();
        move || read(&path).unwrap().0.namespaces.len()
    });
    thread::sleep(Duration::from_millis(300));
    writer.write_all(namespace("b").as_bytes()).unwrap();
    drop(writer);
    until(&events, &["a", "b"], &[]);
    assert_eq!(once.join().unwrap(), 2);
}

#[test]
fn edits_that_replace_a_file_are_taken_in_at_once() {
    let dir = TempDir::new().unwrap();
    replace(&dir, "a.yaml", &namespace("a"));
    let events = followed(&dir);
    until(&events, &["a"], &[]);
    let begin = Instant::now();
    for round in 0..5 {
        replace(&dir, "a.yaml", &namespace(&format!("n{round}")));
        until(&events, &[&format!("n{round}")], &[]);
        fs::write(dir.path().join("a.yaml"), namespace(&format!("m{round}"))).unwrap();
        until(&events, &[&format!("m{round}")], &[]);
    }
    // Ten edits: had each waited until its file is old, it would be ten seconds.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

/// What blocks a reader, or never ends.
#[test]
fn what_is_no_regular_file_is_passed_over() {
    let dir = TempDir::new().unwrap();
    replace(&dir, "a.yaml", &namespace("a"));
    symlink("/proc/kmsg", dir.path().join("kmsg.yaml")).unwrap();
    symlink("/dev/zero", dir.path().join("zero.yaml")).unwrap();
    symlink("/dev/stdin", dir.path().join("stdin.yaml")).unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket.yaml")).unwrap();
    let (done, end) = channel();
    let path = dir.path().to_owned();
    thread::spawn(move || {
        let pipe = read(&path.join("pipe.yaml")).unwrap_err().to_string();
        done.send((read(&path).unwrap().0.namespaces.len(), pipe))
    });
    let (namespaces, pipe) = end.recv_timeout(PATIENCE).unwrap();
    assert_eq!(namespaces, 1);
    assert!(pipe.contains("pipe.yaml") && pipe.contains("not a regular file"), "{pipe}");
    until(&followed(&dir), &["a"], &[]);
    // A link to a file is one: ConfigMaps are mounted so.
    symlink("a.yaml", dir.path().join("link.yaml")).unwrap();
    let (cluster, findings) = read(&dir.path().join("link.yaml")).unwrap();
    assert_eq!((cluster.namespaces.len(), findings.len()), (1, 0));
}
