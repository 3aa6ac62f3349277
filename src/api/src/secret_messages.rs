//! `Debug` of the messages that hold a credential: without it.

use std::fmt;

use crate::v1::explain_request::About;
use crate::v1::{ExplainRequest, IntrospectRequest, IssueResponse, RenewResponse};

impl fmt::Debug for IssueResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueResponse")
            .field("lease", &self.lease)
            .field("renew_after", &self.renew_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RenewResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewResponse")
            .field("lease", &self.lease)
            .field("renew_after", &self.renew_after)
            .field("earlier", &self.earlier)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IntrospectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntrospectRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for ExplainRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ExplainRequest");
        match &self.about {
            None => {}
            Some(about) => _ = shown.field("about", about),
        }
        shown.field("asked", &self.asked).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl fmt::Debug for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.debug_tuple("Token").finish_non_exhaustive(),
            Self::Workload(workload) => f.debug_tuple("Workload").field(workload).finish(),
            Self::Lease(id) => f.debug_tuple("Lease").field(id).finish(),
            Self::Denial(id) => f.debug_tuple("Denial").field(id).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_is_shown() {
        let credential = "a-credential".to_owned();
        let shown = [
            format!("{:?}", IssueResponse { credential: credential.clone(), ..IssueResponse::default() }),
            format!("{:?}", RenewResponse { credential: credential.clone(), ..RenewResponse::default() }),
            format!("{:#?}", IntrospectRequest { credential: credential.clone() }),
            format!(
                "{:?}",
                ExplainRequest { about: Some(About::Token(credential.clone())), ..ExplainRequest::default() }
            ),
            format!("{:?}", About::Token(credential.clone())),
        ];
        assert!(shown.iter().all(|text| !text.contains(&credential)), "{shown:?}");
    }
}
