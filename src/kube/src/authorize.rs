//! What someone may do, as the cluster's own RBAC says (SubjectAccessReview).

use std::sync::Arc;
use std::time::Duration;

use dayfly_core::ports::{Action, Authorizer, BoxFuture, DirectoryError};
use dayfly_core::workload::Identity;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::api::{ApiServer, CallError};

const WHAT: &str = "create subjectaccessreviews.authorization.k8s.io";
const PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const GROUP: &str = "dayfly.dev";

/// Asks the API server each time: an operator's rights are never remembered.
pub(crate) struct AccessReviewer {
    pub(crate) api: Arc<ApiServer>,
    /// For `revoke`: nothing else keeps operators from revoking.
    pub(crate) revoking: Arc<Semaphore>,
    /// For everything else: lists ask many questions.
    pub(crate) reading: Arc<Semaphore>,
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
        let permits = if action.verb == "revoke" { &self.revoking } else { &self.reading };
        let _permit = permits.acquire().await.map_err(|_| CallError::Busy)?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Answer, Fake, identity};

    fn revoke(owner: Option<&str>) -> Action {
        Action { verb: "revoke", resource: "owners", name: owner.map(str::to_owned) }
    }

    #[tokio::test]
    async fn the_user_is_repeated_as_it_was_reviewed() {
        let fake = Fake::start().await;
        let running = fake.connect(|_| {}).await;
        let authorizer = running.cluster().authorizer;
        let mut ada = identity(1, 2);
        ada.username = "ada".to_owned();
        assert_eq!(authorizer.allowed(&ada, &revoke(Some("payments"))).await, Ok(true));
        let spec = &fake.posted()["spec"];
        assert_eq!(
            *spec,
            json!({
                "user": "ada", "uid": ada.uid, "groups": ada.groups, "extra": ada.extra,
                "resourceAttributes": {"group": "dayfly.dev", "verb": "revoke", "resource": "owners", "name": "payments"},
            })
        );
        assert_eq!(authorizer.allowed(&identity(1, 2), &revoke(None)).await, Ok(false));
        assert!(fake.posted()["spec"]["resourceAttributes"].get("name").is_none(), "no name is all of them");
        assert_eq!(fake.count("subjectaccessreviews"), 2, "nothing is remembered");
    }

    #[tokio::test]
    async fn a_yes_that_is_also_a_no_is_a_no_and_other_clusters_users_are_not_asked_about() {
        let fake = Fake::start().await;
        let running = fake.connect(|_| {}).await;
        let authorizer = running.cluster().authorizer;
        let status = json!({"status": {"allowed": true, "denied": true}});
        fake.answer("subjectaccessreviews", Answer::Body(status.to_string()));
        assert_eq!(authorizer.allowed(&identity(1, 2), &revoke(None)).await, Ok(false));
        let mut foreign = identity(1, 2);
        foreign.cluster = "west".parse().unwrap();
        assert_eq!(authorizer.allowed(&foreign, &revoke(None)).await, Ok(false));
        assert_eq!(fake.count("subjectaccessreviews"), 1);
    }

    #[tokio::test]
    async fn an_api_server_that_cannot_answer_is_never_a_yes() {
        let fake = Fake::start().await;
        let running = fake.connect(|config| config.limits.review_timeout = Duration::from_millis(300)).await;
        let authorizer = running.cluster().authorizer;
        for (answer, says, after) in [
            (Answer::Status(429, Some(9)), "overloaded", 9),
            (Answer::Status(403, None), "may not create subjectaccessreviews", 5),
            (Answer::Body(json!({}).to_string()), "cannot be read", 5),
            (Answer::Hang, "did not answer", 1),
        ] {
            fake.answer("subjectaccessreviews", answer);
            let error = authorizer.allowed(&identity(1, 2), &revoke(None)).await.unwrap_err();
            assert!(error.why.contains(says), "{error}");
            assert_eq!(error.retry_after.as_secs(), after);
        }
    }
}
