//! A stream of the broker's that is watched: its messages, and when to call again.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::client::Client;
use crate::error::Error;
use crate::retry::Backoff;

/// A stream that is silent for so long is dead: the broker tells something every 5 s.
const SILENCE: Duration = Duration::from_secs(15);

/// The next message, or why there is none.
pub(crate) async fn message<T>(stream: &mut Streaming<T>) -> Result<T, Error> {
    match timeout(SILENCE, stream.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Error::Unreachable("the stream has ended".to_owned())),
        Ok(Err(status)) => Err(Error::of_status(&status)),
        Err(_elapsed) => Err(Error::Unreachable(format!("the stream is silent for {SILENCE:?}"))),
    }
}

/// Waits until it is worth to call again, after so many failures in a row, this one not counted.
///
/// # Errors
/// The failure, where calling again does not help.
pub(crate) async fn rest(client: &Client, failures: &mut u32, failed: Error) -> Result<(), Error> {
    // A token that has expired is another one in its file by now.
    let expired = failed.reason() == Some("TOKEN_EXPIRED") && *failures == 0;
    if !expired && !failed.is_worth_repeating() {
        return Err(failed);
    }
    *failures += 1;
    tracing::debug!(reason = failed.reason(), "watching again");
    sleep(Backoff::REFRESH.pause(*failures, failed.retry_after(), &*client.parts().rng)).await;
    Ok(())
}
