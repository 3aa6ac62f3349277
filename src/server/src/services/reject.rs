//! A use case's refusal as a gRPC status.

use dayfly_api::BadField;
use dayfly_api::rejection::{Rejection, reason_name, reason_of_name};
use dayfly_api::v1::ErrorReason;
use dayfly_broker::Error;
use tonic::Status;

/// The status of a refusal. What only the log should have is logged here, once.
pub(crate) fn status(error: Error) -> Status {
    let reason = reason_of_name(error.reason().name()).unwrap_or(ErrorReason::Internal);
    let rejection = Rejection::new(reason, error.to_string());
    match error {
        Error::Denied { denial: Some(denial), .. } => {
            tracing::info!(reason = reason_name(reason), %denial, "refused");
            rejection.with("denial", denial.to_string())
        }
        Error::Unauthenticated { .. }
        | Error::Denied { .. }
        | Error::NotFound { .. }
        | Error::FailedPrecondition { .. }
        | Error::OutOfRange { .. } => {
            tracing::info!(reason = reason_name(reason), "refused");
            rejection
        }
        Error::Outrun => rejection.retry_after(std::time::Duration::ZERO),
        Error::NotAllowed { action, .. } => {
            tracing::info!(verb = action.verb, resource = action.resource, "not allowed");
            let rejection = rejection.with("verb", action.verb).with("resource", action.resource);
            let rejection = rejection.with("group", "dayfly.dev");
            match action.name {
                Some(name) => rejection.with("name", name),
                None => rejection,
            }
        }
        Error::Invalid { field, .. } => rejection.with("field", field),
        Error::Unavailable { cause, retry_after, .. } => {
            tracing::warn!(reason = reason_name(reason), cause, "unavailable");
            rejection.retry_after(retry_after)
        }
        Error::Overloaded { retry_after, .. } | Error::LiveLeases { retry_after, .. } => {
            tracing::info!(reason = reason_name(reason), "shed");
            rejection.retry_after(retry_after)
        }
        Error::Internal { cause } => {
            tracing::error!(cause, "internal error");
            rejection
        }
    }
    .into_status()
}

/// The status of a field that does not convert.
pub(super) fn bad_field(bad: &BadField) -> Status {
    field(bad.field, &bad.why)
}

/// The status of a field that does not parse.
pub(super) fn field(field: &'static str, why: &impl std::fmt::Display) -> Status {
    Rejection::new(ErrorReason::InvalidField, format!("{field}: {why}")).with("field", field).into_status()
}
