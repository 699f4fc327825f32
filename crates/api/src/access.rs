//! Which API server, and as whom.

use std::{io, path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Which API server to ask, and as whom. The default is what `kubectl` would do: `$KUBECONFIG`, else `~/.kube/config`, else
/// the service account of the pod in which we run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file instead.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it other than its current one.
    pub context: Option<String>,
    /// How long one request may take to answer; `None` for the client's default. Watches are not cut off by it.
    pub timeout: Option<Duration>,
}

/// A way to an API server.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// The server's address.
    pub server: String,
    /// The context of the kubeconfig; `None` for a service account.
    pub context: Option<String>,
    /// The namespace that the context or service account names; `default` if none.
    pub namespace: String,
}

/// Why there is no way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig.
    #[error("cannot use the kubeconfig{}: {why}", in_file(file.as_ref()))]
    Kubeconfig {
        /// The file, if one was named.
        file: Option<PathBuf>,
        /// What is wrong with it, in words.
        why: String,
    },
    /// A context that isn't there, or none at all.
    #[error("the kubeconfig{} {}; {}", in_file(file.as_ref()), lacks(context.as_deref()), has(known))]
    Context {
        /// The file, if one was named.
        file: Option<PathBuf>,
        /// The context asked for; `None`: none was, and the file has no current one.
        context: Option<String>,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no cluster to ask: no kubeconfig and no service account (set KUBECONFIG, or name one with --kubeconfig)"
    )]
    NoCluster,
    /// The credentials can't be had: a program of the kubeconfig failed, a token file can't be read.
    #[error("cannot get the credentials for {server}: {why}")]
    Credentials {
        /// The server's address.
        server: String,
        /// What went wrong and what to do, in words.
        why: String,
    },
    /// The client can't be made.
    #[error("cannot make a client for {server}")]
    Client {
        /// The server's address.
        server: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
}

fn in_file(file: Option<&PathBuf>) -> String {
    file.map(|f| format!(" {}", f.display())).unwrap_or_default()
}

fn lacks(context: Option<&str>) -> String {
    match context {
        Some(context) => format!("has no context `{context}`"),
        None => "has no current context".to_owned(),
    }
}

fn has(known: &[String]) -> String {
    match known {
        [] => "it has no contexts at all".to_owned(),
        known => format!("choose one with --context: {}", known.join(", ")),
    }
}

impl Access {
    /// A client. Talks to nobody yet. It repeats what an overloaded server refuses (429, 503, 504).
    ///
    /// # Errors
    /// When there is no usable configuration.
    pub async fn connect(&self) -> Result<Client, AccessError> {
        Ok(self.open().await?.client)
    }

    /// A client that repeats nothing by itself: [`crate::watch()`] and [`crate::report()`] have pauses of their own, and say
    /// what they wait for.
    ///
    /// # Errors
    /// When there is no usable configuration.
    pub async fn connect_for_watching(&self) -> Result<Client, AccessError> {
        Ok(self.open_with(false).await?.client)
    }

    /// A client, and what it leads to. Talks to nobody yet, though a program that the kubeconfig names for getting
    /// credentials is run.
    ///
    /// # Errors
    /// When there is no usable configuration.
    pub async fn open(&self) -> Result<Connection, AccessError> {
        self.open_with(true).await
    }

    async fn open_with(&self, repeats: bool) -> Result<Connection, AccessError> {
        let (mut config, context) = self.config().await?;
        config.default_retry = repeats;
        if self.timeout.is_some() {
            config.connect_timeout = self.timeout;
        }
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        match Client::try_from(config) {
            Ok(client) => Ok(Connection { client, server, context, namespace }),
            Err(kube::Error::Auth(error)) => {
                Err(AccessError::Credentials { server, why: crate::trouble::of_auth(&error) })
            }
            Err(source) => Err(AccessError::Client { server, source }),
        }
    }

    async fn config(&self) -> Result<(Config, Option<String>), AccessError> {
        let file = self.kubeconfig.clone();
        let failed = |error| AccessError::Kubeconfig {
            file: file.clone(),
            why: crate::trouble::of_kubeconfig(&error),
        };
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let kubeconfig = match read {
            // Where nobody asked for a kubeconfig and there is none, the pod's service account does.
            Err(error) if self.kubeconfig.is_none() && self.context.is_none() && is_absent(&error) => {
                return Config::incluster().map(|c| (c, None)).map_err(|_| AccessError::NoCluster);
            }
            read => read.map_err(failed)?,
        };
        let context = self.context.clone().or_else(|| kubeconfig.current_context.clone());
        let context = context.filter(|c| !c.is_empty());
        let known: Vec<String> = kubeconfig.contexts.iter().map(|c| c.name.clone()).collect();
        if !context.as_ref().is_some_and(|c| known.contains(c)) {
            return Err(AccessError::Context { file, context, known });
        }
        let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?;
        Ok((config, context))
    }
}

/// Whether there simply is no kubeconfig.
fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
