// The `main` of both test targets, `doctor` and `doctor-nft`. `WITH_NFT` selects the tests.

#[cfg(target_os = "linux")]
mod wiring;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments = libtest_mimic::Arguments::from_args();
    let sandbox: &'static Result<palisade_lab::Sandbox, _> =
        Box::leak(Box::new(palisade_lab::Sandbox::enter()));
    let trials = wiring::tests(WITH_NFT).iter().map(|(name, test)| {
        libtest_mimic::Trial::test(*name, move || match sandbox {
            Ok(sandbox) => test(sandbox),
            Err(e) => Err(format!("no sandbox: {e}").into()),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::SUCCESS
}
