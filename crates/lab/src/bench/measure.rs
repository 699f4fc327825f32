//! The measurement: one client and one server in two namespaces.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;

/// The time after which a missing reply fails the measurement.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The namespace of a client, and a listening server.
#[derive(Debug)]
pub(super) struct ClientAndServer {
    client: Namespace,
    at_server: Namespace,
    server: TcpListener,
    to: SocketAddr,
}

impl ClientAndServer {
    pub(super) fn open(
        client: &Namespace,
        server: &Namespace,
        address: IpAddr,
        port: u16,
    ) -> io::Result<Self> {
        let to = SocketAddr::new(address, port);
        let listener = server.run(|| TcpListener::bind(to))??;
        Ok(Self { client: client.try_clone()?, at_server: server.try_clone()?, server: listener, to })
    }

    /// Measures new connections, made sequentially and closed at once.
    pub(super) fn connections_per_second(&self, slice: Duration) -> io::Result<f64> {
        self.with_server(
            |server| {
                while serve_one(server)? {}
                Ok(())
            },
            |to| {
                let began = Instant::now();
                let mut made = 0u32;
                while began.elapsed() < slice {
                    close(connect(to)?, NOT_LAST)?;
                    made += 1;
                }
                let rate = f64::from(made) / began.elapsed().as_secs_f64();
                close(connect(to)?, LAST)?;
                Ok(rate)
            },
        )
    }

    /// Measures round trips of one byte on one connection.
    pub(super) fn round_trips_per_second(&self, slice: Duration) -> io::Result<f64> {
        self.with_server(
            |server| {
                let (mut stream, _) = server.accept()?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                let mut byte = [0];
                while stream.read(&mut byte)? > 0 {
                    stream.write_all(&byte)?;
                }
                Ok(())
            },
            |to| {
                let mut stream = connect(to)?;
                stream.set_nodelay(true)?;
                let mut byte = [0];
                let began = Instant::now();
                let mut made = 0u32;
                while began.elapsed() < slice {
                    stream.write_all(&byte)?;
                    stream.read_exact(&mut byte)?;
                    made += 1;
                }
                let rate = f64::from(made) / began.elapsed().as_secs_f64();
                stream.shutdown(std::net::Shutdown::Write)?;
                Ok(rate)
            },
        )
    }

    fn with_server<T: Send>(
        &self,
        serve: impl FnOnce(&TcpListener) -> io::Result<()> + Send,
        measure: impl FnOnce(SocketAddr) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        thread::scope(|scope| {
            let server = thread::Builder::new()
                .name("bench-server".into())
                .spawn_scoped(scope, || serve(&self.server))?;
            let measured = self.client.run(|| measure(self.to))?;
            if measured.is_err() {
                // The server may still wait for a connection. It gets one from its own namespace, which no policy denies.
                drop(self.at_server.run(|| TcpStream::connect(self.to)));
            }
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            measured
        })
    }
}

const NOT_LAST: u8 = 1;
const LAST: u8 = 0;

/// Accepts one connection and reads its byte. Returns whether more connections follow.
fn serve_one(server: &TcpListener) -> io::Result<bool> {
    let (mut stream, _) = server.accept()?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut byte = [LAST];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    Ok(byte[0] == NOT_LAST)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    // Closing sends a reset, so that no port stays in TIME_WAIT: there are fewer ports than connections.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket.into())
}

/// Sends the byte that tells whether more connections follow, waits for the reply, and closes.
fn close(mut stream: TcpStream, more: u8) -> io::Result<()> {
    stream.write_all(&[more])?;
    stream.read_exact(&mut [0])
}
