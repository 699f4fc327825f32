//! Installs the plugin: its program, and its place in the first CNI configuration of the node, which is the one that runtimes use.
//!
//! If the configuration is a list of plugins (`.conflist`), the plugin is added to it. If it is a single plugin (`.conf`), a list with both is
//! written under a name that sorts first. The original file stays: removing the list restores the former state, and the network plugin can
//! still update its file. Files are replaced by renaming, so that a runtime never reads half of one.

use std::{
    ffi::OsStr,
    fs, io,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    chain::{ChainError, Entry, PLUGIN_NAME, has_entry, list_of, with_entry, without_entry},
    file,
};

/// The list that is made of a single plugin's configuration. It precedes names with digits, as almost all have.
const DERIVED: &str = "0-palisade.conflist";
/// The endings of files that runtimes read.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];
/// How often a file is read again that another program changes at the same time.
const ATTEMPTS: usize = 3;
/// The largest configuration in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why the plugin isn't installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file can't be written, or the program can't be read.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A configuration can't be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No network is configured yet.
    #[error("{} has no CNI configuration (*.conf, *.conflist, *.json)", .0.display())]
    NoConfiguration(PathBuf),
    /// The first configuration can't have the plugin.
    #[error("{}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ChainError,
    },
    /// The list's name would not precede that of the single plugin.
    #[error("{} would not precede {}: rename that, or make it a .conflist", DERIVED, .0.display())]
    NotFirst(PathBuf),
    /// Other programs write the file all the time.
    #[error("{} changes all the time", .0.display())]
    Busy(PathBuf),
}

impl InstallError {
    /// Whether nothing helps but that another program changes the configuration. Nothing was written then.
    pub(crate) fn is_of_configuration(&self) -> bool {
        match self {
            Self::NoConfiguration(_)
            | Self::Unreadable { .. }
            | Self::Configuration { .. }
            | Self::NotFirst(_) => true,
            Self::Io { .. } | Self::Busy(_) => false,
        }
    }
}

/// What an installation found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// Everything is in place.
    Already,
    /// The plugin was added to this file.
    Added(PathBuf),
}

/// The directories, and what is installed there.
#[derive(Clone, Debug)]
pub(crate) struct Installer {
    pub(crate) configurations: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) entry: Entry,
}

impl Installer {
    /// Installs this process's program, if it isn't there.
    pub(crate) fn install_program(&self) -> Result<(), InstallError> {
        let program = Path::new("/proc/self/exe");
        let target = self.programs.join(PLUGIN_NAME);
        if is_copy(program, &target).unwrap_or(false) {
            return Ok(());
        }
        fs::create_dir_all(&self.programs).map_err(failed("create", &self.programs))?;
        let mut source = fs::File::open(program).map_err(failed("read", program))?;
        replace(&target, &mut source, 0o755)
    }

    /// Whether the program is there, by its size.
    pub(crate) fn has_program(&self) -> bool {
        let length = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.len());
        let target = length(&self.programs.join(PLUGIN_NAME));
        target.is_some() && target == length(Path::new("/proc/self/exe"))
    }

    /// Adds the plugin to the first configuration.
    pub(crate) fn install_configuration(&self) -> Result<Installed, InstallError> {
        let first = first(&self.configurations)?;
        let derived = self.configurations.join(DERIVED);
        if first.extension().is_some_and(|ending| ending == "conflist") {
            let added = edit(&first, |text| with_entry(text, &self.entry))?;
            // The list of a single plugin that is not the first any more.
            remove_if(&derived, has_entry)?;
            return Ok(if added { Installed::Added(first) } else { Installed::Already });
        }
        if first.file_name() <= Some(OsStr::new(DERIVED)) {
            return Err(InstallError::NotFirst(first));
        }
        let list = list_of(&read(&first)?, &self.entry)
            .map_err(|source| InstallError::Configuration { path: first.clone(), source })?;
        if read(&derived).is_ok_and(|present| present == list) {
            return Ok(Installed::Already);
        }
        replace(&derived, &mut list.as_bytes(), mode(&first))?;
        Ok(Installed::Added(derived))
    }
}

