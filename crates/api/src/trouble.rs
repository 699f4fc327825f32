//! What goes wrong between us and an API server, in words and with a cure.

use std::{error::Error, time::Duration};

use kube::{client::AuthError, config::KubeconfigError};

/// Why a request has no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// 403.
    #[error("the server refuses it: {0}")]
    Refused(String),
    /// 401.
    #[error(
        "the server does not accept the credentials (401): log in again, or choose another context ({0})"
    )]
    Unauthorized(String),
    /// 404: not served.
    #[error("the server does not know it (404)")]
    NotFound,
    /// 410: what was asked for is too old.
    #[error("the server has forgotten where the list was (410), again and again")]
    Expired,
    /// No answer in time.
    #[error("no answer within {}; a larger --request-timeout waits longer", seconds(*.0))]
    TimedOut(Duration),
    /// Nobody is there.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The server shows a certificate that isn't accepted, or doesn't accept ours.
    #[error("{0}")]
    Certificate(String),
    /// The connection ended in the middle.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Not what an API server says.
    #[error("the answer is not one of an API server: {0}")]
    Garbage(String),
    /// The credentials can't be had.
    #[error("no credentials: {0}")]
    Credentials(String),
    /// The server failed.
    #[error("the server failed ({0}): {1}")]
    Server(u16, String),
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds == seconds.trunc() { format!("{seconds} s") } else { format!("{} ms", duration.as_millis()) }
}

impl Trouble {
    /// What kept `error` from being an answer.
    pub(crate) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, &status.message),
            kube::Error::Auth(error) => Self::Credentials(of_auth(error)),
            kube::Error::FromUtf8(_) => Self::Garbage("it is not UTF-8".to_owned()),
            other => of_transport(other),
        }
    }

    fn of_status(code: u16, message: &str) -> Self {
        let said = line(message);
        match code {
            401 => Self::Unauthorized(said),
            403 => Self::Refused(said),
            404 => Self::NotFound,
            410 => Self::Expired,
            code => Self::Server(code, said),
        }
    }
}

/// The first line, as far as anybody reads.
fn line(text: &str) -> String {
    let first: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if first.is_empty() {
        return "it says nothing".to_owned();
    }
    first.chars().take(300).collect()
}

/// What all errors below one say; an error often repeats the one below it.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        all.push(line(&error.to_string()));
        next = error.source();
    }
    all
}

fn of_transport(error: &kube::Error) -> Trouble {
    let all = chain(error);
    let deepest = all.last().cloned().unwrap_or_default();
    let says = |words: &str| all.iter().any(|text| text.contains(words));
    let tls = [
        "certificate",
        "CertificateError",
        "tls handshake",
        "fatal alert",
        "InvalidContentType",
        "corrupt message",
    ];
    if tls.iter().any(|words| says(words)) {
        return Trouble::Certificate(of_certificate(&all));
    }
    if says("invalid HTTP version") {
        return Trouble::Garbage("should the `server` of the kubeconfig begin with https://?".to_owned());
    }
    if says("Connection refused") {
        return Trouble::Unreachable(
            "connection refused: nothing listens there; is the cluster running?".to_owned(),
        );
    }
    if says("dns error") || says("failed to lookup") {
        return Trouble::Unreachable(format!("the server's name cannot be resolved ({deepest})"));
    }
    if says("deadline has elapsed") || says("timed out") {
        return Trouble::Unreachable(
            "the connection is not answered: a firewall, or a VPN that is off?".to_owned(),
        );
    }
    if says("tcp connect error") || says("unreachable") {
        return Trouble::Unreachable(deepest);
    }
    Trouble::Broken(deepest)
}

fn of_certificate(all: &[String]) -> String {
    let says = |words: &str| all.iter().any(|text| text.contains(words));
    let what = if says("Expired") || says("certificate expired") {
        "the server's certificate has expired, or this machine's clock is wrong: renew it"
    } else if says("NotValidYet") {
        "the server's certificate is not valid yet: is this machine's clock right?"
    } else if says("NotValidForName") || says("not valid for name") {
        "the server's certificate is for another name: is the `server` of the kubeconfig right?"
    } else if says("UnknownIssuer") || says("BadSignature") {
        "the server's certificate is not signed by the kubeconfig's `certificate-authority`: is this the right cluster?"
    } else if says("received fatal alert") {
        "the server does not accept the kubeconfig's client certificate: has it expired?"
    } else if says("InvalidContentType") || says("corrupt message") || says("handshake eof") {
        "the server does not speak TLS at this address: should the `server` of the kubeconfig begin with http://?"
    } else {
        "no trust in the server's certificate"
    };
    format!("{what} ({})", all.last().map_or("", String::as_str))
}

/// What is wrong with a kubeconfig.
pub(crate) fn of_kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => format!("{} cannot be read: {error}", path.display()),
        KubeconfigError::Parse(error) => format!("it is no kubeconfig: {}", line(&error.to_string())),
        KubeconfigError::LoadClusterOfContext(cluster) => {
            format!("its context names the cluster `{cluster}`, which it does not have")
        }
        KubeconfigError::MissingClusterUrl => "its cluster has no `server`".to_owned(),
        KubeconfigError::ParseClusterUrl(error) => format!("the `server` of its cluster is no URL: {error}"),
        KubeconfigError::LoadCertificateAuthority(error) => format!("`certificate-authority`: {error}"),
        KubeconfigError::LoadClientCertificate(error) => format!("`client-certificate`: {error}"),
        KubeconfigError::LoadClientKey(error) => format!("`client-key`: {error}"),
        other => line(&other.to_string()),
    }
}

/// Why there are no credentials.
pub(crate) fn of_auth(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecStart(error) => format!(
            "the program that the kubeconfig names for it cannot be run ({error}): install it, or log in another way"
        ),
        AuthError::AuthExecRun { cmd, out } => {
            let program = cmd.split_whitespace().next().unwrap_or(cmd).trim_matches('"');
            let said = String::from_utf8_lossy(&out.stderr);
            let said = said.lines().rfind(|l| !l.trim().is_empty()).map(|l| format!(": {}", line(l)));
            format!(
                "{program}, the program that the kubeconfig names for it, failed ({}){}; log in again, and run it by hand to \
                 see more",
                out.status,
                said.unwrap_or_default()
            )
        }
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => {
            "the program that the kubeconfig names for it answers with something that is no ExecCredential"
                .to_owned()
        }
        AuthError::MissingCommand => "the kubeconfig's `exec` names no command".to_owned(),
        AuthError::ReadTokenFile(error, path) => {
            format!("the token file {} cannot be read: {error}", path.display())
        }
        other => chain(other).join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_words_are_one_line_without_control_characters() {
        assert_eq!(line("a\u{1b}[31mb\nc"), "a[31mb");
        assert_eq!(line(""), "it says nothing");
        assert_eq!(line(&"x".repeat(1000)).len(), 300);
    }

    #[test]
    fn durations_are_words() {
        assert_eq!(
            Trouble::TimedOut(Duration::from_secs(30)).to_string(),
            "no answer within 30 s; a larger --request-timeout waits longer"
        );
        assert!(Trouble::TimedOut(Duration::from_millis(250)).to_string().contains("250 ms"));
    }
}
