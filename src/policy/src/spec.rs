//! What people write: the `spec` of each kind. The same types become the custom resources.
//!
//! Unknown fields are errors. Names, scopes and audiences are core's types, so that what parses is well formed; what a
//! single field cannot say about itself is checked by `check`, with the path of the field that is wrong.

use dayfly_core::ids::{
    Audience, ClusterName, GrantName, Namespace, OwnerName, Scope, ServiceAccountName, TargetName,
};
use dayfly_core::limits;
use serde::{Deserialize, Serialize};

use crate::load::Reserved;
use crate::ttl::Ttl;

pub use crate::kind::{JwtSpec, SvidSpec};

/// The API group and version of every policy object.
pub const API_VERSION: &str = "dayfly.dev/v1alpha1";

/// The most entries any list of a policy object may have.
pub const LIST: usize = 256;
/// The most bytes any free text of a policy object may have.
pub const TEXT_BYTES: usize = 512;

/// The team, application or control objective that answers for workloads (cluster-scoped).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnerSpec {
    /// What people call it; at most 512 bytes.
    pub display_name: String,
    /// How to reach it: addresses, channels; at least one, each at most 512 bytes.
    pub contacts: Vec<String>,
    /// Who is called when nobody answers; at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<String>,
    /// The namespaces it answers for.
    pub namespaces: NamespacesSpec,
}

/// Which namespaces. (Labels join this with the objects that carry them.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespacesSpec {
    /// By name.
    pub names: Vec<Namespace>,
}

/// A downstream system that credentials are for (cluster-scoped).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetSpec {
    /// Kind `jwt`: RFC 9068 access tokens. Exactly one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtSpec>,
    /// Kind `svid`: SPIFFE JWT-SVIDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid: Option<SvidSpec>,
    /// The longest life it tolerates, 30 s to 24 h.
    pub max_ttl: Ttl,
    /// The life its owner recommends: at least three times as long as a broker or API server may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended_ttl: Option<Ttl>,
    /// Who may ask whether a credential for it is good.
    #[serde(default)]
    pub verifiers: Vec<VerifierSpec>,
    /// Whether tokens that are bound to no pod are accepted, where the Grant says so too.
    #[serde(default)]
    pub unbound_tokens: bool,
    /// What a Grant may choose from. Nothing may be granted beyond it, and nothing where no entry matches.
    #[serde(default)]
    pub ceiling: Vec<CeilingSpec>,
}

/// A service account that may introspect a target's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifierSpec {
    /// Its cluster; none means the cluster that the policy applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub service_account: ServiceAccountName,
}

/// An allowance: what Grants of these namespaces, or of these owners' namespaces, may choose from. No wildcards.
///
/// Where several entries match, each allows what it names: a scope survives if some entry that accepts the audience
/// names it. A `maxTtl` bounds everything of whoever its entry matches: the least of them counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CeilingSpec {
    /// Whose Grants, by namespace. Either this or `owners`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    /// Whose Grants, by owner. Either this or `namespaces`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerName>,
    /// The scopes that may be granted.
    pub scopes: Vec<Scope>,
    /// The audiences that may be granted, out of the target's; none means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audiences: Option<Vec<Audience>>,
    /// The longest life that may be granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Ttl>,
}

/// The rule that lets some service accounts of its own namespace have a credential for a target (namespaced).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantSpec {
    /// Which service accounts of its own namespace, by name.
    pub service_accounts: Vec<ServiceAccountName>,
    /// For which target.
    pub target: TargetName,
    /// What they may do there: at least one scope.
    pub scope: Vec<Scope>,
    /// With which audience, out of the target's. None leaves the choice to the request, or to a target with only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// The life of a credential where the request names none.
    pub default_ttl: Ttl,
    /// The longest life.
    pub max_ttl: Ttl,
    /// Whether tokens that are bound to no pod are accepted, where the Target says so too.
    #[serde(default)]
    pub unbound_tokens: bool,
    /// Whether it decides.
    #[serde(default)]
    pub mode: Mode,
    /// Conditions over the workload. Not built yet: a Grant that has any is invalid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// What a Grant does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// It would record what it would have decided. Not built yet: such a Grant is invalid.
    Audit,
}

/// A field that is wrong although it parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field's path from the document's root.
    pub(crate) path: Vec<Step>,
    /// What to change.
    pub(crate) message: String,
}

/// One step into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The value of this key.
    Key(&'static str),
    /// The element of this index.
    Index(usize),
}

/// What each kind checks beyond what its fields say by themselves.
pub(crate) trait Spec {
    /// Adds what is wrong to `faults`.
    fn check(&self, reserved: &Reserved, faults: &mut Faults);
}

