//! What every call carries: the caller's token, and perhaps which cluster it is of. Verified before the call begins.

use std::sync::Arc;

use dayfly_api::CLUSTER_METADATA;
use dayfly_api::rejection::Rejection;
use dayfly_api::v1::ErrorReason;
use dayfly_broker::{Bearer, Broker, Caller as Kind, Verified};
use dayfly_core::ids::ClusterName;
use dayfly_core::limits;
use dayfly_core::ports::BoxFuture;
use dayfly_core::secret::Secret;
use http::HeaderMap;
use tonic::{Request, Status};

use super::reject;
use crate::guard::{Door, Who};

/// The caller's token, the cluster it names, and that it was verified.
pub(crate) struct Caller {
    pub(crate) token: Secret,
    cluster: Option<ClusterName>,
    verified: Option<Verified>,
}

impl Caller {
    /// Reads `authorization: Bearer TOKEN` (RFC 6750, section 2.1) and `dayfly-cluster: NAME`.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Rejection> {
        let missing = || {
            Rejection::new(
                ErrorReason::TokenMissing,
                "send the projected token as metadata `authorization: Bearer TOKEN`, once",
            )
        };
        let mut values = headers.get_all("authorization").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
        let (scheme, token) =
            value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(missing());
        }
        if token.len() > limits::TOKEN_BYTES {
            let message =
                format!("the token has {} bytes; at most {} are read", token.len(), limits::TOKEN_BYTES);
            return Err(Rejection::new(ErrorReason::TokenMalformed, message));
        }
        let cluster =
            match headers.get(CLUSTER_METADATA).map(|value| value.to_str().unwrap_or_default().parse()) {
                None => None,
                Some(Ok(cluster)) => Some(cluster),
                Some(Err(_)) => {
                    let message =
                        format!("metadata {CLUSTER_METADATA} is not a cluster's name (RFC 1123 label)");
                    let rejection = Rejection::new(ErrorReason::InvalidField, message);
                    return Err(rejection.with("field", CLUSTER_METADATA));
                }
            };
        Ok(Self { token: Secret::from(token.to_owned()), cluster, verified: None })
    }

    /// The caller of a request that came past the guard.
    pub(super) fn behind<T>(request: &Request<T>) -> Result<Arc<Self>, Status> {
        let caller = request.extensions().get::<Arc<Self>>();
        caller.cloned().ok_or_else(|| Status::internal("the call came past no guard"))
    }

    /// As the use cases take it.
    pub(super) fn bearer(&self) -> Bearer<'_> {
        Bearer { token: &self.token, cluster: self.cluster.as_ref(), verified: self.verified.as_ref() }
    }
}

impl Door for Broker {
    fn admit(&self, kind: Kind, headers: HeaderMap) -> BoxFuture<'_, Result<(Arc<Caller>, Who), Status>> {
        Box::pin(async move {
            let caller = Caller::of(&headers).map_err(Rejection::into_status)?;
            let verified = self.verify(caller.bearer(), kind).await.map_err(reject::status)?;
            let identity = verified.identity();
            let user = format!("{}/{}", identity.cluster, identity.username);
            let pod = identity.pod().map(|pod| pod.uid.to_string()).unwrap_or_default();
            let who = Who { workload: format!("{user}/{pod}"), user };
            Ok((Arc::new(Caller { verified: Some(verified), ..caller }), who))
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(headers: &HeaderMap) -> Option<String> {
        Caller::of(headers).err()?.into_status().get_details_error_info().map(|info| info.reason)
    }

    #[test]
    fn takes_one_bearer_token_and_one_cluster() {
        let mut headers = HeaderMap::new();
        assert_eq!(reason(&headers).unwrap(), "TOKEN_MISSING");
        headers.insert("authorization", "Basic abc".parse().unwrap());
        assert_eq!(reason(&headers).unwrap(), "TOKEN_MISSING");
        headers.insert("authorization", "bearer abc".parse().unwrap());
        assert_eq!(Caller::of(&headers).map(|c| c.token.expose().to_vec()).ok(), Some(b"abc".to_vec()));
        headers.insert("dayfly-cluster", "Not A Name".parse().unwrap());
        assert_eq!(reason(&headers).unwrap(), "INVALID_FIELD");
        headers.insert("dayfly-cluster", "east".parse().unwrap());
        assert_eq!(reason(&headers), None);
        headers.append("authorization", "bearer def".parse().unwrap());
        assert_eq!(reason(&headers).unwrap(), "TOKEN_MISSING");
        let mut big = HeaderMap::new();
        big.insert("authorization", format!("Bearer {}", "a".repeat(9000)).parse().unwrap());
        assert_eq!(reason(&big).unwrap(), "TOKEN_MALFORMED");
    }

    #[test]
    fn no_request_is_served_that_came_past_no_guard() {
        assert!(Caller::behind(&Request::new(())).is_err());
    }
}
