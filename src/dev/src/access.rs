//! Who may do what: a table that tests and the guide fill, asked by SubjectAccessReview.

use std::sync::{PoisonError, RwLock};

use serde::Deserialize;
use serde_json::{Value, json};

/// The API group that the table is about.
const GROUP: &str = "dayfly.dev";

/// The table. What no row allows is denied.
#[derive(Default)]
pub(crate) struct Access(RwLock<Vec<Row>>);

struct Row {
    /// A user's or a group's name.
    who: String,
    verb: String,
    resource: String,
    /// None: all of them.
    name: Option<String>,
}

/// `authorization.k8s.io/v1` `SubjectAccessReview.spec`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AccessReviewSpec {
    user: String,
    groups: Vec<String>,
    resource_attributes: Option<ResourceAttributes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResourceAttributes {
    verb: String,
    group: String,
    resource: String,
    name: String,
}

impl Access {
    /// Adds a row: `*` as verb or resource means any.
    pub(crate) fn allow(&self, who: &str, verb: &str, resource: &str, name: Option<&str>) {
        let row = Row {
            who: who.to_owned(),
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            name: name.filter(|name| *name != "*").map(str::to_owned),
        };
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(row);
    }

    /// Takes every row of this user or group away.
    pub(crate) fn forget(&self, who: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|row| row.who != who);
    }

    /// The status of a `SubjectAccessReview`.
    pub(crate) fn review(&self, spec: &AccessReviewSpec) -> Value {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let allowed = spec.resource_attributes.as_ref().and_then(|asked| {
            rows.iter().find(|row| asked.group == GROUP && row.is_for(spec) && row.covers(asked))
        });
        match allowed {
            Some(row) => {
                json!({"allowed": true, "reason": format!("allowed to \"{}\" by the stand-in", row.who)})
            }
            None => json!({"allowed": false}),
        }
    }
}

impl Row {
    fn is_for(&self, spec: &AccessReviewSpec) -> bool {
        self.who == spec.user || spec.groups.contains(&self.who)
    }

    fn covers(&self, asked: &ResourceAttributes) -> bool {
        let any = |row: &str, asked: &str| row == "*" || row == asked;
        any(&self.verb, &asked.verb)
            && any(&self.resource, &asked.resource)
            && self.name.as_ref().is_none_or(|name| *name == asked.name)
    }
}
