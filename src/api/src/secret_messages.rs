//! `Debug` of the messages that hold a credential: without it.

use std::fmt;

use crate::v1::{IntrospectRequest, IssueResponse, RenewResponse};

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
        ];
        assert!(shown.iter().all(|text| !text.contains(&credential)), "{shown:?}");
    }
}
