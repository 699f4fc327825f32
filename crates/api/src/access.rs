//! Which API server, and as whom.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
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

/// Why there is no way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig.
    #[error("cannot use the kubeconfig{}", in_file(file.as_ref()))]
    Kubeconfig {
        /// The file, if one was named.
        file: Option<PathBuf>,
        /// What is wrong with it.
        #[source]
        source: KubeconfigError,
    },
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no cluster to ask: no kubeconfig and no service account (set KUBECONFIG, or name one with --kubeconfig)"
    )]
    NoCluster(#[source] InferConfigError),
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

impl Access {
    /// A client. Talks to nobody yet. It repeats what an overloaded server refuses (429, 503, 504).
    ///
    /// # Errors
    /// When there is no usable configuration.
    pub async fn connect(&self) -> Result<Client, AccessError> {
        self.client(true).await
    }

    /// A client that repeats nothing by itself: [`crate::watch()`] has pauses of its own, and
    /// says what it waits for.
    ///
    /// # Errors
    /// When there is no usable configuration.
    pub async fn connect_for_watching(&self) -> Result<Client, AccessError> {
        self.client(false).await
    }

    async fn client(&self, repeats: bool) -> Result<Client, AccessError> {
        let mut config = self.config().await?;
        config.default_retry = repeats;
        if self.timeout.is_some() {
            config.connect_timeout = self.timeout;
        }
        let server = config.cluster_url.to_string();
        Client::try_from(config).map_err(|source| AccessError::Client { server, source })
    }

    async fn config(&self) -> Result<Config, AccessError> {
        if self.kubeconfig.is_none() && self.context.is_none() {
            return Config::infer().await.map_err(AccessError::NoCluster);
        }
        let failed = |source| AccessError::Kubeconfig { file: self.kubeconfig.clone(), source };
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig.map_err(failed)?, &options).await.map_err(failed)
    }
}
