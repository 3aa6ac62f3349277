//! SIGTERM and SIGINT: the first ends in order, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a process that a second signal ended.
const ENDED_AT_ONCE: i32 = 130;

/// The signals that end a process in order.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from here on.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// From here on, a signal ends the process at once.
    pub(crate) fn end_at_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(ENDED_AT_ONCE);
        });
    }
}
