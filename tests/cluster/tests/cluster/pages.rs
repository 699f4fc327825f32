//! `palisade ui` on a cluster: what its pages ask, while policies change and while the API server is away.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use palisade_cluster_tests::{World, eventually, process::Process};
use palisade_lab::{Place, namespace::Namespace};
use serde_json::Value;

use crate::manifests::{back_from, policy, shop};

pub(crate) const TESTS: &[crate::Test] = &[
    ("pages::a_change_of_the_cluster_is_shown", change),
    ("pages::a_cluster_that_goes_away_leaves_the_last_state", goes_away),
    ("pages::an_api_server_that_hangs_is_reported", hangs),
];

/// How long a change may take to be shown: the interval, and reading on a busy machine.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long a server that does not answer may take to be given up.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(90);

/// A running `palisade ui`.
struct Pages {
    process: Process,
    namespace: Namespace,
    address: SocketAddr,
    token: String,
}

impl Pages {
    /// Starts it, and waits until it has printed its address.
    fn start(world: &mut World, arguments: &str) -> Result<Self> {
        let namespace = world.namespace(&Place::Outside)?;
        let mut command = Command::new(world.programs().palisade());
        command
            .args(["ui", "--interval", "1s"])
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", world.control().admin())
            .env("HOME", world.folder());
        let name = format!("ui-{}", std::process::id());
        // Logs are appended to.
        std::fs::write(world.folder().join(format!("{name}.log")), "")?;
        let mut process = Process::start(&name, &namespace, command, world.folder())?;
        let url = eventually("the address of the pages", SHOWN_WITHIN, || {
            let log = process.log();
            if let Some(status) = process.exit_status()? {
                anyhow::bail!("palisade ui ended: {status}\n{log}");
            }
            let line = log.lines().find_map(|line| line.strip_prefix("http://").map(ToOwned::to_owned));
            Ok(line.ok_or(log))
        })?;
        let (address, token) = url.split_once("/#token=").context("no token in the address")?;
        Ok(Self { process, namespace, address: address.parse()?, token: token.to_owned() })
    }

    /// Asks as a page does.
    fn ask(&self, question: &str) -> Result<Value> {
        let (status, body) = self.get(question, &self.token)?;
        ensure!(status == 200, "{question}: status {status}: {body}\n{}", self.process.log());
        serde_json::from_str(&body).with_context(|| body)
    }

    fn get(&self, question: &str, token: &str) -> Result<(u16, String)> {
        let host = self.address;
        let request = format!(
            "GET /api/v1/{question} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let text = self.namespace.run(|| -> Result<String> {
            let mut stream = TcpStream::connect(host)?;
            stream.set_read_timeout(Some(GIVEN_UP_WITHIN))?;
            stream.write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })??;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }

    /// Returns whether the pages say that a connection is allowed.
    fn is_allowed(&self, from: &str, to: &str) -> Result<bool> {
        let answer = self.ask(&format!("explain?from={from}&to={to}"))?;
        match answer["verdict"].as_str() {
            Some("allowed") => Ok(true),
            Some("denied") => Ok(false),
            _ => anyhow::bail!("{from} to {to}: {answer:#}"),
        }
    }

    /// Waits for a state.
    fn wait(&self, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(what, within, || {
            let state = self.ask("state")?;
            Ok(if is(&state) { Ok(state) } else { Err(format!("{state:#}")) })
        })
    }
}

/// The pages show what the policies allow after the cluster was read again. Requests without the token are refused.
fn change(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.settle()?;
    let pages = Pages::start(world, "--live")?;
    let first = pages.ask("state")?;
    ensure!(first["cluster"] == true && first["problem"].is_null(), "{first:#}");
    ensure!(pages.get("state", "guessed")?.0 == 401, "a wrong token is answered");
    ensure!(pages.is_allowed("shop/front", "shop/back:80")?, "an allowed connection is shown as denied");
    ensure!(!pages.is_allowed("other/guest", "shop/back:80")?, "a denied connection is shown as allowed");
    let report = pages.ask("report")?;
    let names: Vec<&str> = report["policies"]
        .as_array()
        .context("policies")?
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    ensure!(names == ["NetworkPolicy shop/back"], "{names:?}");
    // What the API server sent has no file, and its YAML is shown all the same.
    let yaml = pages.ask("policy?name=NetworkPolicy%20shop%2Fback")?;
    ensure!(yaml["text"].as_str().is_some_and(|text| text.contains("podSelector")), "{yaml:#}");

    world.apply(&policy(
        "shop/guests",
        "{podSelector: {matchLabels: {app: back}}, ingress: [{from: [{namespaceSelector: {}}]}]}",
    ))?;
    let world_number = first["world"].as_u64();
    eventually("the new policy is shown", SHOWN_WITHIN, || {
        let open = pages.is_allowed("other/guest", "shop/back:80")?;
        Ok(if open { Ok(()) } else { Err(format!("{:#}", pages.ask("state")?)) })
    })?;
    let after = pages.ask("state")?;
    ensure!(after["world"].as_u64() > world_number && after["problem"].is_null(), "{after:#}");
    Ok(())
}

/// Checks that the pages go on showing what was read last, and that they say so.
fn shows_the_last_state(pages: &Pages, state: &Value, before: &Value) -> Result<()> {
    let text = state["problem"]["text"].as_str().unwrap_or_default();
    ensure!(!text.is_empty(), "{state:#}");
    ensure!(state["world"] == before["world"] && state["read"] == before["read"], "{state:#}\n{before:#}");
    ensure!(pages.is_allowed("shop/front", "shop/back:80")?, "an allowed connection is shown as denied");
    ensure!(!pages.is_allowed("other/guest", "shop/back:80")?, "a denied connection is shown as allowed");
    pages.ask("overview")?;
    pages.ask("report")?;
    Ok(())
}

fn goes_away(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.settle()?;
    let pages = Pages::start(world, "")?;
    world.control().stop_api();
    let gone = pages
        .wait("the pages say that the cluster is gone", GIVEN_UP_WITHIN, |state| !state["problem"].is_null());
    // The states are those of the last world from here on.
    let outcome = gone.and_then(|gone| {
        let again = pages.ask("state")?;
        shows_the_last_state(&pages, &again, &gone)
    });
    world.control().start_api()?;
    outcome?;
    let back =
        pages.wait("the cluster is shown again", GIVEN_UP_WITHIN, |state| state["problem"].is_null())?;
    ensure!(back["problem"].is_null(), "{back:#}");
    Ok(())
}

fn hangs(world: &mut World) -> Result<()> {
    world.apply(&(shop() + &back_from("front")))?;
    world.settle()?;
    let pages = Pages::start(world, "")?;
    world.control().freeze_api(true)?;
    let hanging = pages.wait("the pages say that the cluster does not answer", GIVEN_UP_WITHIN, |state| {
        !state["problem"].is_null()
    });
    let outcome = hanging.and_then(|hanging| shows_the_last_state(&pages, &pages.ask("state")?, &hanging));
    world.control().freeze_api(false)?;
    outcome?;
    pages.wait("the cluster is shown again", GIVEN_UP_WITHIN, |state| state["problem"].is_null())?;
    Ok(())
}
