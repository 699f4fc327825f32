//! A connection to the container runtime.

use std::io;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ttrpc::Request;
use ttrpc::asynchronous::transport::{Listener, Socket};
use ttrpc::asynchronous::{Client, Server};

use crate::error::NriError;
use crate::event::{Event, RuntimeInfo};
use crate::messages::{RUNTIME_SERVICE, RegisterPluginRequest};
use crate::mux::multiplex;
use crate::{
    service::{Shared, plugin},
    text::shortened,
};

/// Events that wait for [`Connection::next`]. The runtime sends one request at a time and waits for its answer.
const QUEUE: usize = 16;

/// What a plugin is called.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Its name, unique among the plugins of a node.
    pub name: &'a str,
    /// Its place among the plugins, two digits: they are called in ascending order.
    pub index: &'a str,
}

/// A registered plugin's connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end.
    pub runtime: RuntimeInfo,
    events: mpsc::Receiver<Event>,
    transport: Transport,
}

impl Connection {
    /// Connects to the runtime's socket, usually `/var/run/nri/nri.sock`, and registers.
    ///
    /// # Errors
    ///
    /// There is no socket, the runtime refuses the plugin, or it doesn't answer within `patience`.
    pub async fn open(socket: &Path, identity: Identity<'_>, patience: Duration) -> Result<Self, NriError> {
        let stream = UnixStream::connect(socket).await.map_err(|source| {
            let path = socket.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NriError::NoSocket { path },
                _ => NriError::Connect { path, source },
            }
        })?;
        Self::register(stream, identity, patience).await
    }

    /// Registers over a socket that is connected.
    ///
    /// # Errors
    ///
    /// The runtime refuses the plugin, or doesn't answer within `patience`.
    pub async fn register<S>(stream: S, identity: Identity<'_>, patience: Duration) -> Result<Self, NriError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (channels, transport) = multiplex(stream);
        let (event_sender, events) = mpsc::channel(QUEUE);
        let (info_sender, info) = oneshot::channel();
        let shared = Shared::new(event_sender, info_sender);

        let plugin_end = futures::stream::iter([Ok(channels.plugin)]);
        let mut server =
            Server::new().add_listener(Listener::new(plugin_end)).register_service(plugin(&shared));
        server.start().await.map_err(|error| NriError::Protocol(error.to_string()))?;
        let client = Client::new(Socket::new(channels.runtime));
        let keeps_open = client.clone();
        let transport = Transport(tokio::spawn(async move {
            let reason = transport.await;
            // Their tasks end with the transport, and not before.
            drop((server, keeps_open));
            reason
        }));

        let registered = async {
            client.request(registration(identity)).await.map_err(refusal)?;
            // The runtime asks for the subscription before it sends events.
            info.await.map_err(|_| NriError::Closed)
        };
        let runtime = timeout(patience, registered).await.map_err(|_| NriError::Silent(patience))??;
        Ok(Self { runtime, events, transport })
    }

    /// Returns the next event. Cancellation loses nothing.
    ///
    /// # Errors
    ///
    /// The connection ended. Events that were queued are lost: the next connection begins with all sandboxes.
    pub async fn next(&mut self) -> Result<Event, NriError> {
        tokio::select! {
            biased;
            ended = &mut self.transport.0 => Err(ended.unwrap_or(NriError::Closed)),
            event = self.events.recv() => event.ok_or(NriError::Closed),
        }
    }
}

/// The task that moves the bytes. Dropping it closes the socket.
#[derive(Debug)]
struct Transport(JoinHandle<NriError>);

impl Drop for Transport {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn registration(identity: Identity<'_>) -> Request {
    let message = RegisterPluginRequest {
        plugin_name: identity.name.to_owned(),
        plugin_idx: identity.index.to_owned(),
    };
    let mut request = Request::new();
    request.set_service(RUNTIME_SERVICE.to_owned());
    request.set_method("RegisterPlugin".to_owned());
    request.set_payload(message.encode_to_vec());
    request
}

fn refusal(error: ttrpc::Error) -> NriError {
    match error {
        ttrpc::Error::RpcStatus(status) => NriError::Refused(shortened(status.message().to_owned())),
        ttrpc::Error::RemoteClosed | ttrpc::Error::LocalClosed => NriError::Closed,
        other => NriError::Protocol(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