/// Removes the plugin from all configurations, and its program. Returns whether there was any.
pub(crate) fn uninstall(configurations: &Path, programs: &Path) -> Result<bool, InstallError> {
    // The configuration first: a runtime that reads it needs the program.
    let mut was_there = remove_if(&configurations.join(DERIVED), has_entry)?;
    for path in files(configurations)? {
        // Not ours, whatever it is.
        if !read(&path).is_ok_and(|text| has_entry(&text)) {
            continue;
        }
        was_there |= edit(&path, without_entry)?;
    }
    let program = programs.join(PLUGIN_NAME);
    match fs::remove_file(&program) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(was_there),
        Err(source) => Err(InstallError::Io { doing: "remove", path: program, source }),
    }
}

/// The file that runtimes use.
fn first(directory: &Path) -> Result<PathBuf, InstallError> {
    let none = || InstallError::NoConfiguration(directory.to_owned());
    files(directory)?.into_iter().find(|path| path.file_name() != Some(OsStr::new(DERIVED))).ok_or_else(none)
}

/// The configurations, in the order in which runtimes read them.
fn files(directory: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(InstallError::Io { doing: "list", path: directory.to_owned(), source }),
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) && !path.is_dir()
    });
    let mut paths: Vec<PathBuf> = paths.collect();
    paths.sort();
    Ok(paths)
}

/// Edits a file that others edit too. Returns whether it changed.
fn edit(
    path: &Path,
    change: impl Fn(&str) -> Result<Option<String>, ChainError>,
) -> Result<bool, InstallError> {
    // A link stays a link.
    let path = fs::canonicalize(path)
        .map_err(|source| InstallError::Unreadable { path: path.to_owned(), source })?;
    for _ in 0..ATTEMPTS {
        let before = read(&path)?;
        let edited =
            change(&before).map_err(|source| InstallError::Configuration { path: path.clone(), source })?;
        let Some(after) = edited else { return Ok(false) };
        if read(&path)? == before {
            replace(&path, &mut after.as_bytes(), mode(&path))?;
            return Ok(true);
        }
    }
    Err(InstallError::Busy(path))
}

fn read(path: &Path) -> Result<String, InstallError> {
    let bytes = file::read(path, MAX_BYTES)
        .map_err(|source| InstallError::Unreadable { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| InstallError::Configuration {
        path: path.to_owned(),
        source: ChainError::NotJson(error.to_string()),
    })
}

/// Whether two files have the same content. They are not read into memory, of which the agent has little.
fn is_copy(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut left)?;
        let Some(expected) = right.get_mut(..read) else { return Ok(false) };
        other.read_exact(expected)?;
        if left.get(..read) != Some(&*expected) {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o777)
}

/// Replaces a file. Runtimes don't read the name that it has until it is whole.
fn replace(path: &Path, content: &mut impl io::Read, mode: u32) -> Result<(), InstallError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.palisade-new"));
    crate::replace::replace(path, &fresh, mode, content).map_err(failed("write", path))
}

