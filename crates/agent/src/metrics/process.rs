//! Memory and CPU time of this process, from `/proc/self` (proc(5)).

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Resource usage of this process.
pub(super) struct Usage {
    pub(super) resident_bytes: i64,
    pub(super) cpu_seconds: f64,
}

/// Reads the usage. `None` if `/proc` is not as expected.
pub(super) fn usage() -> Option<Usage> {
    let unit = |var| sysconf(var).ok().flatten();
    let pages: i64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may contain any character. The rest begins with the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok());
    // utime and stime are fields 14 and 15.
    let used = ticks(11)? + ticks(12)?;
    Some(Usage {
        resident_bytes: pages * unit(SysconfVar::PAGE_SIZE)?,
        cpu_seconds: used as f64 / unit(SysconfVar::CLK_TCK)? as f64,
    })
}
