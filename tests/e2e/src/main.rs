//! `palisade-e2e`: a real Kubernetes cluster of two nodes on one machine.

#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    palisade_e2e::command::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("error: nodes are made of Linux namespaces: run it on Linux");
    std::process::exit(2);
}
