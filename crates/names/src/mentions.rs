//! Host names in the texts of settings: environment variables, arguments and configuration files.
//!
//! `http://orders.shop.svc:8080/x`, `redis://:secret@cache:6379`, `a:9092,b:9092`, `host=db port=5432`, `postgres`. Only the form
//! is here: whether a name is one of the cluster's depends on what the cluster has ([`crate::MentionResolver`]). Nothing else of a text
//! is kept, since settings have passwords.

use std::net::IpAddr;

use palisade_policy::{Name, Protocol};

use crate::dns_name::DnsName;

/// The longest name of a host, and the longest part between its dots (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A host that a text names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostMention {
    /// Its name or address, in lower case.
    pub host: Name,
    /// The port, if it is beside the name.
    pub port: Option<u16>,
    /// What tells that it is a host.
    pub form: MentionForm,
}

/// What tells that a word is the name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MentionForm {
    /// It is the host of a URL. `usual` is the port that its scheme has by default.
    Url {
        /// The port of URLs that have none.
        usual: Option<u16>,
        /// UDP if the scheme says so (`udp://10.0.0.9:514`), else TCP.
        protocol: Protocol,
    },
    /// A port follows it, or it ends as names of the cluster's DNS do, or the word before it is one such as `host=`.
    Address,
    /// The whole text is a name or a list of names. The name of the variable tells whether it is that of a host.
    Value,
}

/// Schemes that name the protocol below.
const UDP_SCHEMES: [&str; 3] = ["udp", "udp4", "udp6"];

/// The ports of schemes.
const SCHEMES: [(&str, u16); 18] = [
    ("http", 80),
    ("https", 443),
    ("ws", 80),
    ("wss", 443),
    ("grpc", 443),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("mariadb", 3306),
    ("mongodb", 27017),
    ("redis", 6379),
    ("rediss", 6379),
    ("amqp", 5672),
    ("amqps", 5671),
    ("nats", 4222),
    ("ldap", 389),
    ("ldaps", 636),
    ("smtp", 25),
];

/// Words of which one in the name of a setting tells that it is a host.
const HOST_WORDS: [&str; 17] = [
    "host",
    "hosts",
    "hostname",
    "hostnames",
    "addr",
    "addrs",
    "address",
    "addresses",
    "url",
    "urls",
    "uri",
    "endpoint",
    "endpoints",
    "broker",
    "brokers",
    "upstream",
    "dsn",
];
/// Words that tell it at the end of the name.
const LAST_WORDS: [&str; 11] = [
    "server", "servers", "service", "svc", "backend", "target", "targets", "peer", "peers", "proxy", "nodes",
];
/// Words at the end that tell that it is something else.
const OTHER_WORDS: [&str; 12] = [
    "port", "path", "user", "username", "password", "header", "timeout", "scheme", "name", "prefix", "class",
    "type",
];

/// Returns whether the name of a setting is one for hosts: `DATABASE_HOST`, `--upstream-url`, `brokers`, `cacheAddress`.
#[must_use]
pub fn is_host_setting(name: &str) -> bool {
    let words = words(name);
    let Some(last) = words.last() else { return false };
    let before = words.len().checked_sub(2).map(|at| &*words[at]);
    if OTHER_WORDS.contains(&&**last) {
        return last == "name" && before == Some("host");
    }
    LAST_WORDS.contains(&&**last) || words.iter().any(|word| HOST_WORDS.contains(&&**word))
}

/// Splits `DATABASE_HOST`, `--database-host` and `databaseHost` into lower-case words.
fn words(name: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut last = ' ';
    // A name of a setting is short; one that is not tells nothing.
    for c in name.chars().take(MAX_NAME) {
        let begins = !last.is_ascii_alphanumeric() || (last.is_ascii_lowercase() && c.is_ascii_uppercase());
        if c.is_ascii_alphanumeric() {
            if begins || out.is_empty() {
                out.push(String::new());
            }
            if let Some(word) = out.last_mut() {
                word.push(c.to_ascii_lowercase());
            }
        }
        last = c;
    }
    out
}

