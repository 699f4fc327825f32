//! Layers made of the machine's own programs, with the libraries that these need.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::layout::{Layer, LayerBuilder};

/// Programs that the suites start in containers: (name, name on the machine, Debian package).
const PROGRAMS: [(&str, &str, &str); 42] = [
    ("[", "[", "coreutils"),
    ("bash", "bash", "bash"),
    ("cat", "cat", "coreutils"),
    ("chmod", "chmod", "coreutils"),
    ("cp", "cp", "coreutils"),
    ("curl", "curl", "curl"),
    ("cut", "cut", "coreutils"),
    ("date", "date", "coreutils"),
    ("dd", "dd", "coreutils"),
    ("echo", "echo", "coreutils"),
    ("env", "env", "coreutils"),
    ("expr", "expr", "coreutils"),
    ("false", "false", "coreutils"),
    ("grep", "grep", "grep"),
    ("head", "head", "coreutils"),
    ("hostname", "hostname", "hostname"),
    ("id", "id", "coreutils"),
    ("ip", "ip", "iproute2"),
    ("ls", "ls", "coreutils"),
    ("mkdir", "mkdir", "coreutils"),
    ("mktemp", "mktemp", "coreutils"),
    ("mv", "mv", "coreutils"),
    // The suites use options that the other one doesn't have.
    ("nc", "nc.openbsd", "netcat-openbsd"),
    ("nslookup", "nslookup", "bind9-dnsutils"),
    ("printf", "printf", "coreutils"),
    ("rm", "rm", "coreutils"),
    ("sed", "sed", "sed"),
    ("seq", "seq", "coreutils"),
    ("sh", "dash", "dash"),
    ("sleep", "sleep", "coreutils"),
    ("sort", "sort", "coreutils"),
    ("ss", "ss", "iproute2"),
    ("tail", "tail", "coreutils"),
    ("tee", "tee", "coreutils"),
    ("test", "test", "coreutils"),
    ("timeout", "timeout", "coreutils"),
    ("touch", "touch", "coreutils"),
    ("tr", "tr", "coreutils"),
    ("true", "true", "coreutils"),
    ("uniq", "uniq", "coreutils"),
    ("wc", "wc", "coreutils"),
    ("wget", "wget", "wget"),
];
const FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A shell with the programs that the suites start in containers.
///
/// # Errors
/// If one is missing, with the Debian packages that have what is missing.
pub(super) fn shell() -> Result<Layer> {
    check()?;
    let mut builder = LayerBuilder::default();
    let mut libraries = BTreeSet::new();
    for (name, here, _) in PROGRAMS {
        let path = find(here).with_context(|| format!("no program {here}"))?;
        builder.program(&path, &format!("/bin/{name}"))?;
        libraries.extend(libraries_of(&path)?);
    }
    for library in libraries {
        builder.program(Path::new(&library), &library)?;
    }
    builder.text("/etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    builder.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    builder.text("/etc/nsswitch.conf", "hosts: files dns\n")?;
    builder.folder("/root", 0o700)?;
    builder.folder("/tmp", 0o1777)?;
    builder.folder("/uploads", 0o755)?;
    builder.finish()
}

/// Fails if one of the programs in the images is missing.
pub(super) fn check() -> Result<()> {
    let missing: BTreeSet<&str> =
        PROGRAMS.iter().filter(|(_, here, _)| find(here).is_none()).map(|(_, _, package)| *package).collect();
    let missing = Vec::from_iter(missing).join(" ");
    ensure!(missing.is_empty(), "the suites' images need programs of the machine: apt-get install {missing}");
    Ok(())
}

/// A program at this path, with its libraries.
///
/// # Errors
/// If it can't be read.
pub(super) fn program(file: &Path, path: &str) -> Result<Layer> {
    let mut builder = LayerBuilder::default();
    builder.program(file, path)?;
    for library in libraries_of(file)? {
        builder.program(Path::new(&library), &library)?;
    }
    builder.finish()
}

fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// The paths of the libraries that a program is linked with, and of the loader.
fn libraries_of(program: &Path) -> Result<BTreeSet<String>> {
    let output =
        Command::new("ldd").arg(program).output().context("cannot start ldd (Debian package libc-bin)")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        // What it says of a static program.
        ensure!(errors.contains("not a dynamic executable"), "ldd {}: {}", program.display(), errors.trim());
        return Ok(BTreeSet::new());
    }
    libraries_in(&String::from_utf8(output.stdout)?).with_context(|| format!("ldd {}", program.display()))
}

fn libraries_in(text: &str) -> Result<BTreeSet<String>> {
    let mut libraries = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)",
        // "linux-vdso.so.1 (0x…)", which the kernel has, and "statically linked".
        if line.ends_with("=> not found") {
            bail!("{line}");
        }
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        if path.starts_with('/') {
            libraries.insert(path.to_owned());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_of_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(String::from);
        assert_eq!(libraries_in(text).expect("paths"), expected.into());
        assert_eq!(libraries_in("\tstatically linked\n").expect("no paths"), BTreeSet::new());
        let error = libraries_in("\tlibx.so.1 => not found\n").expect_err("a missing library");
        assert!(error.to_string().contains("libx.so.1"));
    }

    #[test]
    fn a_program_comes_with_what_it_is_linked_with() {
        let libraries = libraries_of(Path::new("/proc/self/exe")).expect("libraries");
        assert!(libraries.iter().all(|l| Path::new(l).exists()));
    }
}
