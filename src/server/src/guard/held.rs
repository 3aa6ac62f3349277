//! A place that a call holds until its answer has been sent, or its reader takes nothing of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::Status;

use super::places::Shares;
use crate::services;

/// What a call holds. Given back when dropped.
pub(crate) struct Held {
    _place: OwnedSemaphorePermit,
    _counted: Option<Shares>,
}

/// How an answer is sent.
pub(super) struct Sending {
    /// Whether its reader understands a gRPC status.
    pub(super) grpc: bool,
    /// How long it waits for a reader that takes nothing.
    pub(super) patience: Duration,
    /// Ends it, where nothing else does.
    pub(super) stopped: Option<watch::Receiver<bool>>,
}

impl Held {
    pub(super) fn place(place: OwnedSemaphorePermit) -> Self {
        Self { _place: place, _counted: None }
    }

    pub(super) fn counted(self, counted: Shares) -> Self {
        Self { _counted: Some(counted), ..self }
    }

    /// The body, which holds this until it ends, is dropped, or is cut. A transport that waits for its reader asks for
    /// nothing more, so somebody else has to look at the time.
    pub(super) fn until_sent(self, body: Body, sending: Sending) -> Body {
        let state = State::Sending { body, _held: self };
        let answer = Answer { state, readers_turn: Some(Instant::now()), waker: None };
        let answer = Arc::new(Mutex::new(answer));
        let grpc = sending.grpc;
        let watcher = tokio::spawn(cut_in_time(Arc::downgrade(&answer), sending)).abort_handle();
        Body::new(HeldBody { answer, grpc, watcher })
    }
}

struct Answer {
    state: State,
    /// Since when it is for the reader to take what there is; none while there is nothing.
    readers_turn: Option<Instant>,
    /// Of a transport that waits for us.
    waker: Option<Waker>,
}

enum State {
    Sending {
        body: Body,
        _held: Held,
    },
    /// And the status is still to be told.
    Cut(Status),
    Ended,
}

async fn cut_in_time(answer: Weak<Mutex<Answer>>, Sending { patience, stopped, .. }: Sending) {
    let stop = async {
        match stopped {
            // An error means that the broker is gone.
            Some(mut stopped) => drop(stopped.wait_for(|stopped| *stopped).await),
            None => std::future::pending().await,
        }
    };
    let status = tokio::select! {
        () = taken_nothing(&answer, patience) => services::too_slow(patience),
        () = stop => services::stopping(),
    };
    if let Some(answer) = answer.upgrade() {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(answer.state, State::Sending { .. }) {
            answer.state = State::Cut(status);
        }
        if let Some(waker) = answer.waker.take() {
            waker.wake();
        }
    }
}

