//! Reads that may touch the disk: on a few threads, never on an async worker. Looking one thing up does not wait behind
//! those who page through many.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dayfly_core::ports::{BoxFuture, StoreError};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::shared::Shared;

/// Threads that look one thing up.
const LOOKING_UP: usize = 2;
/// Look-ups that may wait.
const LOOKUPS: usize = 1024;
/// Threads that scan.
const SCANNING: usize = 1;
/// Scans that may wait.
const SCANS: usize = 64;
/// A flush that takes longer than this is looked at: see [`Engine::nudge`].
const PATIENCE: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&Shared) + Send>;

pub(crate) struct Readers {
    lookups: Jobs,
    scans: Jobs,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Jobs of one kind; none can be added after the end.
type Jobs = Mutex<Option<SyncSender<Job>>>;

impl Readers {
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (lookups, looked_up) = sync_channel(LOOKUPS);
        let (scans, scanned) = sync_channel(SCANS);
        let mut threads = Vec::new();
        for (name, number, queue) in [("look-up", LOOKING_UP, looked_up), ("scan", SCANNING, scanned)] {
            let queue = Arc::new(Mutex::new(queue));
            for n in 0..number {
                let (shared, queue) = (Arc::clone(shared), Arc::clone(&queue));
                let thread = std::thread::Builder::new().name(format!("store-{name}-{n}"));
                threads.push(thread.spawn(move || work(&shared, &queue))?);
            }
        }
        let (lookups, scans) = (Mutex::new(Some(lookups)), Mutex::new(Some(scans)));
        Ok(Self { lookups, scans, threads: Mutex::new(threads) })
    }

    /// Looks one thing up.
    pub(crate) fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared, &Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        queue(&self.lookups, read)
    }

    /// Reads through many.
    pub(crate) fn scan<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared, &Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        queue(&self.scans, read)
    }

    /// No more reads; waits for those under way.
    pub(crate) fn stop(&self) {
        for jobs in [&self.lookups, &self.scans] {
            drop(jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

fn queue<T: Send + 'static>(
    jobs: &Jobs,
    read: impl FnOnce(&Shared, &Engine) -> Result<T, StoreError> + Send + 'static,
) -> BoxFuture<'static, Result<T, StoreError>> {
    let (answer, answered) = oneshot::channel();
    let job: Job = Box::new(move |shared| {
        // Whoever asked may have gone.
        if !answer.is_closed() {
            let _ = answer.send(shared.engine().and_then(|engine| read(shared, &engine)));
        }
    });
    let queued = match jobs.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        None => Err(StoreError::Closing),
        Some(jobs) => jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Closing,
        }),
    };
    Box::pin(async move {
        queued?;
        answered.await.map_err(|_| StoreError::Closing)?
    })
}

fn work(shared: &Shared, queue: &Mutex<Receiver<Job>>) {
    let mut stuck = None;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PATIENCE);
        match next {
            Ok(job) => job(shared),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let Ok(engine) = shared.engine() else { continue };
                let flushing = engine.flushing();
                if flushing.is_some() && flushing == stuck {
                    engine.nudge();
                }
                stuck = flushing;
            }
        }
    }
}
