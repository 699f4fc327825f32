//! Which requests are answered: any page in the user's browser can send requests to this machine, and so can other users of it.

use std::net::SocketAddr;

use hyper::{
    HeaderMap, Method, Uri,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
};

use super::token::Token;

/// Says from where the browser sends a request. Set by the browser; pages can't.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request must be to be answered.
pub(super) struct Gate {
    /// The names of this server in the header `Host`. A name that an attacker's DNS points at this machine is none of them.
    hosts: Vec<String>,
    token: Token,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The header `Host` names another server.
    Host,
    /// A page of another origin sent it.
    Origin,
    /// It has no token, or another one.
    Token,
    /// It has another method than this one.
    Method(&'static str),
}

impl Gate {
    pub(super) fn new(address: SocketAddr, token: Token) -> Self {
        let mut hosts = vec![address.to_string(), format!("localhost:{}", address.port())];
        // Browsers leave out the default port of HTTP.
        if address.port() == 80 {
            hosts.extend([address.ip().to_string(), "localhost".to_owned()]);
        }
        Self { hosts, token }
    }

    /// Checks what every request must be: for this server, and from its own pages or from none.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.as_bytes(),
            _ => return Err(Refusal::Host),
        };
        if !self.hosts.iter().any(|own| own.as_bytes() == host) {
            return Err(Refusal::Host);
        }
        // The target of a request may name a server too, as those to a proxy do.
        if uri.authority().is_some_and(|named| named.as_str().as_bytes() != host)
            || uri.scheme_str().is_some_and(|scheme| scheme != "http")
        {
            return Err(Refusal::Host);
        }
        let own_origin = |origin: &[u8]| origin.strip_prefix(b"http://").is_some_and(|rest| rest == host);
        if !headers.get_all(ORIGIN).iter().all(|origin| own_origin(origin.as_bytes())) {
            return Err(Refusal::Origin);
        }
        Ok(())
    }

    /// Checks that a request for data comes from the server's own pages and has the token.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn check_data(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let from_elsewhere = |site: &[u8]| site != b"same-origin" && site != b"none";
        if headers.get_all(SEC_FETCH_SITE).iter().any(|site| from_elsewhere(site.as_bytes())) {
            return Err(Refusal::Origin);
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if given.is_some_and(|token| self.token.is(token)) { Ok(()) } else { Err(Refusal::Token) }
    }
}

/// Checks that a request has the method of its path. Nothing can be written: `POST` carries questions that are too long for a
/// URL.
///
/// # Errors
/// When it has another one.
pub(super) fn check_method(method: &Method, own: &'static str) -> Result<(), Refusal> {
    if method.as_str() == own { Ok(()) } else { Err(Refusal::Method(own)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut out = HeaderMap::new();
        for (name, value) in pairs {
            out.append(*name, value.parse().unwrap());
        }
        out
    }

    fn gate() -> Gate {
        Gate::new("127.0.0.1:4711".parse().unwrap(), Token::new().unwrap())
    }

    #[test]
    fn only_this_server_is_asked() {
        let gate = gate();
        for own in ["127.0.0.1:4711", "localhost:4711"] {
            assert_eq!(gate.check(&Uri::from_static("/"), &headers(&[("host", own)])), Ok(()));
        }
        for other in ["127.0.0.1", "127.0.0.1:4712", "evil.example:4711", "localhost", "[::1]:4711", ""] {
            assert_eq!(
                gate.check(&Uri::from_static("/"), &headers(&[("host", other)])),
                Err(Refusal::Host),
                "{other}"
            );
        }
        assert_eq!(gate.check(&Uri::from_static("/"), &headers(&[])), Err(Refusal::Host));
        let twice = headers(&[("host", "localhost:4711"), ("host", "localhost:4711")]);
        assert_eq!(gate.check(&Uri::from_static("/"), &twice), Err(Refusal::Host));
    }

    #[test]
    fn the_target_names_this_server_or_none() {
        let gate = gate();
        let check =
            |target: &str| gate.check(&target.parse().unwrap(), &headers(&[("host", "localhost:4711")]));
        for own in ["/", "/api/v1/state", "http://localhost:4711/", "*"] {
            assert_eq!(check(own), Ok(()), "{own}");
        }
        for other in [
            "http://evil.example/",
            "http://localhost/",
            "http://a@localhost:4711/",
            "http://127.0.0.1:4711/",
            "https://localhost:4711/",
            "evil.example:4711",
        ] {
            assert_eq!(check(other), Err(Refusal::Host), "{other}");
        }
    }

    #[test]
    fn the_default_port_may_be_left_out() {
        let gate = Gate::new("127.0.0.1:80".parse().unwrap(), Token::new().unwrap());
        let check = |pairs: &[(&'static str, &str)]| gate.check(&Uri::from_static("/"), &headers(pairs));
        for own in ["127.0.0.1", "127.0.0.1:80", "localhost", "localhost:80"] {
            assert_eq!(check(&[("host", own), ("origin", &format!("http://{own}"))]), Ok(()), "{own}");
        }
        assert_eq!(check(&[("host", "evil.example")]), Err(Refusal::Host));
    }

    #[test]
    fn only_own_pages_ask() {
        let gate = gate();
        let with = |name, value| headers(&[("host", "localhost:4711"), (name, value)]);
        assert_eq!(gate.check(&Uri::from_static("/"), &with("origin", "http://localhost:4711")), Ok(()));
        for other in
            ["null", "https://localhost:4711", "http://127.0.0.1:4711", "http://localhost:80", "http://evil"]
        {
            assert_eq!(
                gate.check(&Uri::from_static("/"), &with("origin", other)),
                Err(Refusal::Origin),
                "{other}"
            );
        }
        for site in ["cross-site", "same-site", "x"] {
            assert_eq!(gate.check_data(&with("sec-fetch-site", site)), Err(Refusal::Origin), "{site}");
        }
    }

    #[test]
    fn data_needs_the_token() {
        let gate = gate();
        let own = format!("Bearer {}", gate.token.text());
        assert_eq!(gate.check_data(&headers(&[("authorization", &own)])), Ok(()));
        for other in ["Bearer x", "Bearer ", "", gate.token.text()] {
            assert_eq!(
                gate.check_data(&headers(&[("authorization", other)])),
                Err(Refusal::Token),
                "{other}"
            );
        }
        assert_eq!(gate.check_data(&headers(&[])), Err(Refusal::Token));
    }
}
