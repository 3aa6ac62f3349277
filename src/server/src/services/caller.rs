//! What every call carries: the caller's token, and perhaps which cluster it is of.

use dayfly_api::CLUSTER_METADATA;
use dayfly_api::rejection::Rejection;
use dayfly_api::v1::ErrorReason;
use dayfly_broker::Bearer;
use dayfly_core::ids::ClusterName;
use dayfly_core::limits;
use dayfly_core::secret::Secret;
use tonic::metadata::MetadataMap;

/// The caller's token, and the cluster it names.
pub(super) struct Caller {
    pub(super) token: Secret,
    pub(super) cluster: Option<ClusterName>,
}

impl Caller {
    /// Reads `authorization: Bearer TOKEN` (RFC 6750, section 2.1) and `dayfly-cluster: NAME`.
    pub(super) fn of(metadata: &MetadataMap) -> Result<Self, Rejection> {
        let missing = || {
            Rejection::new(
                ErrorReason::TokenMissing,
                "send the projected token as metadata `authorization: Bearer TOKEN`, once",
            )
        };
        let mut values = metadata.get_all("authorization").iter();
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
            match metadata.get(CLUSTER_METADATA).map(|value| value.to_str().unwrap_or_default().parse()) {
                None => None,
                Some(Ok(cluster)) => Some(cluster),
                Some(Err(_)) => {
                    let message =
                        format!("metadata {CLUSTER_METADATA} is not a cluster's name (RFC 1123 label)");
                    return Err(
                        Rejection::new(ErrorReason::InvalidField, message).with("field", CLUSTER_METADATA)
                    );
                }
            };
        Ok(Self { token: Secret::from(token.to_owned()), cluster })
    }

    /// As the use cases take it.
    pub(super) fn bearer(&self) -> Bearer<'_> {
        Bearer { token: &self.token, cluster: self.cluster.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(metadata: &MetadataMap) -> Option<String> {
        use tonic_types::StatusExt as _;
        Caller::of(metadata).err()?.into_status().get_details_error_info().map(|info| info.reason)
    }

    #[test]
    fn takes_one_bearer_token_and_one_cluster() {
        let mut metadata = MetadataMap::new();
        assert_eq!(reason(&metadata).unwrap(), "TOKEN_MISSING");
        metadata.insert("authorization", "Basic abc".parse().unwrap());
        assert_eq!(reason(&metadata).unwrap(), "TOKEN_MISSING");
        metadata.insert("authorization", "bearer abc".parse().unwrap());
        assert_eq!(Caller::of(&metadata).map(|c| c.token.expose().to_vec()).ok(), Some(b"abc".to_vec()));
        metadata.insert("dayfly-cluster", "Not A Name".parse().unwrap());
        assert_eq!(reason(&metadata).unwrap(), "INVALID_FIELD");
        metadata.insert("dayfly-cluster", "east".parse().unwrap());
        assert_eq!(reason(&metadata), None);
        metadata.append("authorization", "bearer def".parse().unwrap());
        assert_eq!(reason(&metadata).unwrap(), "TOKEN_MISSING");
        let mut big = MetadataMap::new();
        big.insert("authorization", format!("Bearer {}", "a".repeat(9000)).parse().unwrap());
        assert_eq!(reason(&big).unwrap(), "TOKEN_MALFORMED");
    }
}
