//! The measuring itself: one client, one server, two namespaces.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;

/// After so long without an answer something is wrong, and the measurement with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client's namespace and a server that listens.
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

    /// New connections, one after the other, each closed at once.
    pub(super) fn connections_per_second(&self, turn: Duration) -> io::Result<f64> {
        self.with_server(
            |server| {
                while serve_one(server)? {}
                Ok(())
            },
            |to| {
                let began = Instant::now();
                let mut made = 0u32;
                while began.elapsed() < turn {
                    hang_up(connect(to)?, ONE_MORE)?;
                    made += 1;
                }
                let rate = f64::from(made) / began.elapsed().as_secs_f64();
                hang_up(connect(to)?, THE_END)?;
                Ok(rate)
            },
        )
    }

    /// One byte there and one byte back, on one connection.
    pub(super) fn round_trips_per_second(&self, turn: Duration) -> io::Result<f64> {
        self.with_server(
            |server| {
                let (mut stream, _) = server.accept()?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
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
                while began.elapsed() < turn {
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
                // The server may still wait for somebody: let it go, from its own side of the rules.
                drop(self.at_server.run(|| TcpStream::connect(self.to)));
            }
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            measured
        })
    }
}

const ONE_MORE: u8 = 1;
const THE_END: u8 = 0;

/// Takes one connection and what its client says; whether there will be more.
fn serve_one(server: &TcpListener) -> io::Result<bool> {
    let (mut stream, _) = server.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [THE_END];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    Ok(byte[0] == ONE_MORE)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    // Closing resets, so that no port waits for a minute: there are fewer than connections.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Says whether more will come, waits until the server has heard it, and closes.
fn hang_up(mut stream: TcpStream, more: u8) -> io::Result<()> {
    stream.write_all(&[more])?;
    stream.read_exact(&mut [0])
}
