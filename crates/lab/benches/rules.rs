//! Connections and round trips per second, with and without rules: `cargo bench -p palisade-lab`.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::process::ExitCode;

use palisade_lab::{
    Sandbox,
    bench::{self, BenchOptions},
};

fn main() -> ExitCode {
    // `cargo test --benches` runs this too, only to check that it works.
    let is_test = !std::env::args().any(|a| a == "--bench");
    let options = if is_test {
        BenchOptions { rounds: 1, slice: std::time::Duration::from_millis(20) }
    } else {
        BenchOptions::default()
    };
    let measured = Sandbox::enter()
        .map_err(Box::<dyn std::error::Error>::from)
        .and_then(|sandbox| bench::run(&sandbox, &options, |_, _| {}).map_err(Into::into));
    match measured {
        Ok(measured) => {
            println!(
                "{:<32} {:>13} {:>7} {:>13} {:>7}",
                "", "connections/s", "ratio", "round trips/s", "ratio"
            );
            for m in measured {
                let (c, r) = (m.connections, m.round_trips);
                let scenario = m.scenario.to_string();
                println!(
                    "{scenario:<32} {:>13.0} {:>7.3} {:>13.0} {:>7.3}",
                    c.per_second, c.ratio, r.per_second, r.ratio
                );
            }
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}: {:?}", e.source().map(ToString::to_string));
            ExitCode::FAILURE
        }
    }
}
