//! Which API server to use, and with which credentials.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::error::{auth_error, kubeconfig_error};

/// Which API server to use, and with which credentials. The default is that of `kubectl`: `$KUBECONFIG`, else `~/.kube/config`, else the
/// service account of the pod in which we run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file, instead of the default.
    pub kubeconfig: Option<PathBuf>,
    /// A context, instead of the current one of the kubeconfig.
    pub context: Option<String>,
    /// How long the response to one request may take; `None` for the client's default. It does not limit watches.
    pub timeout: Option<Duration>,
}

/// A client, and the server that it connects to.
#[derive(Clone)]
pub struct ClusterConnection {
    /// The client.
    pub client: Client,
    /// The server's address.
    pub server: String,
    /// The context of the kubeconfig; `None` for a service account.
    pub context: Option<String>,
    /// The namespace of the context or service account; `default` if it has none.
    pub namespace: String,
}

/// Why there is no client for an API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig can't be used.
    #[error("cannot use the kubeconfig{}: {why}", in_file(file.as_ref()))]
    Kubeconfig {
        /// The file, if one was named.
        file: Option<PathBuf>,
        /// What is wrong with it, as text.
        why: String,
    },
    /// The context doesn't exist, or the kubeconfig has no current one.
    #[error("the kubeconfig{} {}; {}", in_file(file.as_ref()), no_context(context.as_deref()), choices(known))]
    Context {
        /// The file, if one was named.
        file: Option<PathBuf>,
        /// The requested context; `None` if none was requested and the file has no current one.
        context: Option<String>,
        /// The contexts of the file.
        known: Vec<String>,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error(
        "no cluster: there is no kubeconfig and no service account{} (set KUBECONFIG or use --kubeconfig)",
        missing.as_ref().map(|file| format!(": {} does not exist", file.display())).unwrap_or_default()
    )]
    NoCluster {
        /// The file where a kubeconfig was looked for: that of `KUBECONFIG`, else `~/.kube/config`.
        missing: Option<PathBuf>,
    },
    /// The credentials can't be obtained: a credential plugin failed, or a token file can't be read.
    #[error("cannot get the credentials for {server}: {why}")]
    Credentials {
        /// The server's address.
        server: String,
        /// The cause and what to do about it, as text.
        why: String,
    },
    /// The client can't be created.
    #[error("cannot create a client for {server}")]
    Client {
        /// The server's address.
        server: String,
        /// The cause.
        #[source]
        source: kube::Error,
    },
}

fn in_file(file: Option<&PathBuf>) -> String {
    file.map(|f| format!(" {}", f.display())).unwrap_or_default()
}

/// Returns the kubeconfig that is read if none is named; `None` if `KUBECONFIG` lists several, which are merged.
fn only_kubeconfig() -> Option<PathBuf> {
    match std::env::var_os("KUBECONFIG").filter(|files| !files.is_empty()) {
        Some(files) => {
            let mut files = std::env::split_paths(&files).filter(|file| !file.as_os_str().is_empty());
            files.next().filter(|_| files.next().is_none())
        }
        None => std::env::home_dir().map(|home| home.join(".kube/config")),
    }
}

fn no_context(context: Option<&str>) -> String {
    match context {
        Some(context) => format!("has no context `{context}`"),
        None => "has no current context".to_owned(),
    }
}

fn choices(known: &[String]) -> String {
    match known {
        [] => "it has no contexts".to_owned(),
        known => format!("choose one with --context: {}", known.join(", ")),
    }
}

impl Access {
    /// Makes a client, without sending a request. The client retries requests that an overloaded server refuses (429, 503, 504).
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub async fn connect(&self) -> Result<Client, AccessError> {
        Ok(self.open().await?.client)
    }

    /// Makes a client that does not retry, for [`crate::watch()`] and [`crate::report()`]: they have their own backoff and report what
    /// they wait for.
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub async fn connect_without_retries(&self) -> Result<Client, AccessError> {
        Ok(self.open_with(false).await?.client)
    }

    /// Makes a client and returns it with the server that it connects to. No request is sent, but the kubeconfig's credential plugin is
    /// run.
    ///
    /// # Errors
    /// If there is no usable configuration.
    pub async fn open(&self) -> Result<ClusterConnection, AccessError> {
        self.open_with(true).await
    }

    async fn open_with(&self, retries: bool) -> Result<ClusterConnection, AccessError> {
        let (mut config, context) = self.config().await?;
        config.default_retry = retries;
        if self.timeout.is_some() {
            config.connect_timeout = self.timeout;
        }
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        match Client::try_from(config) {
            Ok(client) => Ok(ClusterConnection { client, server, context, namespace }),
            Err(kube::Error::Auth(error)) => {
                Err(AccessError::Credentials { server, why: auth_error(&error) })
            }
            Err(source) => Err(AccessError::Client { server, source }),
        }
    }

    /// Returns the address of the Service `default/kubernetes`, such as `10.96.0.1:443`, if that is the server: there is no kubeconfig, so
    /// the address is the one that the kubelet gives to every container. `None` if the pod's manifest gives the address of something else, as
    /// far as that is recognizable: a name is no address of a Service.
    ///
    /// It works only on a node whose service proxy runs.
    #[must_use]
    pub fn service_address(&self) -> Option<String> {
        let has_choice = self.kubeconfig.is_some() || self.context.is_some();
        if has_choice || !Kubeconfig::read().is_err_and(|error| is_absent(&error)) {
            return None;
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address: IpAddr = variable("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
        let port: u16 = variable("KUBERNETES_SERVICE_PORT")?.parse().ok()?;
        Some(SocketAddr::new(address, port).to_string())
    }

    async fn config(&self) -> Result<(Config, Option<String>), AccessError> {
        let file = self.kubeconfig.clone();
        let failed = |error| AccessError::Kubeconfig {
            // The error of a file that can't be read has its path.
            file: file.clone().or_else(|| match &error {
                KubeconfigError::ReadConfig(..) => None,
                _ => only_kubeconfig(),
            }),
            why: kubeconfig_error(&error),
        };
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let kubeconfig = match read {
            // Without a kubeconfig the service account of the pod is used, unless one was requested.
            Err(error) if self.kubeconfig.is_none() && self.context.is_none() && is_absent(&error) => {
                let missing = match error {
                    KubeconfigError::ReadConfig(_, file) => Some(file),
                    _ => None,
                };
                return Config::incluster()
                    .map(|c| (c, None))
                    .map_err(|_| AccessError::NoCluster { missing });
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

/// Whether there is no kubeconfig.
fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
