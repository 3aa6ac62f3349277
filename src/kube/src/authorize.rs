//! What someone may do, as the cluster's own RBAC says (SubjectAccessReview).

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ports::{Action, Authorizer, BoxFuture, DirectoryError};
use dayfly_core::workload::Identity;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::api::{ApiServer, CallError};

const WHAT: &str = "create subjectaccessreviews.authorization.k8s.io";
const PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const GROUP: &str = "dayfly.dev";

/// Asks the API server each time: an operator's rights are never remembered.
pub(crate) struct AccessReviewer {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) timeout: Duration,
}

impl Authorizer for AccessReviewer {
    fn allowed<'a>(
        &'a self,
        identity: &'a Identity,
        action: &'a Action,
    ) -> BoxFuture<'a, Result<bool, DirectoryError>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(self.timeout, self.ask(identity, action)).await;
            Ok(asked.unwrap_or(Err(CallError::Timeout(self.timeout)))?)
        })
    }
}

impl AccessReviewer {
    async fn ask(&self, identity: &Identity, action: &Action) -> Result<bool, CallError> {
        /// The verdict alone.
        #[derive(Deserialize)]
        struct Reviewed {
            status: Verdict,
        }
        #[derive(Deserialize)]
        struct Verdict {
            #[serde(default)]
            allowed: bool,
            #[serde(default)]
            denied: bool,
        }
        // One cluster's word on a user means nothing in another.
        if identity.cluster != self.api.cluster {
            return Ok(false);
        }
        let _permit = self.permits.acquire().await.map_err(|_| CallError::Busy)?;
        let review = review(identity, action);
        let Reviewed { status } = self.api.create(WHAT, PATH, &review, self.timeout).await?;
        Ok(status.allowed && !status.denied)
    }
}

/// The question, with the user as TokenReview gave it, unchanged.
fn review(identity: &Identity, action: &Action) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        verb: Some(action.verb.to_owned()),
        resource: Some(action.resource.to_owned()),
        name: action.name.clone(),
        ..ResourceAttributes::default()
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(identity.username.clone()),
            uid: Some(identity.uid.clone()),
            groups: Some(identity.groups.clone()),
            extra: Some(identity.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
