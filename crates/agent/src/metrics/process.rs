//! What the process itself uses, from `/proc/self` (proc(5)).

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Figures of this process.
pub(super) struct Figures {
    pub(super) resident_bytes: i64,
    pub(super) cpu_seconds: f64,
}

/// Reads them; none where `/proc` is not what it should be.
pub(super) fn read() -> Option<Figures> {
    let unit = |var| sysconf(var).ok().flatten();
    let pages: i64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, in parentheses, and may hold anything; what follows begins with the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok());
    // utime and stime are fields 14 and 15.
    let used = ticks(11)? + ticks(12)?;
    Some(Figures {
        resident_bytes: pages * unit(SysconfVar::PAGE_SIZE)?,
        cpu_seconds: used as f64 / unit(SysconfVar::CLK_TCK)? as f64,
    })
}
