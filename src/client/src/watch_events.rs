//! A watch over events of the audit log, which goes on where it is cut.

use std::sync::Arc;
use std::time::Duration;

use dayfly_api::v1;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::retry::Backoff;

/// A stream that is silent for so long is dead: the broker tells something every 5 s.
const SILENCE: Duration = Duration::from_secs(15);

/// A watch over events, as an operator. Where the stream is cut, it calls again, with the token that is there then, and goes
/// on after the last message: each event is told once, and none is missed.
pub struct EventWatch {
    client: Client,
    request: v1::WatchEventsRequest,
    stream: Option<Streaming<v1::WatchEventsResponse>>,
    failures: u32,
}

impl EventWatch {
    pub(crate) async fn start(client: Client, request: v1::WatchEventsRequest) -> Result<Self, Error> {
        let stream = Some(client.watch_events_once(request.clone()).await?);
        Ok(Self { client, request, stream, failures: 0 })
    }

    /// What there is to tell next. A message without events is a heartbeat.
    ///
    /// # Errors
    /// When the broker refuses for a reason that calling again does not help. To go on anyway, ask again.
    pub async fn next(&mut self) -> Result<v1::WatchEventsResponse, Error> {
        loop {
            let failed = match &mut self.stream {
                None => match self.client.watch_events_once(self.request.clone()).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(error) => error,
                },
                Some(stream) => match timeout(SILENCE, stream.message()).await {
                    Ok(Ok(Some(message))) => {
                        self.failures = 0;
                        self.request.resume.clone_from(&message.resume);
                        return Ok(message);
                    }
                    Ok(Ok(None)) => Error::Unreachable("the stream has ended".to_owned()),
                    Ok(Err(status)) => Error::of_status(&status),
                    Err(_elapsed) => Error::Unreachable(format!("the stream is silent for {SILENCE:?}")),
                },
            };
            self.stream = None;
            // A token that has expired is another one in its file by now.
            let expired = failed.reason() == Some("TOKEN_EXPIRED") && self.failures == 0;
            if !expired && !failed.is_worth_repeating() {
                return Err(failed);
            }
            self.failures += 1;
            let rng = Arc::clone(&self.client.parts().rng);
            tracing::debug!(reason = failed.reason(), "watching again");
            sleep(Backoff::REFRESH.pause(self.failures, failed.retry_after(), &*rng)).await;
        }
    }
}