/// Returns when the reader has taken nothing for so long, or the answer is gone.
async fn taken_nothing(answer: &Weak<Mutex<Answer>>, patience: Duration) {
    loop {
        let Some(answer) = answer.upgrade() else { return };
        let since = answer.lock().unwrap_or_else(PoisonError::into_inner).readers_turn;
        drop(answer);
        let now = Instant::now();
        let until = since.unwrap_or(now) + patience;
        if until <= now {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

struct HeldBody {
    answer: Arc<Mutex<Answer>>,
    grpc: bool,
    watcher: AbortHandle,
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = match &mut answer.state {
            State::Sending { body, .. } => Pin::new(body).poll_frame(cx),
            State::Cut(status) if self.grpc => {
                let mut trailers = HeaderMap::new();
                let written = status.add_header(&mut trailers).map_err(axum::Error::new);
                answer.state = State::Ended;
                return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))));
            }
            State::Cut(status) => {
                let error = axum::Error::new(status.clone());
                answer.state = State::Ended;
                return Poll::Ready(Some(Err(error)));
            }
            State::Ended => return Poll::Ready(None),
        };
        match &polled {
            Poll::Pending => (answer.readers_turn, answer.waker) = (None, Some(cx.waker().clone())),
            Poll::Ready(Some(Ok(_))) => answer.readers_turn = Some(Instant::now()),
            Poll::Ready(_) => answer.state = State::Ended,
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.answer.lock().unwrap_or_else(PoisonError::into_inner).state {
            State::Sending { body, .. } => body.is_end_stream(),
            State::Cut(_) => false,
            State::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer.lock().unwrap_or_else(PoisonError::into_inner).state {
            State::Sending { body, .. } => body.size_hint(),
            State::Cut(_) | State::Ended => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::StreamExt as _;
    use http_body::Body as _;
    use tokio::sync::Semaphore;
    use tonic_types::StatusExt as _;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn held(places: &Arc<Semaphore>, body: Body, stopped: Option<watch::Receiver<bool>>, grpc: bool) -> Body {
        let place = Arc::clone(places).try_acquire_owned().unwrap();
        Held::place(place).until_sent(body, Sending { grpc, patience: SHORT, stopped })
    }

    async fn frame(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    fn reason(trailers: Frame<Bytes>) -> String {
        let status = Status::from_header_map(&trailers.into_trailers().unwrap()).unwrap();
        assert!(status.get_details_retry_info().is_some(), "{status:?}");
        status.get_details_error_info().unwrap().reason
    }

    async fn given_back(places: &Semaphore) {
        let given = tokio::time::timeout(Duration::from_secs(5), places.acquire()).await;
        drop(given.unwrap());
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_cut_and_its_place_is_free() {
        let places = Arc::new(Semaphore::new(1));
        let mut body = held(&places, Body::from("answer"), None, true);
        assert!(places.try_acquire().is_err());
        given_back(&places).await;
        assert!(!body.is_end_stream());
        assert_eq!(reason(frame(&mut body).await.unwrap().unwrap()), "READER_SLOW");
        assert!(body.is_end_stream() && frame(&mut body).await.is_none());
        // Plain HTTPS sees its answer break off.
        let mut plain = held(&places, Body::from("answer"), None, false);
        given_back(&places).await;
        assert!(frame(&mut plain).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn who_takes_the_half_and_stops_is_cut_likewise() {
        let places = Arc::new(Semaphore::new(1));
        let parts = futures_util::stream::iter(["half", "rest"]).map(Ok::<_, Infallible>);
        let mut body = held(&places, Body::from_stream(parts), None, true);
        assert_eq!(frame(&mut body).await.unwrap().unwrap().into_data().unwrap(), "half");
        given_back(&places).await;
        assert_eq!(reason(frame(&mut body).await.unwrap().unwrap()), "READER_SLOW");
    }

    #[tokio::test]
    async fn a_reader_that_waits_for_us_is_not_cut_and_a_stop_ends_its_wait() {
        let places = Arc::new(Semaphore::new(1));
        let (stop, stopped) = watch::channel(false);
        let never = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        let mut body = held(&places, Body::from_stream(never), Some(stopped), true);
        assert!(tokio::time::timeout(4 * SHORT, frame(&mut body)).await.is_err());
        assert!(places.try_acquire().is_err());
        let (last, _) = tokio::join!(frame(&mut body), async { stop.send_replace(true) });
        assert_eq!(reason(last.unwrap().unwrap()), "NOT_READY");
        given_back(&places).await;
    }

    #[tokio::test]
    async fn an_answer_that_was_sent_or_dropped_holds_nothing() {
        let places = Arc::new(Semaphore::new(1));
        let mut body = held(&places, Body::from("answer"), None, true);
        assert_eq!(frame(&mut body).await.unwrap().unwrap().into_data().unwrap(), "answer");
        assert!(frame(&mut body).await.is_none());
        assert!(places.try_acquire().is_ok());
        drop(held(&places, Body::from("answer"), None, true));
        assert!(places.try_acquire().is_ok());
    }
}
