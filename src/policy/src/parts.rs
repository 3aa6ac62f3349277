//! Parts of the specs that several kinds share: labels, claims, numbers of live leases; and whom an Owner delegates to.

use std::collections::BTreeMap;

use dayfly_core::claims::{ClaimValue, Claims, is_reserved};
use dayfly_core::ids::{OwnerName, ServiceAccountName};
use dayfly_core::provenance::{Labels, ObjectRef};
use serde::{Deserialize, Serialize};

use crate::spec::Step::{Index, Key};
use crate::spec::{Faults, LIST, Step};

/// The reserved owner of workloads in namespaces without an Owner, while the configuration's grace lasts. No Owner may
/// have this name; ceilings may name it.
pub const UNOWNED: &str = "unowned";

/// The most labels one set may name.
pub const LABELS: usize = 16;
/// The most claims a Grant may set, or a ceiling's entry allow.
pub const CLAIMS: usize = 32;
/// The most bytes of one claim's name.
pub const CLAIM_NAME_BYTES: usize = 128;
/// The most bytes that a Grant's claims may have, names and values together.
pub const CLAIMS_BYTES: usize = 2048;

/// What claims may say: for each name, the values it may have.
pub type AllowedClaims = BTreeMap<String, Vec<String>>;

/// Workloads that another Owner answers for: by exactly one of `labels`, `serviceAccounts` and `controllers`. Whoever
/// can create a pod can write these, so they narrow only inside the namespaces of the Owner that delegates them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelegateSpec {
    /// Who answers for them: an Owner that there is.
    pub owner: OwnerName,
    /// By labels of the pod; at most 256 sets. A pod matches that has all labels of any one set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Labels>,
    /// By the service account's name; at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccountName>,
    /// By the pod's top controller; at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<ControllerSpec>,
}

/// A top controller, of the workload's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControllerSpec {
    /// Its API version, such as `apps/v1`; at most 253 bytes.
    pub api_version: String,
    /// Its kind, such as `Deployment`; at most 63 bytes.
    pub kind: String,
    /// Its name; at most 253 bytes.
    pub name: String,
}

/// How many leases may be live at once, from 1; none is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LiveLeases {
    /// For the target, of one pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_pod: Option<u32>,
    /// For the target, of one service account, all its pods together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_workload: Option<u32>,
    /// For the target, by one Grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_grant: Option<u32>,
    /// For the target, in all; in an entry of a ceiling, of one namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
}

impl LiveLeases {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ControllerSpec {
    /// Whether it is this object.
    pub(crate) fn is(&self, object: &ObjectRef) -> bool {
        self.api_version == object.api_version && self.kind == object.kind && self.name == object.name
    }
}

impl DelegateSpec {
    pub(crate) fn check(&self, index: usize, faults: &mut Faults) {
        let at = |field| [Key("delegates"), Index(index), Key(field)];
        if self.owner.as_str() == UNOWNED {
            faults.add(&at("owner"), "is reserved: it is who answers where there is no Owner");
        }
        let ways = [self.labels.is_empty(), self.service_accounts.is_empty(), self.controllers.is_empty()];
        if ways.iter().filter(|empty| !**empty).count() != 1 {
            let message = "names exactly one of labels, serviceAccounts and controllers";
            faults.add(&[Key("delegates"), Index(index)], message);
        }
        faults.label_sets(&at("labels"), &self.labels);
        faults.list(&at("serviceAccounts"), &self.service_accounts, 0, LIST);
        faults.count(&at("controllers"), self.controllers.len(), 0, LIST);
        for (n, controller) in self.controllers.iter().enumerate().take(LIST) {
            let fields = [
                ("apiVersion", &controller.api_version, 253),
                ("kind", &controller.kind, 63),
                ("name", &controller.name, 253),
            ];
            for (field, text, most) in fields {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/:".contains(&b);
                if text.is_empty() || text.len() > most || !text.bytes().all(plain) {
                    let path = [Key("delegates"), Index(index), Key("controllers"), Index(n), Key(field)];
                    faults.add(
                        &path,
                        format!("must be 1 to {most} letters, digits, '-', '.', '_', '/' and ':'"),
                    );
                }
            }
        }
    }
}

impl Faults {
    /// Each set names 1 to [`LABELS`] labels as Kubernetes has them, so that none matches everything.
    pub(crate) fn label_sets(&mut self, path: &[Step], sets: &[Labels]) {
        self.count(path, sets.len(), 0, LIST);
        for (index, set) in sets.iter().enumerate().take(LIST) {
            let path: Vec<_> = path.iter().copied().chain([Index(index)]).collect();
            self.count(&path, set.len(), 1, LABELS);
            if sets.iter().take(index).any(|other| other == set) {
                self.add(&path, "is listed twice");
            }
            for (key, value) in set.iter().take(LABELS) {
                if !is_label_key(key) {
                    self.add(&path, format!("{key:?} is not a label's key"));
                }
                if !is_label_value(value) {
                    self.add(&path, format!("{key}: {value:?} is not a label's value, nor is any pattern"));
                }
            }
        }
    }

