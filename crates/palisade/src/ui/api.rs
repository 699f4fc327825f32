//! The interface of the pages, version 1: paths, parameters, and what answers them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use hyper::{
    Request, StatusCode,
    body::{Body, Bytes},
    header::{ALLOW, HeaderValue},
};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    access::{Gate, Refusal, check_method},
    answers::{Answers, NoAnswer},
    assets,
    body::{BadBody, json_body},
    flows::Flows,
    labels::JsonLabels,
    policy_text::policy_text,
    query::Query,
    reply::Reply,
    state::{Board, JsonState},
    trial::{self, Attempted, Superseded},
    turns::{Turns, is_name},
    world::{Source, World},
};
use crate::{
    describe::{self, OutputFormat},
    escape, explain,
    output::Encoding,
    overview,
};

/// The paths of the interface begin with this.
const ROOT: &str = "/api/v1/";
/// The schema of an error. Its version is raised when a field changes its meaning or is removed.
const ERROR_SCHEMA: &str = "palisade.ui.error/v1";
/// The schema of a file's text.
const SOURCE_SCHEMA: &str = "palisade.ui.source/v1";
/// How long a request for the state waits for a change. Less than the time after which a connection is closed.
const WAIT: Duration = Duration::from_secs(20);

/// How long an attempt waits for the one before it.
const TRY_PATIENCE: Duration = Duration::from_secs(20);
/// The question that has a body.
const TRY: &str = "try";

const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

/// Answers requests.
pub(super) struct Api {
    gate: Gate,
    source: Arc<Source>,
    board: Arc<Board>,
    flows: Arc<Flows>,
    answers: Answers,
    turns: Turns,
}

#[derive(Serialize)]
struct JsonError<'a> {
    schema: &'static str,
    error: &'a str,
}

/// The text of a file that was read.
#[derive(Serialize)]
struct JsonSource<'a> {
    schema: &'static str,
    file: &'a str,
    text: &'a str,
}

impl Api {
    pub(super) fn new(gate: Gate, source: Arc<Source>, board: Arc<Board>, flows: Arc<Flows>) -> Self {
        Self { gate, source, board, flows, answers: Answers::new(), turns: Turns::default() }
    }

    /// Whether a request is one of the server's own pages, with the token.
    pub(super) fn knows<B>(&self, request: &Request<B>) -> bool {
        let headers = request.headers();
        self.gate.check(request.uri(), headers).and_then(|()| self.gate.check_data(headers)).is_ok()
    }

