//! A stream of answers: told as they come, ended with a status that says why.

use std::pin::Pin;
use std::time::Duration;

use dayfly_api::rejection::Rejection;
use dayfly_api::v1::ErrorReason;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Answers that may wait for their reader, beyond what its connection takes.
const AHEAD: usize = 4;

/// What gRPC sends.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What there is to tell.
pub(super) trait Source: Send + 'static {
    /// One message.
    type Message: Send + 'static;
    /// The next messages; fails when there will be none. Dropped, it loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Self::Message>, Status>> + Send;
}

/// Tells what the source has until that ends, the broker stops, the reader goes, or it takes nothing for so long.
pub(super) fn answers<S: Source>(
    mut source: S,
    mut stopped: watch::Receiver<bool>,
    patience: Duration,
) -> Answers<S::Message> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let status = tokio::select! {
            status = tell(&mut source, &sender, patience) => status,
            () = sender.closed() => return,
            // An error means that the broker is gone.
            _ = stopped.wait_for(|stopped| *stopped) => stopping(),
        };
        // The reader may have gone in the meantime.
        let _ = end.send(status);
    });
    let last = stream::once(ended).filter_map(async |status| status.ok().map(Err));
    Box::pin(ReceiverStream::new(receiver).map(Ok).chain(last))
}

/// The same, of a source that has an end: when it has no more messages, the answer is whole.
pub(super) fn until_done<S: Source>(
    source: S,
    stopped: watch::Receiver<bool>,
    patience: Duration,
) -> Answers<S::Message> {
    let told = answers(Finite(source), stopped, patience);
    Box::pin(told.take_while(|answer| {
        let done = matches!(answer, Err(status) if status.code() == tonic::Code::Ok);
        std::future::ready(!done)
    }))
}

/// A source that ends with the status OK.
struct Finite<S>(S);

impl<S: Source> Source for Finite<S> {
    type Message = S::Message;

    async fn next(&mut self) -> Result<Vec<S::Message>, Status> {
        let messages = self.0.next().await?;
        if messages.is_empty() { Err(Status::ok("")) } else { Ok(messages) }
    }
}

async fn tell<S: Source>(source: &mut S, sender: &mpsc::Sender<S::Message>, patience: Duration) -> Status {
    loop {
        let messages = match source.next().await {
            Ok(messages) => messages,
            Err(status) => return status,
        };
        for message in messages {
            // A reader that has gone is noticed by who called.
            if timeout(patience, sender.send(message)).await.is_err() {
                return too_slow(patience);
            }
        }
    }
}

pub(crate) fn too_slow(patience: Duration) -> Status {
    let message = format!("the answer's reader took nothing for {patience:?}: call again to see what is now");
    Rejection::new(ErrorReason::ReaderSlow, message).retry_after(Duration::ZERO).into_status()
}

pub(crate) fn stopping() -> Status {
    Rejection::new(ErrorReason::NotReady, "the broker is stopping: call again")
        .retry_after(Duration::from_secs(1))
        .into_status()
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    /// Counts up to its end, then fails; beyond that it never ends.
    struct Count(u32, Option<u32>);

    impl Source for Count {
        type Message = u32;

        async fn next(&mut self) -> Result<Vec<u32>, Status> {
            self.0 += 1;
            if self.1.is_some_and(|end| self.0 > end) {
                return Err(Status::not_found("the end"));
            }
            tokio::task::yield_now().await;
            Ok(vec![self.0])
        }
    }

    const SHORT: Duration = Duration::from_millis(50);

    fn reason(last: Option<&Result<u32, Status>>) -> String {
        let status = last.unwrap().as_ref().unwrap_err();
        status.get_details_error_info().map_or_else(|| status.message().to_owned(), |info| info.reason)
    }

    #[tokio::test]
    async fn everything_is_told_and_then_why_it_ends() {
        let (_stop, stopped) = watch::channel(false);
        let told: Vec<_> = answers(Count(0, Some(9)), stopped, SHORT).collect().await;
        let numbers: Vec<_> = told.iter().filter_map(|answer| answer.as_ref().ok().copied()).collect();
        assert_eq!(numbers, (1..=9).collect::<Vec<_>>());
        assert_eq!(reason(told.last()), "the end");
    }

    /// Counts up to its end, and is done.
    struct Few(u32);

    impl Source for Few {
        type Message = u32;

        async fn next(&mut self) -> Result<Vec<u32>, Status> {
            self.0 += 1;
            Ok(if self.0 > 20 { Vec::new() } else { vec![self.0] })
        }
    }

    #[tokio::test]
    async fn what_has_an_end_ends_well() {
        let (_stop, stopped) = watch::channel(false);
        let told: Vec<_> = until_done(Few(0), stopped, SHORT).collect().await;
        let numbers: Vec<_> = told.into_iter().map(Result::unwrap).collect();
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_slow_reader_is_cut_and_told_so() {
        let (_stop, stopped) = watch::channel(false);
        let mut stream = answers(Count(0, None), stopped, SHORT);
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        tokio::time::sleep(4 * SHORT).await;
        let rest: Vec<_> = timeout(Duration::from_secs(5), stream.collect()).await.unwrap();
        assert!(rest.len() <= AHEAD + 2, "{}", rest.len());
        assert_eq!(reason(rest.last()), "READER_SLOW");
    }

    #[tokio::test]
    async fn a_stop_ends_it_and_a_reader_that_goes_ends_its_source() {
        let (stop, stopped) = watch::channel(false);
        let stream = answers(Count(0, None), stopped.clone(), Duration::from_secs(60));
        drop(answers(Count(0, None), stopped, Duration::from_secs(60)));
        stop.send_replace(true);
        let told: Vec<_> = timeout(Duration::from_secs(5), stream.collect()).await.unwrap();
        assert_eq!(reason(told.last()), "NOT_READY");
        timeout(Duration::from_secs(5), stop.closed()).await.unwrap();
    }
}
