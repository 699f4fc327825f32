//! The flows of this machine's agent, over its socket.

use std::{
    io::Read as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use palisade_agent::socket::{Request, Response};
use palisade_flow::{Filter, FlowPage, FlowRequest};

use super::{Flows, Form, Printer, losses::Losses, render};
use crate::{
    agent_socket::{Unreachable, ask},
    exit::Outcome,
    output,
};

/// How long the agent is asked to wait for a record, and the pause before it is asked again if it didn't.
const WAIT: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);
/// The pause before an agent that is gone is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How long pages are written for another machine, which asks again after that: a bound for a process whose reader is gone.
const MAX_PAGES_TIME: Duration = Duration::from_secs(15 * 60);

impl Flows {
    fn filter(&self) -> Filter {
        Filter {
            from: self.from.clone(),
            to: self.to.clone(),
            either: self.pod.clone(),
            namespaces: self.namespace.clone(),
            verdicts: self.verdict.iter().map(|verdict| verdict.verdict()).collect(),
            policies: self.policy.clone(),
            ports: self.port.clone(),
            since: self.since.as_ref().map(|since| since.time),
        }
    }
}

/// Prints the flows.
///
/// # Errors
/// If the agent can't be queried.
pub(super) fn run(arguments: &Flows, socket: &Path) -> Result<Outcome> {
    let mut request =
        FlowRequest { filter: arguments.filter(), last: arguments.last, ..FlowRequest::default() };
    let (mut printer, mut losses) = (Printer::new(arguments), Losses::default());
    let (writes_pages, begin) = (arguments.output == Form::Pages, Instant::now());
    let (mut is_away, mut has_answered) = (false, false);
    if writes_pages && arguments.follow {
        end_with_input();
    }
    // The agent may be starting. With `-o pages`, the caller is another `palisade`, which gets the error and asks again.
    let may_answer_later = |error: &anyhow::Error| !writes_pages && error.is::<Unreachable>();
    loop {
        let page = match page(socket, &request) {
            Ok(page) => page,
            Err(error) if arguments.follow && (has_answered || may_answer_later(&error)) => {
                if !std::mem::replace(&mut is_away, true) {
                    output::note(&format!("waiting for the agent of this node: {error:#}\n"));
                }
                thread::sleep(RETRY);
                continue;
            }
            Err(error) => return Err(error),
        };
        (is_away, has_answered) = (false, true);
        if losses.is_new(&page) {
            if !writes_pages {
                output::note("the agent of this node has started again, its earlier flows are gone\n");
            }
            (request.after, losses) = (0, Losses::default());
            continue;
        }
        let is_read = match writes_pages {
            true => output::print_unless_closed(&render::line(&page)?).context("can't write the flows")?,
            false => printer.print(&page.records)?,
        };
        if !is_read || (writes_pages && begin.elapsed() > MAX_PAGES_TIME) {
            return Ok(Outcome::Yes);
        }
        match writes_pages {
            true => losses.started = Some(page.started),
            false => losses.report(&page, ""),
        }
        let found = !page.records.is_empty();
        (request.after, request.last) = (page.next, None);
        if page.more {
            continue;
        }
        if !arguments.follow {
            if !writes_pages {
                printer.note_nothing();
            }
            return Ok(Outcome::Yes);
        }
        if !found && request.wait_milliseconds > 0 {
            thread::sleep(PAUSE);
        }
        request.wait_milliseconds = WAIT.as_millis() as u64;
    }
}

fn page(socket: &Path, request: &FlowRequest) -> Result<FlowPage> {
    match ask(socket, Request::Flows(request.clone()))? {
        Response::Flows(page) => Ok(page),
        Response::Error(error) if error.contains("unknown variant") => {
            Err(anyhow!("the agent of this node is of a version without flows: {error}"))
        }
        Response::Error(error) => bail!("{error}"),
        _ => bail!("the agent of this node gave another answer than asked for"),
    }
}

/// Ends the program at the end of standard input, which is the end of the connection from another machine. Otherwise the program would
/// run on in the agent's container.
fn end_with_input() {
    thread::spawn(|| {
        let mut input = std::io::stdin();
        let mut buffer = [0; 256];
        while matches!(input.read(&mut buffer), Ok(1..)) {}
        std::process::exit(0);
    });
}