    /// Answers a request.
    pub(super) async fn reply<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        if let Err(refusal) = self.gate.check(&head.uri, &head.headers) {
            return refused(refusal);
        }
        let Some(name) = head.uri.path().strip_prefix(ROOT) else {
            return match (check_method(&head.method, "GET"), assets::at(head.uri.path())) {
                (Err(refusal), _) => refused(refusal),
                (Ok(()), Some(asset)) => {
                    Reply::new(StatusCode::OK, asset.content_type, Bytes::from_static(asset.bytes))
                }
                (Ok(()), None) => failed(StatusCode::NOT_FOUND, "there is no such page"),
            };
        };
        let method = if name == TRY { "POST" } else { "GET" };
        let allowed = self.gate.check_data(&head.headers).and_then(|()| check_method(&head.method, method));
        if let Err(refusal) = allowed {
            return refused(refusal);
        }
        self.board.note_asked();
        let query = Query::new(head.uri.query());
        if name == TRY {
            return match query.only(&[]) {
                Err(wrong) => failed(StatusCode::BAD_REQUEST, &wrong),
                Ok(()) => match json_body(&head.headers, body).await {
                    Ok(attempted) => self.try_(attempted).await,
                    Err(BadBody { status, reason }) => failed(status, &reason),
                },
            };
        }
        let answer = match name {
            "state" => self.state(&query).await,
            "report" => self.report(&query),
            "overview" => self.overview(&query).await,
            "explain" => self.explain(&query).await,
            "describe" => self.describe(&query).await,
            "flows" => {
                self.flows.answer(&query).await.map(|text| Reply::new(StatusCode::OK, JSON, text.into()))
            }
            "drops" => {
                self.flows.drops(&query).await.map(|text| Reply::new(StatusCode::OK, JSON, text.into()))
            }
            "labels" => self.labels(&query).await,
            "policy" => self.policy(&query).await,
            "source" => self.source(&query).await,
            _ => return failed(StatusCode::NOT_FOUND, "there is no such question; see docs/ui.md"),
        };
        answer.unwrap_or_else(|wrong| failed(StatusCode::BAD_REQUEST, &wrong))
    }

    /// What an edited policy would open and close. A page's older attempts are given up.
    async fn try_(&self, attempted: Attempted) -> Reply {
        if !is_name(&attempted.page) {
            return failed(StatusCode::BAD_REQUEST, "page: expected 1 to 64 letters, digits and `-`");
        }
        let Some(attempt) = self.turns.begin(&attempted.page) else {
            return failed(StatusCode::SERVICE_UNAVAILABLE, "too many pages try something at this moment");
        };
        let Ok(turn) = timeout(TRY_PATIENCE, attempt.turn()).await else {
            return failed(StatusCode::SERVICE_UNAVAILABLE, "the previous attempt takes too long");
        };
        let number = self.board.shown().world_number;
        let work = move |world: &World, source: &Source| {
            let answer = trial::evaluate(&attempted, world, number, source, &|| attempt.is_newest());
            drop(turn);
            answer
        };
        self.json(work).await
    }

    async fn labels(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&[])?;
        let work =
            |world: &World, _: &Source| Encoding::Json.encode(&JsonLabels::new(&world.inputs.loaded.cluster));
        Ok(self.json(work).await)
    }

    async fn policy(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&["name"])?;
        let name = query.required("name")?.to_owned();
        Ok(self.json(move |world, _| Encoding::Json.encode(&policy_text(world, &name)?)).await)
    }

    /// What is shown, at once or as soon as it is not `after`.
    async fn state(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&["after"])?;
        let shown = match query.optional("after")? {
            None => self.board.shown(),
            Some(text) => {
                let after = text.parse().map_err(|_| format!("after: `{text}` is no number"))?;
                self.board.changed(after, WAIT).await
            }
        };
        let state = JsonState::new(&shown, &self.source.arguments, self.source.is_cluster());
        let text = Encoding::Json.encode(&state).map_err(|error| format!("{error:#}"))?;
        Ok(Reply::new(StatusCode::OK, JSON, text.into()))
    }

    fn report(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&[])?;
        Ok(Reply::new(StatusCode::OK, JSON, self.board.shown().world.report.clone()))
    }

    async fn overview(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&[])?;
        Ok(self.json(|world, _| overview::json(&world.inputs)).await)
    }

    async fn explain(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&["from", "to", "to-deny"])?;
        let (from, to) = (query.required("from")?.to_owned(), query.required("to")?.to_owned());
        let to_deny = match query.optional("to-deny")? {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(format!("to-deny: `{other}` is neither `true` nor `false`")),
        };
        let work = move |world: &World, source: &Source| {
            let question = explain::Question { source: &from, destination: &to, to_deny };
            explain::json(&question, &world.inputs, &source.arguments.sources)
        };
        Ok(self.json(work).await)
    }

    async fn describe(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&["what", "format"])?;
        let what = query.required("what")?.to_owned();
        let (output, content_type) = match query.optional("format")? {
            None | Some("json") => (OutputFormat::Json, JSON),
            Some("svg") => (OutputFormat::Svg, SVG),
            Some(other) => return Err(format!("format: `{other}` is neither `json` nor `svg`")),
        };
        let work = move |world: &World, source: &Source| {
            let controller = &source.arguments.controller;
            let question = describe::Question { what: &what, controller, output };
            describe::answer(&question, &world.inputs).map(|(text, _)| text)
        };
        Ok(self.text(content_type, work).await)
    }

    /// The text of a file. Only texts that were read as manifests are given out, so the name is no path.
    async fn source(&self, query: &Query<'_>) -> Result<Reply, String> {
        query.only(&["file"])?;
        let file = query.required("file")?.to_owned();
        let work = move |world: &World, _: &Source| {
            let named = |text: &&palisade_lint::SourceText| !file.is_empty() && **text.file() == *file;
            let found = world.texts.iter().find(named).context("no such file was read")?;
            Encoding::Json.encode(&JsonSource {
                schema: SOURCE_SCHEMA,
                file: found.file(),
                text: found.text(),
            })
        };
        Ok(self.json(work).await)
    }

    async fn json(&self, work: impl FnOnce(&World, &Source) -> Result<String> + Send + 'static) -> Reply {
        self.text(JSON, work).await
    }

    async fn text(
        &self,
        content_type: &'static str,
        work: impl FnOnce(&World, &Source) -> Result<String> + Send + 'static,
    ) -> Reply {
        let (world, source) = (self.board.shown().world, Arc::clone(&self.source));
        match self.answers.compute(move || work(&world, &source)).await {
            Ok(text) => Reply::new(StatusCode::OK, content_type, text.into()),
            Err(NoAnswer::Refused(error)) if error.is::<Superseded>() => {
                failed(StatusCode::CONFLICT, &error.to_string())
            }
            Err(NoAnswer::Refused(error)) => {
                failed(StatusCode::UNPROCESSABLE_ENTITY, &escape::plain(&format!("{error:#}")))
            }
            Err(NoAnswer::TooLong) => failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "the answer takes too long; the command line has no limit",
            ),
            Err(NoAnswer::Failed) => {
                failed(StatusCode::INTERNAL_SERVER_ERROR, "a bug: the terminal of `palisade ui` has more")
            }
        }
    }
}

fn refused(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Host => failed(StatusCode::MISDIRECTED_REQUEST, "this server has another name"),
        Refusal::Origin => failed(StatusCode::FORBIDDEN, "pages of other servers get no answer"),
        Refusal::Token => {
            failed(StatusCode::UNAUTHORIZED, "open the address that `palisade ui` printed: it has the token")
        }
        Refusal::Method(own) => {
            let mut reply = failed(StatusCode::METHOD_NOT_ALLOWED, &format!("only {own} is allowed here"));
            reply.headers.push((ALLOW, HeaderValue::from_static(own)));
            reply
        }
    }
}

/// Returns an error as JSON.
pub(super) fn failed(status: StatusCode, error: &str) -> Reply {
    let text = Encoding::Json.encode(&JsonError { schema: ERROR_SCHEMA, error }).unwrap_or_default();
    Reply::new(status, JSON, text.into())
}
