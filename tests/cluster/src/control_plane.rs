//! etcd and the API server, and requests to them.

use std::{
    fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use palisade_lab::namespace::Namespace;
use serde_json::json;

use crate::{
    certificates::{Authority, Pair, signing_key},
    eventually,
    process::{Process, last_lines},
    programs::Programs,
};

/// Where the API server listens.
pub const PORT: u16 = 6443;
/// How long it may take to be ready: with cold caches, on a busy machine with two cores.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// How long a request may take, so that a test fails rather than hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The credentials of a client.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A client certificate.
    Certificate(Pair),
    /// A token in a file, which is re-read.
    TokenFile(PathBuf),
}

/// What else will run in the cluster, which decides how the API server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// No controller: no scheduler, no garbage collection, no default service accounts.
    None,
    /// A controller manager, a scheduler and kubelets, as in any cluster.
    Controllers,
}

/// A running control plane: etcd and the API server.
#[derive(Debug)]
pub struct ControlPlane {
    company: Company,
    namespace: Namespace,
    address: IpAddr,
    programs: Programs,
    folder: PathBuf,
    authority: Authority,
    admin: PathBuf,
    server: Server,
    // Dropped in this order.
    api: Option<Process>,
    _etcd: Process,
}

/// The files that an API server needs.
#[derive(Debug)]
struct Server {
    pair: Pair,
    /// For the tokens of service accounts: private, public.
    signing: (PathBuf, PathBuf),
    /// The identity with which it connects to kubelets.
    kubelet_client: Pair,
}

impl ControlPlane {
    /// Starts etcd and the API server in `namespace`, which has the address `address`, with files in `folder`. Returns when the API
    /// server is ready.
    ///
    /// # Errors
    /// If one of them doesn't start, with the end of its log.
    pub fn start(
        namespace: Namespace,
        address: IpAddr,
        folder: &Path,
        programs: &Programs,
        company: Company,
    ) -> Result<Self> {
        let authority = Authority::new(folder, "ca")?;
        let own = address.to_string();
        let names = [own.as_str(), "127.0.0.1", "10.96.0.1", "fd00:10:96::1", "kubernetes.default.svc"];
        let server = Server {
            pair: authority.server("server", &names)?,
            signing: signing_key(folder, "service-accounts")?,
            kubelet_client: authority.user("kubelet-client", "system:masters")?,
        };
        let admin = authority.user("admin", "system:masters")?;
        let etcd = Process::start("etcd", &namespace, etcd(programs, &folder.join("etcd")), folder)?;
        let mut plane = Self {
            company,
            namespace,
            address,
            programs: programs.clone(),
            folder: folder.to_owned(),
            admin: folder.join("admin.kubeconfig"),
            authority,
            server,
            api: None,
            _etcd: etcd,
        };
        plane.kubeconfig("admin", &Identity::Certificate(admin), None)?;
        plane.start_api()?;
        Ok(plane)
    }

    /// The namespace of the API server.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The authority that signs the certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The private key that signs the tokens of service accounts.
    #[must_use]
    pub fn token_key(&self) -> &Path {
        &self.server.signing.0
    }

    /// The kubeconfig of a cluster administrator.
    #[must_use]
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// Kills the API server. Its connections are closed.
    pub fn stop_api(&mut self) {
        self.api = None;
    }