/// Collects faults under `spec`.
#[derive(Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, path: &[Step], message: impl Into<String>) {
        let path = std::iter::once(Key("spec")).chain(path.iter().copied()).collect();
        self.0.push(Fault { path, message: message.into() });
    }

    /// A list has between `least` and `most` entries, and none twice.
    pub(crate) fn list<T: PartialEq + ToString>(
        &mut self,
        path: &[Step],
        list: &[T],
        least: usize,
        most: usize,
    ) {
        if list.len() < least || list.len() > most {
            self.add(path, format!("has {} entries: {least} to {most} are allowed", list.len()));
        }
        let seen = list.iter().take(most).enumerate();
        for (index, entry) in seen.filter(|(index, entry)| list.iter().take(*index).any(|e| e == *entry)) {
            let path: Vec<_> = path.iter().copied().chain([Index(index)]).collect();
            self.add(&path, format!("{} is listed twice", entry.to_string()));
        }
    }

    fn text(&mut self, path: &[Step], text: &str) {
        if text.trim().is_empty() || text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
            self.add(path, format!("must be 1 to {TEXT_BYTES} bytes of text on one line"));
        }
    }

    fn ttl(&mut self, path: &[Step], ttl: Ttl) {
        if ttl.duration() < limits::TTL_MIN || ttl.duration() > limits::TTL_MAX {
            self.add(path, format!("is {ttl}: 30s to 24h are allowed"));
        }
    }
}

use Step::{Index, Key};

impl Spec for OwnerSpec {
    fn check(&self, _: &Reserved, faults: &mut Faults) {
        faults.text(&[Key("displayName")], &self.display_name);
        faults.list(&[Key("contacts")], &self.contacts, 1, LIST);
        for (index, contact) in self.contacts.iter().enumerate().take(LIST) {
            faults.text(&[Key("contacts"), Index(index)], contact);
        }
        if let Some(escalation) = &self.escalation {
            faults.text(&[Key("escalation")], escalation);
        }
        faults.list(&[Key("namespaces"), Key("names")], &self.namespaces.names, 1, LIST);
    }
}

impl Spec for TargetSpec {
    fn check(&self, reserved: &Reserved, faults: &mut Faults) {
        self.check_kind(reserved, faults);
        faults.ttl(&[Key("maxTtl")], self.max_ttl);
        if let Some(recommended) = self.recommended_ttl {
            faults.ttl(&[Key("recommendedTtl")], recommended);
            if recommended > self.max_ttl {
                faults.add(&[Key("recommendedTtl")], format!("is longer than maxTtl, {}", self.max_ttl));
            }
        }
        if self.verifiers.len() > LIST {
            faults.add(&[Key("verifiers")], format!("has more than {LIST} entries"));
        }
        if self.ceiling.len() > LIST {
            faults.add(&[Key("ceiling")], format!("has more than {LIST} entries"));
        }
        for (index, entry) in self.ceiling.iter().enumerate().take(LIST) {
            entry.check(index, self.audiences(), faults);
        }
    }
}

impl CeilingSpec {
    fn check(&self, index: usize, target: &[Audience], faults: &mut Faults) {
        let at = |field| [Key("ceiling"), Index(index), Key(field)];
        if self.namespaces.is_empty() == self.owners.is_empty() {
            faults.add(&[Key("ceiling"), Index(index)], "names either namespaces or owners, at least one");
        }
        faults.list(&at("namespaces"), &self.namespaces, 0, LIST);
        faults.list(&at("owners"), &self.owners, 0, LIST);
        faults.list(&at("scopes"), &self.scopes, 1, LIST);
        if let Some(audiences) = &self.audiences {
            faults.list(&at("audiences"), audiences, 1, LIST);
            for (n, audience) in audiences.iter().enumerate().filter(|(_, a)| !target.contains(a)) {
                let path = [Key("ceiling"), Index(index), Key("audiences"), Index(n)];
                faults.add(&path, format!("{audience} is not one of the target's audiences"));
            }
        }
        if let Some(ttl) = self.max_ttl {
            faults.ttl(&at("maxTtl"), ttl);
        }
    }
}

impl Spec for GrantSpec {
    fn check(&self, _: &Reserved, faults: &mut Faults) {
        faults.list(&[Key("serviceAccounts")], &self.service_accounts, 1, LIST);
        faults.list(&[Key("scope")], &self.scope, 1, limits::SCOPES);
        faults.ttl(&[Key("maxTtl")], self.max_ttl);
        faults.ttl(&[Key("defaultTtl")], self.default_ttl);
        if self.default_ttl > self.max_ttl {
            faults.add(&[Key("defaultTtl")], format!("is longer than maxTtl, {}", self.max_ttl));
        }
        if self.mode == Mode::Audit {
            faults.add(&[Key("mode")], "mode Audit is not built yet: remove the Grant, or use Enforce");
        }
        if !self.conditions.is_empty() {
            faults.add(
                &[Key("conditions")],
                "conditions are not built yet: a Grant with conditions is invalid",
            );
        }
    }
}

/// A Grant's name for messages about its own namespace.
pub(crate) fn names(grants: &[&GrantName]) -> String {
    grants.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}
