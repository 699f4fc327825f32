//! The frames of NRI's socket: several connections over one, each frame with the number of its connection and its length.
//!
//! A connection is opened by nothing but the agreement of both ends that it exists. Frames of unknown connections are skipped, as the
//! runtime skips them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

use crate::error::NriError;

/// Connection number of the service `Plugin`.
const PLUGIN: u32 = 1;
/// Connection number of the service `Runtime`.
const RUNTIME: u32 = 2;
/// A frame carries at most the largest message of ttrpc with its header.
const MAX_FRAME: u32 = (4 << 20) + 10;
/// Size of the frames that are sent. The runtime's reader discards what doesn't fit its buffer of 4,096 bytes.
const CHUNK: usize = 4096;
/// Bytes of one connection that wait for their reader. Beyond that, nothing more is read from the socket.
const BUFFERED: usize = 64 << 10;

/// Our ends of the connections.
pub(crate) struct Channels {
    pub(crate) plugin: DuplexStream,
    pub(crate) runtime: DuplexStream,
}

/// Splits a socket into the connections of NRI. The future moves the bytes, and ends with the reason when the socket closes.
pub(crate) fn multiplex<S>(trunk: S) -> (Channels, impl Future<Output = NriError> + Send)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (plugin, plugin_far) = duplex(BUFFERED);
    let (runtime, runtime_far) = duplex(BUFFERED);
    (Channels { plugin, runtime }, run(trunk, plugin_far, runtime_far))
}

async fn run<S: AsyncRead + AsyncWrite>(trunk: S, plugin: DuplexStream, runtime: DuplexStream) -> NriError {
    let (trunk_in, trunk_out) = tokio::io::split(trunk);
    let (plugin_out, plugin_in) = tokio::io::split(plugin);
    let (runtime_out, runtime_in) = tokio::io::split(runtime);
    tokio::select! {
        error = receive(trunk_in, plugin_in, runtime_in) => error,
        error = send(trunk_out, plugin_out, runtime_out) => error,
    }
}

/// Delivers the frames of the socket.
async fn receive(
    mut trunk: impl AsyncRead + Unpin,
    mut plugin: impl AsyncWrite + Unpin,
    mut runtime: impl AsyncWrite + Unpin,
) -> NriError {
    let mut buffer = vec![0; CHUNK];
    loop {
        let (connection, length) = match read_header(&mut trunk).await {
            Ok(header) => header,
            Err(error) => return error,
        };
        let mut left = length as usize;
        while left > 0 {
            let chunk = &mut buffer[..left.min(CHUNK)];
            if let Err(error) = trunk.read_exact(chunk).await {
                return closed(error);
            }
            left -= chunk.len();
            let delivered = match connection {
                PLUGIN => plugin.write_all(chunk).await,
                RUNTIME => runtime.write_all(chunk).await,
                _ => Ok(()),
            };
            if let Err(error) = delivered {
                return closed(error);
            }
        }
    }
}

async fn read_header(trunk: &mut (impl AsyncRead + Unpin)) -> Result<(u32, u32), NriError> {
    let connection = trunk.read_u32().await.map_err(closed)?;
    let length = trunk.read_u32().await.map_err(closed)?;
    if length > MAX_FRAME {
        return Err(NriError::Protocol(format!("a frame of {length} bytes; {MAX_FRAME} are allowed")));
    }
    Ok((connection, length))
}

/// Sends what our ends write, in frames.
async fn send(
    mut trunk: impl AsyncWrite + Unpin,
    mut plugin: impl AsyncRead + Unpin,
    mut runtime: impl AsyncRead + Unpin,
) -> NriError {
    let (mut of_plugin, mut of_runtime) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let sent = tokio::select! {
            read = plugin.read(&mut of_plugin) => frame(&mut trunk, PLUGIN, read, &of_plugin).await,
            read = runtime.read(&mut of_runtime) => frame(&mut trunk, RUNTIME, read, &of_runtime).await,
        };
        if let Err(error) = sent {
            return closed(error);
        }
    }
}

async fn frame(
    trunk: &mut (impl AsyncWrite + Unpin),
    connection: u32,
    read: io::Result<usize>,
    buffer: &[u8],
) -> io::Result<()> {
    let length = match read? {
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        length => length,
    };
    let mut frame = Vec::with_capacity(8 + length);
    frame.extend(connection.to_be_bytes());
    // At most CHUNK.
    frame.extend((length as u32).to_be_bytes());
    frame.extend(&buffer[..length]);
    trunk.write_all(&frame).await
}

fn closed(error: io::Error) -> NriError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            NriError::Closed
        }
        _ => NriError::Socket(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write_frame(trunk: &mut DuplexStream, connection: u32, payload: &[u8]) {
        trunk.write_u32(connection).await.expect("connection");
        trunk.write_u32(payload.len() as u32).await.expect("length");
        trunk.write_all(payload).await.expect("payload");
    }

    #[tokio::test]
    async fn bytes_reach_their_connection_however_they_are_cut() {
        let (near, mut far) = duplex(1 << 20);
        let (mut channels, work) = multiplex(near);
        tokio::spawn(work);

        write_frame(&mut far, RUNTIME, b"first").await;
        write_frame(&mut far, 77, b"of nobody").await;
        write_frame(&mut far, PLUGIN, &[7; 10_000]).await;
        write_frame(&mut far, RUNTIME, b"").await;
        write_frame(&mut far, RUNTIME, b" second").await;

        let mut text = [0; 12];
        channels.runtime.read_exact(&mut text).await.expect("runtime");
        assert_eq!(&text, b"first second");
        let mut large = vec![0; 10_000];
        channels.plugin.read_exact(&mut large).await.expect("plugin");
        assert_eq!(large, [7; 10_000]);
    }

    #[tokio::test]
    async fn frames_sent_fit_the_buffer_of_the_runtime() {
        let (near, mut far) = duplex(1 << 20);
        let (mut channels, work) = multiplex(near);
        tokio::spawn(work);
        channels.plugin.write_all(&[3; 9_000]).await.expect("written");
        let mut received = 0;
        while received < 9_000 {
            assert_eq!(far.read_u32().await.expect("connection"), PLUGIN);
            let length = far.read_u32().await.expect("length") as usize;
            assert!((1..=CHUNK).contains(&length), "{length}");
            let mut payload = vec![0; length];
            far.read_exact(&mut payload).await.expect("payload");
            received += length;
        }
        assert_eq!(received, 9_000);
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_ends_the_connection() {
        let (near, mut far) = duplex(1 << 20);
        let (_channels, work) = multiplex(near);
        far.write_all(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).await.expect("written");
        assert!(matches!(work.await, NriError::Protocol(_)));
    }

    #[tokio::test]
    async fn a_socket_that_closes_within_a_frame_ends_the_connection() {
        let (near, mut far) = duplex(1 << 20);
        let (_channels, work) = multiplex(near);
        far.write_all(&[0, 0, 0, 1, 0, 0, 0, 9, 1, 2]).await.expect("written");
        drop(far);
        assert!(matches!(work.await, NriError::Closed));
    }
}