/// Removes a file if its text is as expected. Returns whether it did.
fn remove_if(path: &Path, is_expected: impl Fn(&str) -> bool) -> Result<bool, InstallError> {
    if !read(path).is_ok_and(|text| is_expected(&text)) {
        return Ok(false);
    }
    fs::remove_file(path).map_err(failed("remove", path))?;
    Ok(true)
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> InstallError + use<> {
    let path = path.to_owned();
    move |source| InstallError::Io { doing, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}]}"#;
    const SINGLE: &str = r#"{"cniVersion":"1.0.0","name":"pods","type":"bridge"}"#;

    fn installer(dir: &Path) -> Installer {
        let (configurations, programs) = (dir.join("net.d"), dir.join("bin"));
        fs::create_dir(&configurations).unwrap();
        Installer { configurations, programs, entry: Entry::new(&Config::default()) }
    }

    #[test]
    fn the_first_list_is_edited_again_after_another_program_rewrote_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let installer = installer(dir.path());
        let (net, path) = (&installer.configurations, installer.configurations.join("10-net.conflist"));
        assert!(matches!(installer.install_configuration(), Err(InstallError::NoConfiguration(_))));
        fs::write(net.join("20-other.conflist"), LIST).unwrap();
        fs::write(&path, LIST).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(net.join("05-readme.txt"), "no configuration").unwrap();
        for _ in 0..2 {
            assert_eq!(installer.install_configuration().unwrap(), Installed::Added(path.clone()));
            assert_eq!(installer.install_configuration().unwrap(), Installed::Already);
            assert_eq!(mode(&path), 0o640);
            assert_eq!(fs::read_to_string(net.join("20-other.conflist")).unwrap(), LIST);
            fs::write(&path, LIST).unwrap();
        }
        installer.install_configuration().unwrap();
        assert!(uninstall(net, &installer.programs).unwrap());
        assert!(!has_entry(&fs::read_to_string(&path).unwrap()));
        assert!(!uninstall(net, &installer.programs).unwrap());
        assert_eq!(fs::read_dir(net).unwrap().count(), 3);
    }

    #[test]
    fn a_single_plugin_stays_and_a_list_precedes_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let installer = installer(dir.path());
        let net = &installer.configurations;
        let (single, derived) = (net.join("10-net.conf"), net.join(DERIVED));
        fs::write(&single, SINGLE).unwrap();
        assert_eq!(installer.install_configuration().unwrap(), Installed::Added(derived.clone()));
        assert_eq!(installer.install_configuration().unwrap(), Installed::Already);
        assert_eq!(files(net).unwrap()[0], derived);
        assert_eq!(fs::read_to_string(&single).unwrap(), SINGLE);
        // Its writer changes it, then replaces it by a list.
        fs::write(&single, SINGLE.replace("bridge", "ptp")).unwrap();
        assert_eq!(installer.install_configuration().unwrap(), Installed::Added(derived.clone()));
        assert!(fs::read_to_string(&derived).unwrap().contains("ptp"));
        fs::remove_file(&single).unwrap();
        fs::write(net.join("10-net.conflist"), LIST).unwrap();
        installer.install_configuration().unwrap();
        assert!(!derived.exists());
        fs::remove_file(net.join("10-net.conflist")).unwrap();
        fs::write(&single, SINGLE).unwrap();
        installer.install_configuration().unwrap();
        assert!(uninstall(net, &installer.programs).unwrap());
        assert_eq!(files(net).unwrap(), [single]);
    }

    #[test]
    fn what_is_no_configuration_is_left_as_it_is() {
        let dir = tempfile::TempDir::new().unwrap();
        let installer = installer(dir.path());
        let path = installer.configurations.join("10-net.conflist");
        for text in ["", "{", "[]", "\u{feff}{}"] {
            fs::write(&path, text).unwrap();
            let error = installer.install_configuration().unwrap_err();
            assert!(matches!(error, InstallError::Configuration { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            uninstall(&installer.configurations, &installer.programs).unwrap();
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(installer.install_configuration().is_err());
        fs::remove_file(&path).unwrap();
        // What a runtime could not read either.
        for target in ["/dev/zero", "gone"] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            let error = installer.install_configuration().unwrap_err();
            assert!(error.is_of_configuration(), "{error}");
            uninstall(&installer.configurations, &installer.programs).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
            fs::remove_file(&path).unwrap();
        }
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(installer.install_configuration().is_err());
        fs::remove_file(&path).unwrap();
        let early = installer.configurations.join("0-a.conf");
        fs::write(&early, SINGLE).unwrap();
        assert!(matches!(installer.install_configuration(), Err(InstallError::NotFirst(_))));
    }
}