    pub(crate) fn live_leases(&mut self, path: &[Step], live: &LiveLeases) {
        let fields = [
            ("perPod", live.per_pod),
            ("perWorkload", live.per_workload),
            ("perGrant", live.per_grant),
            ("total", live.total),
        ];
        for (field, _) in fields.into_iter().filter(|(_, number)| *number == Some(0)) {
            let path: Vec<_> = path.iter().copied().chain([Key(field)]).collect();
            self.add(&path, "is 0: at least 1, or leave it out");
        }
    }

    pub(crate) fn claims(&mut self, path: &[Step], claims: &Claims) {
        self.count(path, claims.len(), 0, CLAIMS);
        let bytes = claims
            .iter()
            .map(|(name, value)| name.len() + value.values().iter().map(String::len).sum::<usize>());
        let bytes: usize = bytes.sum();
        if bytes > CLAIMS_BYTES {
            self.add(path, format!("have {bytes} bytes: at most {CLAIMS_BYTES} are allowed"));
        }
        for (name, value) in claims.iter().take(CLAIMS) {
            self.claim(path, name, value.values());
            if matches!(value, ClaimValue::Many(values) if values.is_empty()) {
                self.add(path, format!("{name} is an empty list"));
            }
        }
    }

    pub(crate) fn allowed_claims(&mut self, path: &[Step], claims: &AllowedClaims) {
        self.count(path, claims.len(), 0, CLAIMS);
        for (name, values) in claims.iter().take(CLAIMS) {
            self.claim(path, name, values);
            if values.is_empty() {
                self.add(path, format!("{name} allows no value: name some, or leave it out"));
            }
        }
    }

    fn claim(&mut self, path: &[Step], name: &str, values: &[String]) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/#".contains(&b);
        if name.is_empty() || name.len() > CLAIM_NAME_BYTES || !name.bytes().all(plain) {
            let message = format!(
                "{name:.80?} is not a claim's name here: 1 to {CLAIM_NAME_BYTES} letters, digits, '-', '.', '_', ':', '/' and '#'"
            );
            self.add(path, message);
        } else if is_reserved(name) {
            self.add(path, format!("{name} cannot be set: it is registered, or Dayfly's own"));
        }
        if values.len() > LIST {
            self.add(path, format!("{name:.80} has {} values: at most {LIST}", values.len()));
        }
        for (index, value) in values.iter().enumerate().take(LIST) {
            if value.is_empty() || value.len() > 512 || value.chars().any(char::is_control) {
                self.add(path, format!("{name:.80} has a value that is not 1 to 512 bytes on one line"));
            } else if values.iter().take(index).any(|other| other == value) {
                self.add(path, format!("{name:.80} lists {value:.80} twice"));
            }
        }
    }
}

/// `PREFIX/NAME` or `NAME` (Kubernetes, "Labels and Selectors": syntax and character set).
fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_part))
        && !name.is_empty()
        && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let ends = |end: Option<&u8>| end.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b))
        && ends(bytes.first())
        && ends(bytes.last())
}

/// Whether an object's labels have all of any one set.
pub(crate) fn any_matches(sets: &[Labels], labels: &Labels) -> bool {
    sets.iter().any(|set| has_all(labels, set))
}

/// Whether an object's labels have all of a set. No set is empty: that is checked when it is read.
pub(crate) fn has_all(labels: &Labels, set: &Labels) -> bool {
    !set.is_empty() && set.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// `key=value,key=value`.
pub fn label_text(set: &Labels) -> String {
    set.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kubernetes_and_no_patterns() {
        for key in ["team", "app.kubernetes.io/name", "A_b.c-d"] {
            assert!(is_label_key(key), "{key}");
        }
        for key in ["", "*", "team*", "/team", "a/b/c", "-a", "UPPER.io/a", "é", &"a".repeat(64)] {
            assert!(!is_label_key(key), "{key}");
        }
        assert!(is_label_value("") && is_label_value("Payments_1"));
        assert!(
            !is_label_value("*") && !is_label_value("pay*") && !is_label_value("a b") && !is_label_value("а")
        );
    }
}
