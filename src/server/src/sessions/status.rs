//! Refusals as Kubernetes has them: `metav1.Status`.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dayfly_broker::Error;
use serde_json::json;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
}

impl Refused {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), retry_after: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub(super) fn too_many(message: impl Into<String>, after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).after(after)
    }

    pub(super) fn unavailable(message: impl Into<String>, after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message).after(after)
    }

    fn after(self, after: Duration) -> Self {
        Self { retry_after: Some(after.max(Duration::from_secs(1))), ..self }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Denied { .. } | Error::NotAllowed { .. } => {
                Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
            }
            Error::Invalid { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
            }
            Error::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, "NotFound", message),
            Error::Unavailable { retry_after, .. } => Self::unavailable(message, retry_after),
            Error::Overloaded { retry_after, .. } | Error::LiveLeases { retry_after, .. } => {
                Self::too_many(message, retry_after)
            }
            Error::Unauthenticated { .. }
            | Error::FailedPrecondition { .. }
            | Error::OutOfRange { .. }
            | Error::Outrun
            | Error::Internal { .. } => {
                tracing::error!(cause = error.cause(), "a session was not opened");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { code, reason, message, retry_after } = self;
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code.as_u16(),
        });
        let secs = retry_after.map(|after| after.as_secs().max(1));
        if let Some(secs) = secs {
            status["details"] = json!({ "retryAfterSeconds": secs });
        }
        let mut answer = (code, [(header::CACHE_CONTROL, "no-store")], Json(status)).into_response();
        if let Some(secs) = secs {
            answer.headers_mut().insert(header::RETRY_AFTER, secs.into());
        }
        answer
    }
}
