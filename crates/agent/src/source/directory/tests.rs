use std::{
    cell::Cell,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    rc::Rc,
    sync::mpsc::channel,
};

use tempfile::TempDir;

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that only [`Clock::sleep`] moves. `after_sleep` is called with the total time.
#[derive(Clone)]
struct TestClock {
    begin: (Instant, SystemTime),
    passed: Rc<Cell<Duration>>,
    after_sleep: Rc<dyn Fn(Duration)>,
}

impl TestClock {
    fn new(after_sleep: impl Fn(Duration) + 'static) -> Self {
        let begin = (Instant::now(), SystemTime::now());
        Self { begin, passed: Rc::default(), after_sleep: Rc::new(after_sleep) }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.begin.0 + self.passed.get()
    }

    fn system_time(&self) -> SystemTime {
        self.begin.1 + self.passed.get()
    }

    fn sleep(&self, duration: Duration) {
        self.passed.set(self.passed.get() + duration);
        (self.after_sleep)(self.passed.get());
    }
}

/// The real clock, for which every file has settled.
struct SettledClock;

impl Clock for SettledClock {
    fn now(&self) -> Instant {
        RealClock.now()
    }

    fn system_time(&self) -> SystemTime {
        RealClock.system_time() + SETTLE_TIME * 2
    }

    fn sleep(&self, duration: Duration) {
        RealClock.sleep(duration);
    }
}

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

/// Replaces a file by renaming another.
fn replace(dir: &TempDir, name: &str, text: &str) {
    let temporary = dir.path().join(".temporary");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, dir.path().join(name)).unwrap();
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.namespaces.keys().map(ToString::to_string).collect()
}

/// A follower that the test runs step by step.
struct Steps<C> {
    follower: Follower<Box<dyn Fn(Delivery) -> bool>, C>,
    events: Receiver<Event>,
}

impl<C: Clock> Steps<C> {
    fn new(dir: &TempDir, clock: C) -> Self {
        let (sender, events) = channel();
        let deliver: Box<dyn Fn(Delivery) -> bool> =
            Box::new(move |delivery| sender.send(delivery.event).is_ok());
        let follower = Follower::new(dir.path().to_owned(), deliver, clock).ok().unwrap();
        Self { follower, events }
    }

    /// Waits for an inotify event. Earlier events have been recorded by then, because they arrive in order.
    fn wait_for_event(&self) -> Instant {
        self.follower.changed.recv_timeout(PATIENCE).unwrap()
    }

    /// Reads the directory as after an edit. Returns the namespaces of the snapshot, the failure, or nothing.
    fn reload(&mut self) -> Result<Option<Vec<String>>, String> {
        let now = self.follower.clock.now();
        self.follower.is_armed = false;
        self.delivered(Some(now))
    }

    /// Does what the follower does next: waits for an event or a time, and reads the directory if it must be read. Returns the same.
    fn after_next(&mut self) -> Result<Option<Vec<String>>, String> {
        let changed = self.follower.next().unwrap();
        self.delivered(changed)
    }

    fn delivered(&mut self, changed: Option<Instant>) -> Result<Option<Vec<String>>, String> {
        assert!(self.follower.reload(changed).is_ok());
        let mut snapshot = None;
        // All of them: a state is delivered once for each kind.
        for event in self.events.try_iter().collect::<Vec<_>>() {
            match event {
                Event::Snapshot(cluster) => snapshot = Some(names(&cluster)),
                Event::Watch { state: WatchState::Failing { why }, .. } => return Err(why),
                _ => {}
            }
        }
        Ok(snapshot)
    }
}

/// A writer that doesn't rename, stopped between two documents: the file is valid, but not what the writer intends.
#[test]
fn a_file_that_is_being_written_is_not_read_because_another_changes() {
    let dir = TempDir::new().unwrap();
    replace(&dir, "in-place.yaml", &(namespace("a") + &namespace("b")));
    replace(&dir, "other.yaml", &namespace("c"));
    let clock = TestClock::new(|_| {});
    clock.sleep(SETTLE_TIME * 2);
    let mut steps = Steps::new(&dir, clock.clone());
    assert_eq!(steps.reload(), Ok(Some(vec!["a".into(), "b".into(), "c".into()])));

    let mut writer = File::create(dir.path().join("in-place.yaml")).unwrap();
    let edit_another = |steps: &Steps<_>| {
        replace(&dir, "other.yaml", &(namespace("c") + &namespace("d")));
        steps.wait_for_event();
    };
    edit_another(&steps);
    assert_eq!(steps.reload(), Ok(None));
    writer.write_all(namespace("a").as_bytes()).unwrap();
    edit_another(&steps);
    clock.sleep(REPORT_AFTER / 2);
    assert_eq!(steps.reload(), Ok(None));
    clock.sleep(REPORT_AFTER / 2);
    let why = steps.reload().unwrap_err();
    assert!(why.contains("in-place.yaml is being written"), "{why}");

    writer.write_all(namespace("b").as_bytes()).unwrap();
    drop(writer);
    // The events of the last edits and of closing the file.
    let begin = Instant::now();
    loop {
        match steps.reload() {
            Ok(Some(names)) => break assert_eq!(names, ["a", "b", "c", "d"]),
            _ => assert!(begin.elapsed() < PATIENCE),
        }
        steps.wait_for_event();
    }
}

