//! TLS connections: accepted, shaken hands with beside each other, counted, and handed to the HTTP server.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may then stay silent. After its first bytes HTTP has times of its own.
const FIRST_BYTES: Duration = Duration::from_secs(5);

/// The server's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A PEM file cannot be read.
    #[error("cannot read {0}: {1}")]
    Pem(String, rustls::pki_types::pem::Error),
    /// Certificate and key do not go together.
    #[error("the certificate {cert} and the key {key} cannot be used: {error}")]
    Config {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
        /// Why.
        error: rustls::Error,
    },
}

/// TLS 1.2 and 1.3 by ring, HTTP/2 for gRPC and HTTP/1.1 for those that fetch keys.
pub(crate) fn tls_acceptor(cert_file: &Path, key_file: &Path) -> Result<TlsAcceptor, TlsError> {
    tls_acceptor_of(cert_file, key_file, None)
}

/// The same, and who connects must show a certificate that `clients` accepts, where that is given.
pub(crate) fn tls_acceptor_of(
    cert_file: &Path,
    key_file: &Path,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<TlsAcceptor, TlsError> {
    let bad = |path: &Path, error| TlsError::Pem(path.display().to_string(), error);
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(cert_file, error))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| bad(key_file, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            let config = match clients {
                Some(verifier) => config.with_client_cert_verifier(verifier),
                None => config.with_no_client_auth(),
            };
            config.with_single_cert(chain, key)
        });
    let mut config = config.map_err(|error| TlsError::Config {
        cert: cert_file.display().to_string(),
        key: key_file.display().to_string(),
        error,
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The connections of `listener`, after their handshakes; at most `limit` are open at once, further ones are closed.
/// It ends when the receiver goes.
pub(crate) fn connections(
    listener: TcpListener,
    tls: TlsAcceptor,
    limit: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(64);
    let places = Arc::new(Semaphore::new(limit));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (tcp, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others will close theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (tls, sender) = (tls.clone(), sender.clone());
            tokio::spawn(async move {
                tcp.set_nodelay(true).ok();
                // A peer that vanished without a word is found out.
                rustix::net::sockopt::set_socket_keepalive(&tcp, true).ok();
                rustix::net::sockopt::set_tcp_keepidle(&tcp, Duration::from_secs(60)).ok();
                let shaken = tokio::time::timeout(HANDSHAKE, tls.accept(tcp)).await;
                if let Ok(Ok(stream)) = shaken {
                    let silence = Some(Box::pin(tokio::time::sleep(FIRST_BYTES)));
                    sender.send(Ok(Connection { stream, silence, _place: place })).await.ok();
                }
            });
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// An open connection, which gives its place back when it closes.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    /// Until when its first bytes must come; none once they have.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Who is at the other end, as far as the handshake tells. It goes with each request.
#[derive(Clone)]
pub(crate) struct Peer {
    /// The certificates that were shown, the leaf first; none where none were asked for.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let shown = self.stream.get_ref().1.peer_certificates().unwrap_or_default();
        Peer { certificates: shown.iter().map(|certificate| certificate.clone().into_owned()).collect() }
    }
}

mod io_impls {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Connection;

    impl AsyncRead for Connection {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let before = buf.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(cx, buf);
            if buf.filled().len() > before {
                self.silence = None;
            } else if let Some(silence) = &mut self.silence
                && silence.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            read
        }
    }

    impl AsyncWrite for Connection {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
        }

        fn is_write_vectored(&self) -> bool {
            self.stream.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}
