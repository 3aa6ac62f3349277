//! Reads that may touch the disk: on a small pool of threads, never on an async worker.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dayfly_core::ports::{BoxFuture, StoreError};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::shared::Shared;

const THREADS: usize = 2;
/// Reads that may wait.
const WAITING: usize = 1024;
/// A flush that takes longer than this is looked at: see [`Engine::nudge`].
const PATIENCE: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&Shared) + Send>;

pub(crate) struct Readers {
    jobs: Mutex<Option<SyncSender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let start = |n| {
            let (shared, queue) = (Arc::clone(shared), Arc::clone(&queue));
            std::thread::Builder::new().name(format!("store-reader-{n}")).spawn(move || work(&shared, &queue))
        };
        let threads = (0..THREADS).map(start).collect::<Result<_, _>>()?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), threads: Mutex::new(threads) })
    }

    /// Runs `read` on one of the threads.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared, &Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |shared| {
            let result = shared.engine().and_then(|engine| read(shared, &engine));
            // Whoever asked may have gone.
            let _ = answer.send(result);
        });
        let queued = match self.jobs.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
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

    /// No more reads; waits for those under way.
    pub(crate) fn stop(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
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
