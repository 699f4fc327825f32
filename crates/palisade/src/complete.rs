//! Completes names of objects on the command line: from the manifests that `-f` names, else from the cluster.
//!
//! A shell waits for the answer, so reading has a time limit, and problems are not reported: then there are no candidates.

use std::{collections::BTreeSet, path::PathBuf, sync::mpsc, thread, time::Duration};

use palisade_manifest::{Input, LoadOptions, Loaded};

/// The time limit. Longer waits feel like a shell that hangs.
const LIMIT: Duration = Duration::from_millis(1500);

/// The most candidates. A shell shows no more in a useful way.
const MAX_NAMES: usize = 2000;

/// The verbs whose words are names of objects.
const VERBS: [&str; 3] = ["can", "describe", "explain"];

/// The options whose values are names of objects, in any verb.
const OPTIONS: [&str; 3] = ["--from", "--to", "--ingress-controller"];

/// What may be completed at the end of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Ends of connections.
    Ends,
    /// Namespaces.
    Namespaces,
}

impl Wanted {
    /// Returns what the next word of a command line may be; `None` if it is no name of an object.
    pub(crate) fn after(before: &[String]) -> Option<Self> {
        let last = before.last().map_or("", |word| &**word);
        if matches!(last, "-n" | "--namespace") {
            return Some(Self::Namespaces);
        }
        let is_value = OPTIONS.contains(&last);
        // The value of another option is no name. Flags without a value come after the names as a rule.
        let is_word = before.first().is_some_and(|verb| VERBS.contains(&&**verb)) && !last.starts_with('-');
        (is_value || is_word).then_some(Self::Ends)
    }
}

/// Returns the names of objects that complete `last`, sorted. Never fails, and never takes longer than [`LIMIT`].
pub(crate) fn names(before: &[String], last: &str, wanted: Wanted) -> Vec<String> {
    let question = Question::of(before);
    let (send, receive) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || {
        let found = question.read().map(|loaded| question.candidates(&loaded, wanted));
        // The receiver may have given up.
        _ = send.send(found.unwrap_or_default());
    });
    let found: BTreeSet<String> = match started {
        Ok(_) => receive.recv_timeout(LIMIT).unwrap_or_default(),
        Err(_) => BTreeSet::new(),
    };
    found.into_iter().filter(|name| name.starts_with(last)).take(MAX_NAMES).collect()
}

/// Where the objects are, by the words of the command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Question {
    files: Vec<String>,
    namespace: Option<String>,
    context: Option<String>,
    kubeconfig: Option<PathBuf>,
}

impl Question {
    fn of(before: &[String]) -> Self {
        let mut out = Self::default();
        let mut words = before.iter();
        while let Some(word) = words.next() {
            // `--file=PATH`, `--file PATH`, `-f PATH` and `-fPATH`.
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
                _ if word.starts_with("-f") && word.len() > 2 => ("-f", Some(word[2..].to_owned())),
                _ if word.starts_with("-n") && word.len() > 2 => ("-n", Some(word[2..].to_owned())),
                _ => (&**word, None),
            };
            let mut value = || value.clone().or_else(|| words.next().cloned());
            match option {
                "-f" | "--file" => out.files.extend(value()),
                "-n" | "--namespace" => out.namespace = value(),
                "--context" => out.context = value(),
                "--kubeconfig" => out.kubeconfig = value().map(PathBuf::from),
                _ => {}
            }
        }
        out
    }

    /// Reads the objects; `None` if that is not possible. Standard input belongs to the command that is being typed.
    fn read(&self) -> Option<Loaded> {
        let inputs: Vec<Input> = if self.files.is_empty() {
            self.read_cluster()?
        } else {
            let files = self.files.iter().filter(|file| *file != "-");
            files.map(|file| Input::of_argument(file)).collect()
        };
        let default_namespace = self.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let options = LoadOptions { default_namespace, ..LoadOptions::default() };
        (!inputs.is_empty()).then(|| palisade_manifest::load(&inputs, &options))
    }

    /// Reads the cluster; `None` if that is not possible.
    #[cfg(feature = "live")]
    fn read_cluster(&self) -> Option<Vec<Input>> {
        use palisade_api::{Access, ReadOptions, read_blocking};

        let access = Access {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            timeout: Some(LIMIT),
        };
        let options = ReadOptions { namespace: self.namespace.as_deref(), progress: None };
        Some(read_blocking(&access, options).ok()?.inputs().collect())
    }

    #[cfg(not(feature = "live"))]
    #[expect(clippy::unused_self, reason = "the signature is that of a build with a client")]
    fn read_cluster(&self) -> Option<Vec<Input>> {
        None
    }

    fn candidates(&self, loaded: &Loaded, wanted: Wanted) -> BTreeSet<String> {
        let cluster = &loaded.cluster;
        let mut out = BTreeSet::new();
        if wanted == Wanted::Namespaces {
            out.extend(cluster.namespaces.keys().map(ToString::to_string));
            return out;
        }
        out.insert("internet".to_owned());
        out.extend(cluster.namespaces.keys().map(|name| format!("ns/{name}")));
        out.extend(cluster.nodes.keys().map(|name| format!("node/{name}")));
        // With -n, names of this namespace need none.
        let within = |namespace: &str, name: &str| match &self.namespace {
            Some(own) if own == namespace => name.to_owned(),
            _ => format!("{namespace}/{name}"),
        };
        for (namespace, workload) in loaded.workloads.keys() {
            let short = within(namespace, &workload.name);
            if !out.insert(short) {
                // Two workloads of one name are told apart by their kinds.
                out.insert(within(namespace, &format!("{}/{}", workload.kind.to_lowercase(), workload.name)));
            }
        }
        out.extend(cluster.services.keys().map(|key| within(&key.namespace, &format!("svc/{}", key.name))));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn names_are_wanted_where_they_may_stand() {
        let after = |text: &str| Wanted::after(&words(text));
        for text in [
            "can",
            "can shop/web",
            "explain",
            "describe",
            "connections --to",
            "connections --from",
            "can -n shop",
        ] {
            assert_eq!(after(text), Some(Wanted::Ends), "{text}");
        }
        assert_eq!(after("can -n"), Some(Wanted::Namespaces));
        for text in ["", "connections", "can -f", "can -o", "lab run", "diff"] {
            assert_eq!(after(text), None, "{text}");
        }
    }

    #[test]
    fn options_are_read_in_every_form() {
        let question = Question::of(&words("can -f a --file=b -fc --context x -n shop"));
        assert_eq!(question.files, ["a", "b", "c"]);
        assert_eq!((question.context.as_deref(), question.namespace.as_deref()), (Some("x"), Some("shop")));
    }
}
