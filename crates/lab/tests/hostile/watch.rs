//! Nothing of a denied conversation arrives anywhere: captures at all its ends.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;

use crate::{
    ensure,
    talk::Talks,
    tap::{Ends, Tap},
    world::World,
};

/// How long denied conversations are watched. Keepalives go out each second, retransmissions at least so often.
const WATCH: Duration = Duration::from_millis(1600);
/// So many lines of what went wrong are shown.
const SHOWN: usize = 12;

/// Captures at both ends of everything that is denied.
pub(crate) struct Watch {
    pub(crate) taps: BTreeMap<&'static str, Tap>,
}

impl Watch {
    /// Opens the captures.
    pub(crate) fn open(world: &World) -> Result<Self, Failed> {
        let places = ["srv", "bad", "open", "iso", "both", "far-bad", "outside"];
        let taps = places.into_iter().map(|name| Ok((name, Tap::open(world, name)?)));
        Ok(Self { taps: taps.collect::<Result<_, Failed>>()? })
    }

    /// Fails if a packet of a denied conversation arrives anywhere while it is watched.
    pub(crate) fn nothing_denied_arrives(&self, talks: &Talks, when: &str) -> Result<(), Failed> {
        let denied: BTreeMap<Ends, String> = talks.with(|all| {
            let denied = all.iter().filter(|t| !t.spec.allowed);
            denied.flat_map(|t| [t.ends, t.ends.reversed()].map(|ends| (ends, t.to_string()))).collect()
        });
        self.taps.values().try_for_each(Tap::drain)?;
        let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
        let begin = Instant::now();
        while begin.elapsed() < WATCH {
            thread::sleep(Duration::from_millis(20));
            for (name, tap) in &self.taps {
                let incoming = tap.take()?.into_iter().filter(|f| f.incoming);
                for talk in incoming.filter_map(|f| denied.get(&f.ends()?)) {
                    *arrived.entry(format!("{talk}: at {name}")).or_default() += 1;
                }
            }
        }
        let number = denied.len() / 2;
        println!(
            "{when}: packets of {} of {number} denied conversations at one end or the other",
            arrived.len()
        );
        ensure(arrived.is_empty(), || {
            let lines = arrived.iter().map(|(what, n)| format!("{what}: {n} packets"));
            let (lines, number): (Vec<String>, _) = (lines.take(SHOWN).collect(), arrived.len());
            format!(
                "{when}: packets of denied conversations arrive at {number} ends:\n  {}",
                lines.join("\n  ")
            )
        })
    }
}

/// Everything is checked, and all that fails is told.
#[derive(Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Notes a failure, if it is one.
    pub(crate) fn note(&mut self, outcome: Result<(), Failed>) {
        if let Err(e) = outcome {
            self.0.push(e.message().unwrap_or("failed").to_owned());
        }
    }

    /// Fails if anything did.
    pub(crate) fn into_result(self) -> Result<(), Failed> {
        ensure(self.0.is_empty(), || self.0.join("\n"))
    }
}
