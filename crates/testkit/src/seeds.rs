//! Seeds for property tests: fixed ones, and a fresh one for each run.

use std::{
    env,
    hash::{BuildHasher, Hasher, RandomState},
    sync::OnceLock,
    thread,
};

/// The environment variable that sets the fresh seed.
const VARIABLE: &str = "PALISADE_TEST_SEED";

/// Returns a fresh seed and then the fixed seeds, for a test's `for seed in seeds(0..300)`.
///
/// The fixed seeds stay as regressions. The fresh one is `PALISADE_TEST_SEED` if that is set, as in CI, and random
/// otherwise. All tests of a process share it. If the loop panics, the seed is printed with the command that runs the
/// test with it.
///
/// # Panics
/// If `PALISADE_TEST_SEED` isn't a number.
pub fn seeds<I: IntoIterator<Item = u64>>(fixed: I) -> Seeds<I::IntoIter> {
    Seeds { fresh: Some(fresh()), fixed: fixed.into_iter(), current: None }
}

/// Iterates over seeds. See [`seeds`].
#[derive(Debug)]
pub struct Seeds<I> {
    fresh: Option<u64>,
    fixed: I,
    current: Option<u64>,
}

impl<I: Iterator<Item = u64>> Iterator for Seeds<I> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.current = self.fresh.take().or_else(|| self.fixed.next());
        self.current
    }
}

impl<I> Drop for Seeds<I> {
    fn drop(&mut self) {
        if let Some(seed) = self.current.filter(|_| thread::panicking()) {
            eprintln!("failed with seed {seed}; run it again with\n    {}", replay(seed));
        }
    }
}

/// Returns the fresh seed of this process.
fn fresh() -> u64 {
    static FRESH: OnceLock<u64> = OnceLock::new();
    *FRESH.get_or_init(|| match env::var(VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is no number: {text:?}")),
        // The standard library seeds each of these from system randomness. 32 bits are easier to copy.
        Err(_) => RandomState::new().build_hasher().finish() >> 32,
    })
}

/// Returns the command that runs the current test with a seed. Cargo sets the package name in the environment of tests,
/// and libtest names each thread after its test.
fn replay(seed: u64) -> String {
    let package = env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}")).unwrap_or_default();
    let current = thread::current();
    let test = current.name().filter(|name| *name != "main").map(|name| format!(" -- {name}"));
    format!("{VARIABLE}={seed} cargo test{package}{}", test.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_seed_comes_before_the_fixed_ones() {
        let all: Vec<u64> = seeds(0..3).collect();
        assert_eq!(all[1..], [0, 1, 2]);
        assert_eq!(seeds([]).next(), Some(all[0]), "one process has one fresh seed");
    }

    #[test]
    fn the_command_names_package_test_and_seed() {
        let test = "seeds::tests::the_command_names_package_test_and_seed";
        assert_eq!(replay(7), format!("PALISADE_TEST_SEED=7 cargo test -p palisade-testkit -- {test}"));
    }
}
