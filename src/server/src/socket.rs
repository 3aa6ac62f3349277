//! The broker's own socket: revoking and lifting, and the signing keys, without a token and without any API server, for
//! root and the broker's own user on its machine. The kernel says who is at the other end (SO_PEERCRED).

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::services::SocketPeer;

/// Connections open at once; further ones are closed.
const CONNECTIONS: usize = 32;

/// The socket's file. Dropping it takes the file away.
pub(crate) struct Socket {
    path: PathBuf,
}

/// Listens at this path, for the owner of the file alone. A socket that nobody listens at is taken away first.
///
/// # Errors
/// When somebody else listens there, something else is there, or it cannot be made.
pub(crate) fn listen(path: &Path) -> anyhow::Result<(Socket, UnixListener)> {
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            anyhow::bail!("socket: {shown} is there and is no socket")
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => anyhow::bail!("socket: somebody else listens at {shown}"),
            Err(_) => std::fs::remove_file(path)
                .with_context(|| format!("socket: cannot take away the old {shown}"))?,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("socket: cannot look at {shown}")),
    }
    let listener = UnixListener::bind(path).with_context(|| format!("socket: cannot listen at {shown}"))?;
    let socket = Socket { path: path.to_owned() };
    // Whoever connects before this is asked for the same.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
        .with_context(|| format!("socket: cannot keep {shown} to its owner"))?;
    Ok((socket, listener))
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket was not taken away");
        }
    }
}

/// The connections of those who may: root, and the user that the broker runs as. It ends when the receiver goes.
pub(crate) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(4);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let own = rustix::process::geteuid().as_raw();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let peer = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
            let (uid, stream) = match peer {
                Ok(peer) => peer,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the socket");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            if !may_come(uid, own) {
                tracing::warn!(uid, "refused at the socket: neither root nor the broker's own user");
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            sender.send(Ok(Connection { stream, peer: SocketPeer { uid }, _place: place })).await.ok();
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// Whether a user may come: root, or the broker's own.
fn may_come(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

/// An open connection of somebody who may.
pub(crate) struct Connection {
    stream: UnixStream,
    peer: SocketPeer,
    _place: OwnedSemaphorePermit,
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = SocketPeer;

    fn connect_info(&self) -> SocketPeer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn root_and_the_brokers_own_user_may_come() {
        assert!(may_come(0, 1000) && may_come(1000, 1000) && may_come(0, 0));
        assert!(!may_come(1001, 1000) && !may_come(1000, 0));
    }

    #[tokio::test]
    async fn the_file_is_its_owners_and_an_old_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dayfly.sock");
        let (socket, listener) = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listen(&path).err().unwrap().to_string().contains("somebody else listens"));
        let mut connections = Box::pin(connections(listener));
        let _client = UnixStream::connect(&path).await.unwrap();
        let connection = connections.next().await.unwrap().unwrap();
        assert_eq!(connection.peer.uid, rustix::process::geteuid().as_raw());
        drop(connections);
        // As after a crash: the file stays, and nobody listens.
        std::mem::forget(socket);
        while std::os::unix::net::UnixStream::connect(&path).is_ok() {
            tokio::task::yield_now().await;
        }
        let (socket, _listener) = listen(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        std::fs::write(&path, "x").unwrap();
        assert!(listen(&path).err().unwrap().to_string().contains("is no socket"));
    }
}