/// No event announces the writing: the agent starts in the middle of it.
#[test]
fn a_start_waits_until_files_have_settled() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("in-place.yaml");
    fs::write(&path, namespace("a")).unwrap();
    // Half of the settle time later, the writer continues. The inode's time is the real one, so it has not settled then
    // for as long again.
    let continued = Rc::new(Cell::new(false));
    let clock = TestClock::new({
        let continued = Rc::clone(&continued);
        move |passed| {
            if passed >= SETTLE_TIME / 2 && !continued.replace(true) {
                fs::write(&path, namespace("a") + &namespace("b")).unwrap();
            }
        }
    });
    let (cluster, _) = read_with(dir.path(), &clock).unwrap();
    assert_eq!(names(&cluster), ["a", "b"]);
    assert!(continued.get() && clock.passed.get() >= SETTLE_TIME && clock.passed.get() < REPORT_AFTER);
}

fn followed(dir: &TempDir) -> Receiver<Event> {
    let (sender, events) = channel();
    let deliver = move |delivery: Delivery| sender.send(delivery.event).is_ok();
    follow_with(dir.path().to_owned(), deliver, SettledClock).unwrap();
    events
}

/// Waits for the next snapshot, which must have these namespaces.
#[track_caller]
fn expect_snapshot(events: &Receiver<Event>, expected: &[&str]) {
    loop {
        if let Event::Snapshot(cluster) = events.recv_timeout(PATIENCE).unwrap() {
            return assert_eq!(names(&cluster), expected);
        }
    }
}

#[test]
fn edits_are_read_as_soon_as_the_file_is_closed_or_renamed() {
    let dir = TempDir::new().unwrap();
    replace(&dir, "a.yaml", &namespace("a"));
    let events = followed(&dir);
    expect_snapshot(&events, &["a"]);
    for round in 0..5 {
        replace(&dir, "a.yaml", &namespace(&format!("n{round}")));
        expect_snapshot(&events, &[&format!("n{round}")]);
        fs::write(dir.path().join("a.yaml"), namespace(&format!("m{round}"))).unwrap();
        expect_snapshot(&events, &[&format!("m{round}")]);
    }
}

/// Files that block a reader, or never end.
#[test]
fn files_that_are_not_regular_are_errors_and_block_nothing() {
    let dir = TempDir::new().unwrap();
    replace(&dir, "a.yaml", &namespace("a"));
    // This one is regular, but is never at its end.
    symlink("/proc/kmsg", dir.path().join("kmsg.yaml")).unwrap();
    let file = |name: &str| dir.path().join(name);
    symlink("/dev/zero", file("zero.yaml")).unwrap();
    symlink("/dev/stdin", file("stdin.yaml")).unwrap();
    nix::unistd::mkfifo(&file("pipe.yaml"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(file("socket.yaml")).unwrap();
    let error = error_of(file("pipe.yaml"));
    assert!(error.contains("pipe.yaml") && error.contains("not a regular file"), "{error}");
    // Beside others they are not passed over: each might be a policy. They are read in the order of their names.
    for odd in ["pipe.yaml", "socket.yaml", "stdin.yaml", "zero.yaml"] {
        let error = error_of(dir.path().to_owned());
        assert!(error.contains(odd) && error.contains("not a regular file"), "{odd}: {error}");
        fs::remove_file(file(odd)).unwrap();
    }
    expect_snapshot(&followed(&dir), &["a"]);
    // A link to a regular file is read: this is how ConfigMaps are mounted.
    symlink("a.yaml", dir.path().join("link.yaml")).unwrap();
    let (cluster, findings) = read_with(&dir.path().join("link.yaml"), &SettledClock).unwrap();
    assert_eq!((cluster.namespaces.len(), findings.len()), (1, 0));
}

/// The error of reading a path. Fails if reading doesn't end.
fn error_of(path: PathBuf) -> String {
    let (done, end) = channel();
    thread::spawn(move || done.send(read_with(&path, &SettledClock).unwrap_err().to_string()));
    end.recv_timeout(PATIENCE).unwrap()
}

/// inotify watches the directory: it says nothing of the file behind a link.
#[test]
fn a_change_without_an_event_is_noticed() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = elsewhere.path().join("target");
    fs::write(&target, namespace("a")).unwrap();
    symlink(&target, dir.path().join("link.yaml")).unwrap();
    let clock = TestClock::new(|_| {});
    clock.sleep(SETTLE_TIME * 2);
    let mut steps = Steps::new(&dir, clock.clone());
    assert_eq!(steps.reload(), Ok(Some(vec!["a".into()])));
    // Nothing is read again while nothing changes.
    clock.sleep(COMPARE_INTERVAL);
    assert_eq!(steps.after_next(), Ok(None));
    fs::write(&target, namespace("b")).unwrap();
    clock.sleep(COMPARE_INTERVAL);
    assert_eq!(steps.after_next(), Ok(Some(vec!["b".into()])));
    // Neither is what is invalid, until it changes.
    fs::write(&target, "a: [").unwrap();
    clock.sleep(COMPARE_INTERVAL);
    assert!(steps.after_next().unwrap_err().contains("link.yaml"));
    fs::write(&target, namespace("c")).unwrap();
    assert_eq!(steps.after_next(), Ok(None));
    clock.sleep(COMPARE_INTERVAL);
    assert_eq!(steps.after_next(), Ok(Some(vec!["c".into()])));
}
