//! Keeps the revocations up to date, by the broker's stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use dayfly_client::{Backoff, Client, Error, v1};
use dayfly_core::limits;
use dayfly_core::ports::Rng;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Streaming};

use crate::revocations::{Revocations, Unusable};
use crate::state::{Moment, SILENCE, State};

/// Between streams, where the broker was reached or may soon be.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(5) };
/// Where it refuses for a reason that asking again does not help, until somebody changes something.
const REFUSED: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(30) };

pub(crate) struct Feed {
    client: Client,
    state: Arc<State>,
    rng: Arc<dyn Rng>,
    /// Where to go on after the set that is in force; empty where there is none, or it cannot be gone on from.
    resume: String,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Failed(#[from] Error),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("the stream was silent for {SILENCE:?}")]
    Silent,
    #[error("the stream has ended")]
    Closed,
    #[error("the clock was set back behind what was dropped as out of date")]
    SetBack,
}

impl Feed {
    pub(crate) fn new(client: Client, state: Arc<State>, rng: Arc<dyn Rng>) -> Self {
        Self { client, state, rng, resume: String::new() }
    }

    /// Follows one stream after the other, for good.
    pub(crate) async fn follow(mut self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Err(ended) = self.one_stream().await;
            let was_good = began.elapsed() >= limits::HEARTBEAT && !matches!(ended, Ended::Unusable(_));
            failures = if was_good { 1 } else { failures + 1 };
            let backoff = match &ended {
                Ended::Failed(error) if error.code() == Some(Code::OutOfRange) => {
                    tracing::info!(
                        "the revocations cannot be resumed from where they are: all are asked for anew"
                    );
                    self.resume.clear();
                    BACKOFF
                }
                Ended::Unusable(_) | Ended::SetBack => {
                    self.state.doubt_revocations();
                    tracing::error!(error = %ended, "the revocations cannot be used: all are asked for anew");
                    self.resume.clear();
                    REFUSED
                }
                Ended::Failed(error) if !error.is_worth_repeating() => {
                    tracing::error!(%error, reason = error.reason(), "the broker does not tell of revocations");
                    REFUSED
                }
                Ended::Failed(_) | Ended::Silent | Ended::Closed => {
                    tracing::warn!(error = %ended, "the broker is asked again for revocations");
                    BACKOFF
                }
            };
            let hint = if let Ended::Failed(error) = &ended { error.retry_after() } else { None };
            sleep(backoff.pause(failures, hint, &*self.rng)).await;
        }
    }

    /// Follows a stream until it ends.
    async fn one_stream(&mut self) -> Result<Infallible, Ended> {
        let mut stream = self.client.watch_revocations(self.resume.clone()).await?;
        // A list that is not whole yet. The earlier one stays in force beside it.
        let mut list = None;
        loop {
            let message = self.next(&mut stream).await?;
            self.take(message, &mut list)?;
        }
    }

    async fn next(
        &self,
        stream: &mut Streaming<v1::WatchRevocationsResponse>,
    ) -> Result<v1::WatchRevocationsResponse, Ended> {
        let asked = Moment::now(&*self.state.clock);
        let message = match timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Err(Ended::Closed),
            Ok(Err(status)) => return Err(Error::of_status(&status).into()),
            Err(_elapsed) => return Err(Ended::Silent),
        };
        // This process stood still meanwhile, and what it finds in its buffers may be as old.
        if asked.passed(&*self.state.clock) > SILENCE {
            return Err(Ended::Silent);
        }
        Ok(message)
    }

    fn take(
        &mut self,
        message: v1::WatchRevocationsResponse,
        list: &mut Option<Revocations>,
    ) -> Result<(), Ended> {
        if self.state.clock_was_set_back() && !message.snapshot {
            return Err(Ended::SetBack);
        }
        if message.snapshot && list.is_none() {
            *list = Some(Revocations::default());
        }
        match list.take() {
            None => self.state.add(&message)?,
            Some(mut set) => {
                set.take(&message, self.state.clock.now())?;
                if message.more {
                    *list = Some(set);
                } else {
                    tracing::info!(position = message.position, "all revocations in force are known");
                    self.state.put_revocations(set, message.position);
                }
            }
        }
        if list.is_none() {
            self.resume = message.resume;
        }
        Ok(())
    }
}