/// Returns the hosts that a text names, each once, at most `most` of them. `O(text)`.
#[must_use]
pub fn host_mentions(text: &str, most: usize) -> Vec<HostMention> {
    let mut found = Found { all: Vec::new(), known: std::collections::HashSet::new(), most };
    if whole(text, &mut found) {
        return found.all;
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() && !found.is_full() {
        if text.get(at..).is_some_and(|rest| rest.starts_with("://")) {
            at = url(text, at, &mut found);
        } else if is_word(bytes[at]) {
            at = word(text, at, &mut found);
        } else {
            at += 1;
        }
    }
    found.all
}

struct Found {
    all: Vec<HostMention>,
    known: std::collections::HashSet<HostMention>,
    most: usize,
}

impl Found {
    fn is_full(&self) -> bool {
        self.all.len() >= self.most
    }

    fn add(&mut self, host: &str, port: Option<u16>, form: MentionForm) {
        if self.is_full() {
            return;
        }
        let Some(host) = host_name(host) else { return };
        let mention = HostMention { host, port, form };
        if self.known.insert(mention.clone()) {
            self.all.push(mention);
        }
    }
}

/// Reads a text that is a name or a list of names, with or without ports.
fn whole(text: &str, found: &mut Found) -> bool {
    let is_separator = |c: char| c == ',' || c == ';' || c.is_whitespace();
    let all = || text.split(is_separator).filter(|part| !part.is_empty());
    // Names that are separated by spaces alone are a sentence.
    if text.trim().contains(char::is_whitespace) && !text.contains([',', ';']) {
        return false;
    }
    let of = |part: &'_ str| with_port(part).and_then(|(host, port)| Some((host_name(host)?, port)));
    if all().next().is_none() || all().any(|part| of(part).is_none()) {
        return false;
    }
    for (host, port) in all().filter_map(with_port) {
        let qualified =
            matches!(DnsName::parse(host), Some(DnsName::Service { .. } | DnsName::PodOfService { .. }));
        let form = if port.is_some() || qualified { MentionForm::Address } else { MentionForm::Value };
        found.add(host, port, form);
    }
    true
}

/// Splits `db:5432`, `[fd00::7]:80` and `db`. `None`: what follows the colon is no port.
fn with_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(number(port)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((host, port)) => Some((host, Some(number(port)?))),
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// Reads the hosts of a URL whose `://` is at `at`, and returns where they end.
fn url(text: &str, at: usize, found: &mut Found) -> usize {
    let before = &text.as_bytes()[..at];
    let scheme = before.iter().rev().take_while(|b| b.is_ascii_alphanumeric() || **b == b'+').count();
    let scheme = text[at - scheme..at].to_ascii_lowercase();
    let scheme = scheme.split('+').next().unwrap_or_default();
    let usual = SCHEMES.iter().find(|(name, _)| *name == scheme).map(|(_, port)| *port);
    let protocol = if UDP_SCHEMES.contains(&scheme) { Protocol::Udp } else { Protocol::Tcp };
    let from = at + "://".len();
    let ends = |c: char| c.is_whitespace() || "/?#\"'`<>\\".contains(c);
    let length = text[from..].find(ends).unwrap_or(text.len() - from);
    let authority = &text[from..from + length];
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    for one in hosts.split(',') {
        // `tcp(db:3306)`, `http://db)`, `http://db;`.
        let one = one.trim_end_matches(|c: char| ");]}|".contains(c) && !one.starts_with('['));
        if let Some((host, port)) = with_port(one) {
            found.add(host, port, MentionForm::Url { usual, protocol });
        }
    }
    from + length
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Reads the word at `at`, and returns where it ends.
fn word(text: &str, at: usize, found: &mut Found) -> usize {
    let bytes = text.as_bytes();
    let length = bytes[at..].iter().take_while(|b| is_word(**b)).count();
    let end = at + length;
    // A sentence may end after a name.
    let word = text[at..end].trim_end_matches('.');
    if bytes.get(end) == Some(&b':') {
        let digits = bytes[end + 1..].iter().take_while(|b| is_word(**b)).count();
        if let Some(port) = number(text[end + 1..end + 1 + digits].trim_end_matches('.')) {
            found.add(word, Some(port), MentionForm::Address);
            return end + 1 + digits;
        }
    }
    match DnsName::parse(word) {
        Some(DnsName::Service { .. } | DnsName::PodOfService { .. }) => {
            found.add(word, None, MentionForm::Address);
        }
        _ if bytes.get(end) != Some(&b'=') && is_assigned(text, at) => {
            found.add(word, port_beside(text, at), MentionForm::Address);
        }
        _ => {}
    }
    end
}

/// Returns whether the word at `at` is the value of a setting for hosts: `host=db`, `dbHost: "db"`.
fn is_assigned(text: &str, at: usize) -> bool {
    let line = line_before(text, at);
    let line = line.trim_end_matches(['"', '\'']).trim_end_matches(' ');
    let Some(line) = line.strip_suffix(['=', ':']) else { return false };
    let key = line.trim_end_matches([' ', '"', '\'']);
    let length = key.bytes().rev().take_while(|b| is_word(*b)).count();
    is_host_setting(&key[key.len() - length..])
}

/// The longest part of a line that is looked at for each word.
const MAX_BEFORE: usize = 120;

/// The line before `at`, from at most [`MAX_BEFORE`] bytes before it.
fn line_before(text: &str, at: usize) -> &str {
    let mut from = at.saturating_sub(MAX_BEFORE);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..at].rsplit('\n').next().unwrap_or_default()
}

/// Returns the port of `host=db port=5432`, on the same line.
fn port_beside(text: &str, at: usize) -> Option<u16> {
    let mut to = text.len().min(at + MAX_BEFORE);
    while !text.is_char_boundary(to) {
        to -= 1;
    }
    let after = text[at..to].split('\n').next().unwrap_or_default();
    let around = [after, line_before(text, at)];
    around.iter().find_map(|part| {
        let (_, value) =
            part.to_ascii_lowercase().split_once("port=").map(|(a, b)| (a.to_owned(), b.to_owned()))?;
        number(&value.bytes().take_while(u8::is_ascii_digit).map(char::from).collect::<String>())
    })
}

/// Returns a name or address of a host in lower case; `None` if no host can have it.
fn host_name(text: &str) -> Option<Name> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string().into());
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().next_back()];
        label.len() <= MAX_LABEL
            && ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let has_letter = text.bytes().any(|b| b.is_ascii_alphabetic());
    let fits = text.len() <= MAX_NAME && has_letter && text.split('.').all(is_label);
    fits.then(|| text.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let show = |one: HostMention| {
            let form = match one.form {
                MentionForm::Url { usual, .. } => format!("url {}", usual.unwrap_or_default()),
                MentionForm::Address => "address".to_owned(),
                MentionForm::Value => "value".to_owned(),
            };
            let port = one.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}{port} {form}", one.host)
        };
        host_mentions(text, 100).into_iter().map(show).collect()
    }

    #[test]
    fn schemes_name_the_protocol() {
        let protocols = |text: &str| -> Vec<Protocol> {
            let forms = host_mentions(text, 10).into_iter().map(|one| one.form);
            let protocol =
                |form| if let MentionForm::Url { protocol, .. } = form { protocol } else { Protocol::Sctp };
            forms.map(protocol).collect()
        };
        assert_eq!(
            protocols("udp://10.9.9.9:514 UDP4://a:1 tcp://b:2"),
            [Protocol::Udp, Protocol::Udp, Protocol::Tcp]
        );
        assert_eq!(protocols("http://udp:80"), [Protocol::Tcp]);
    }

    #[test]
    fn hosts_are_found_in_settings() {
        for (text, expected) in [
            ("postgres", &["postgres value"][..]),
            ("Postgres.", &["postgres value"]),
            ("orders.shop", &["orders.shop value"]),
            ("db:5432", &["db:5432 address"]),
            ("a:9092, b:9092;c", &["a:9092 address", "b:9092 address", "c value"]),
            ("orders.shop.svc.cluster.local", &["orders.shop.svc.cluster.local address"]),
            ("http://orders.shop.svc:8080/x?y=z", &["orders.shop.svc:8080 url 80"]),
            ("redis://:p@ss@cache/0", &["cache url 6379"]),
            ("postgresql+asyncpg://u:p@db/x", &["db url 5432"]),
            ("jdbc:postgresql://db:5432/x", &["db:5432 url 5432"]),
            ("mongodb://u:p@m-0.m:27017,m-1.m:27018/x", &["m-0.m:27017 url 27017", "m-1.m:27018 url 27017"]),
            ("user:pass@tcp(db:3306)/x", &["db:3306 address"]),
            ("host=db port=5433 user=web password=db", &["db:5433 address"]),
            (
                "proxy_pass http://orders:8080;\nserver cache:6379;",
                &["orders:8080 url 80", "cache:6379 address"],
            ),
            ("db:\n  host: \"postgres\"\n  name: web\n", &["postgres address"]),
            ("{\"dbHost\": \"postgres\"}", &["postgres address"]),
            ("http://[fd00::7]:80/", &["fd00::7:80 url 80"]),
            ("10.0.0.7:80", &["10.0.0.7:80 address"]),
            ("the web of things", &[]),
            ("12:30", &[]),
            ("db:99999", &[]),
            ("http://$(HOST):80", &[]),
            ("-web", &[]),
            ("", &[]),
            ("42", &[]),
            ("https://é.example", &[]),
            ("://", &[]),
        ] {
            assert_eq!(texts(text), expected, "{text}");
        }
    }

    #[test]
    fn the_name_of_a_setting_tells_whether_it_is_a_host() {
        for name in [
            "DATABASE_HOST",
            "--upstream-url",
            "brokers",
            "cacheAddress",
            "ORDERS_SERVICE",
            "HOST_NAME",
            "dbHost",
        ] {
            assert!(is_host_setting(name), "{name}");
        }
        for name in ["OTEL_SERVICE_NAME", "APP", "DB_HOST_PORT", "LOG_LEVEL", "", "HOST_HEADER", "MODE"] {
            assert!(!is_host_setting(name), "{name}");
        }
    }

    /// A text of a megabyte is read once, and what it names is limited.
    #[test]
    fn long_texts_are_bounded() {
        let many: String = (0..100_000).map(|n| format!("http://h{n}:80 ")).collect();
        assert_eq!(host_mentions(&many, 1000).len(), 1000);
        for text in [
            "a".repeat(1 << 20),
            "a.".repeat(1 << 19),
            ":".repeat(1 << 20),
            "host=".repeat(1 << 18),
            "://".repeat(1 << 18),
        ] {
            assert!(host_mentions(&text, 1000).len() <= 1);
        }
    }
}
