//! A TCP connection between two others that can be cut, or go silent.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a [`Wire`] does with its connections, those that are open included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carries them.
    Open,
    /// Closes them.
    Cut,
    /// Takes them, and carries nothing: as a machine that is gone does.
    Silent,
}

/// A loopback port in front of another.
#[derive(Debug)]
pub struct Wire {
    addr: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    serving: JoinHandle<()>,
}

impl Wire {
    /// Listens on a free loopback port and carries what comes to `to`.
    pub async fn to(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let mode = Arc::new(watch::Sender::new(Mode::Open));
        let modes = Arc::clone(&mode);
        let serving = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to, modes.subscribe()));
            }
        });
        Ok(Self { addr, mode, serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what it does.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Carries a connection until either side closes it or it is cut.
async fn carry(mut near: TcpStream, to: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let cut = {
        let mut mode = mode.clone();
        async move { mode.wait_for(|mode| *mode == Mode::Cut).await.is_ok() }
    };
    let carried = async {
        if mode.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        let Ok(mut far) = TcpStream::connect(to).await else { return };
        tokio::select! {
            _ = mode.wait_for(|mode| *mode == Mode::Silent) => {}
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        }
        // What was under way is lost: the connection is of no more use, and stays open for as long as the silence lasts.
        let _ = mode.wait_for(|mode| *mode != Mode::Silent).await;
    };
    tokio::select! {
        _ = cut => {}
        () = carried => {}
    }
}