    /// Suspends or resumes the API server. While it is suspended connections stay open without responses.
    ///
    /// # Errors
    /// If it is not running.
    pub fn freeze_api(&self, frozen: bool) -> Result<()> {
        use nix::sys::signal::Signal;
        let api = self.api.as_ref().context("the API server is not running")?;
        api.signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT })
    }

    /// Starts the API server, and waits until it is ready.
    ///
    /// # Errors
    /// If it doesn't become ready, with the end of its log.
    pub fn start_api(&mut self) -> Result<()> {
        let api = Process::start("kube-apiserver", &self.namespace, self.api_server(), &self.folder)?;
        let api = self.api.insert(api);
        let (namespace, admin) = (&self.namespace, &self.admin);
        eventually("the API server", READY_WITHIN, || {
            if let Some(status) = api.exit_status()? {
                bail!("the API server exited: {status}\n{}", last_lines(&api.log(), 20));
            }
            let ready = run(namespace, admin, async |client| {
                Ok(client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?)
            });
            Ok(ready.map_err(|e| format!("{e:#}\n{}", last_lines(&api.log(), 20))))
        })?;
        Ok(())
    }

    fn api_server(&self) -> Command {
        let mut command = Command::new(self.programs.control_plane("kube-apiserver"));
        let file = |p: &Path| p.display().to_string();
        let (private, public) = &self.server.signing;
        let flags = [
            ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
            ("bind-address", self.address.to_string()),
            ("advertise-address", self.address.to_string()),
            ("secure-port", PORT.to_string()),
            ("tls-cert-file", file(&self.server.pair.certificate)),
            ("tls-private-key-file", file(&self.server.pair.key)),
            ("client-ca-file", file(&self.authority.certificate())),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-signing-key-file", file(private)),
            ("service-account-key-file", file(public)),
            ("service-cluster-ip-range", "10.96.0.0/16,fd00:10:96::/112".to_owned()),
            ("allow-privileged", "true".to_owned()),
        ];
        let kubelet_client = &self.server.kubelet_client;
        let others = match self.company {
            Company::None => vec![
                ("authorization-mode", "RBAC".to_owned()),
                ("endpoint-reconciler-type", "none".to_owned()),
                // No controller creates the service accounts that this plugin requires in every namespace.
                ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ],
            Company::Controllers => vec![
                ("authorization-mode", "Node,RBAC".to_owned()),
                ("enable-admission-plugins", "NodeRestriction".to_owned()),
                ("kubelet-client-certificate", file(&kubelet_client.certificate)),
                ("kubelet-client-key", file(&kubelet_client.key)),
                ("kubelet-preferred-address-types", "InternalIP".to_owned()),
            ],
        };
        command.args(flags.into_iter().chain(others).map(|(name, value)| format!("--{name}={value}")));
        command.current_dir(&self.folder);
        command
    }

    /// Writes a kubeconfig. It trusts `authority`, or by default the authority that signed the server's certificate.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn kubeconfig(
        &self,
        name: &str,
        identity: &Identity,
        authority: Option<&Authority>,
    ) -> Result<PathBuf> {
        let user = match identity {
            Identity::Certificate(pair) => {
                json!({"client-certificate": pair.certificate, "client-key": pair.key})
            }
            Identity::TokenFile(file) => json!({"tokenFile": file}),
        };
        let server = std::net::SocketAddr::new(self.address, PORT);
        let authority = authority.unwrap_or(&self.authority).certificate();
        let cluster = json!({"server": format!("https://{server}"), "certificate-authority": authority});
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
        });
        let path = self.folder.join(format!("{name}.kubeconfig"));
        fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(path)
    }

    /// Requests a token of an existing service account and writes it to a file.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn token(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.request(async |client| {
            let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
            let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
            let request = TokenRequest { spec, ..TokenRequest::default() };
            let response = accounts.create_token_request(account, &PostParams::default(), &request).await?;
            Ok(response.status.context("a token request without status")?.token)
        })?;
        let path = self.folder.join(format!("{namespace}-{account}.token"));
        // Renamed into place, as the kubelet does it, so that no reader sees an incomplete token.
        let new = path.with_extension("new");
        fs::write(&new, token)?;
        fs::rename(&new, &path)?;
        Ok(path)
    }

    /// Runs `f` with the client of a cluster administrator.
    ///
    /// # Errors
    /// Those of `f`, and when there is no connection.
    pub fn request<T: Send>(&self, f: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        run(&self.namespace, &self.admin, f)
    }

    /// Runs `kubectl` with these arguments and this standard input. Returns its standard output.
    ///
    /// # Errors
    /// If it fails, with its standard error.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.kubectl_output(arguments, input)?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `kubectl` and returns its output, whatever its exit status.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn kubectl_output(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = Command::new(self.programs.control_plane("kubectl"));
        command.arg(format!("--request-timeout={}s", REQUEST_TIMEOUT.as_secs()));
        command.args(arguments).env("KUBECONFIG", &self.admin).env("HOME", &self.folder);
        self.run_program(command, input)
    }

    /// Runs a program in the namespace of the API server, with this standard input.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn run_program(&self, mut command: Command, input: &str) -> Result<Output> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self
            .namespace
            .run(|| command.spawn())?
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        std::thread::scope(|scope| {
            // A program may close its standard input without reading it.
            scope.spawn(move || stdin.write_all(input.as_bytes()));
            Ok(child.wait_with_output()?)
        })
    }

    /// The last lines of the API server's log.
    #[must_use]
    pub fn log(&self) -> String {
        self.api.as_ref().map(|a| last_lines(&a.log(), 20)).unwrap_or_default()
    }
}

fn etcd(programs: &Programs, data: &Path) -> Command {
    let mut command = Command::new(programs.control_plane("etcd"));
    let flags = [
        ("data-dir", data.display().to_string()),
        ("listen-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("advertise-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("listen-peer-urls", "http://127.0.0.1:2380".to_owned()),
        ("initial-advertise-peer-urls", "http://127.0.0.1:2380".to_owned()),
        ("initial-cluster", "default=http://127.0.0.1:2380".to_owned()),
        ("log-level", "warn".to_owned()),
        // The data of the tests need not survive a crash.
        ("unsafe-no-fsync", "true".to_owned()),
    ];
    command.args(flags.map(|(name, value)| format!("--{name}={value}")));
    command
}

/// Runs `f` with a new client, on a thread in `namespace`.
fn run<T: Send>(
    namespace: &Namespace,
    kubeconfig: &Path,
    f: impl AsyncFnOnce(Client) -> Result<T> + Send,
) -> Result<T> {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let response = async { f(client(kubeconfig).await?).await };
        runtime.block_on(async { tokio::time::timeout(REQUEST_TIMEOUT, response).await })?
    })?
}

/// Makes a client from a kubeconfig. Its connections are opened in the namespace of the thread that uses it.
///
/// # Errors
/// If the kubeconfig can't be used.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default())
            .await?;
    Ok(Client::try_from(config)?)
}
