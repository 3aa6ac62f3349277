//! A place that a call holds until its answer has been sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::places::Shares;

/// What a call holds. Given back when dropped.
pub(crate) struct Held {
    _place: Option<OwnedSemaphorePermit>,
    _counted: Option<Shares>,
}

impl Held {
    pub(super) fn nothing() -> Self {
        Self { _place: None, _counted: None }
    }

    pub(super) fn place(place: OwnedSemaphorePermit) -> Self {
        Self { _place: Some(place), _counted: None }
    }

    pub(super) fn counted(self, counted: Shares) -> Self {
        Self { _counted: Some(counted), ..self }
    }

    /// The body, which holds this until it ends or is dropped.
    pub(super) fn until_sent(self, body: Body) -> Body {
        Body::new(HeldBody { body, _held: self })
    }
}

struct HeldBody {
    body: Body,
    _held: Held,
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
