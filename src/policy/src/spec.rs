//! What people write: the `spec` of each kind. The same types become the custom resources.
//!
//! Unknown fields are errors. Names, scopes and audiences are core's types, so that what parses is well formed; what a
//! single field cannot say about itself is checked by `check`, with the path of the field that is wrong.

use dayfly_core::claims::Claims;
use dayfly_core::ids::{
    Audience, ClusterName, GrantName, Namespace, OwnerName, Scope, ServiceAccountName, TargetName,
};
use dayfly_core::limits;
use dayfly_core::provenance::Labels;
use serde::{Deserialize, Serialize};

use crate::load::Reserved;
use crate::ttl::Ttl;

pub use crate::kind::{JwtSpec, SvidSpec};
pub use crate::parts::{AllowedClaims, ControllerSpec, DelegateSpec, LiveLeases, UNOWNED};

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
    /// The namespaces it answers for. None where it answers only for what other Owners delegate to it.
    #[serde(default, skip_serializing_if = "NamespacesSpec::is_empty")]
    pub namespaces: NamespacesSpec,
    /// Which workloads in its namespaces other Owners answer for; at most 256. Only this narrows, nothing a workload says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegates: Vec<DelegateSpec>,
}

/// Which namespaces: those named, and those whose labels match. An Owner by name ranks above one by label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespacesSpec {
    /// By name; at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Namespace>,
    /// By label; at most 256 sets. A namespace matches that has all labels of any one set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Labels>,
}

impl NamespacesSpec {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.labels.is_empty()
    }
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
    /// How many leases for it may be live at once.
    #[serde(default, skip_serializing_if = "LiveLeases::is_empty")]
    pub live_leases: LiveLeases,
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
/// Where several entries match, each allows what it names: a scope or claim survives if some entry that accepts the
/// request names it. An entry accepts by audience, service account, and whether the token is bound to a pod. `maxTtl`
/// and `liveLeases` bound everything of whoever their entry matches, accepted or not: the least of them counts. So
/// nothing widens when an entry is narrowed.
///
/// An entry by owner allows what it names to the namespaces that this owner answers for. A workload that was narrowed
/// to it, by a label that whoever makes the pod can write, is bounded by the entry and gets nothing more by it.
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
    /// The longest life that may be granted, 30 s to 24 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Ttl>,
    /// The claims that a Grant may set, and for each the values it may have, at most 256; none means no claims.
    #[serde(default, skip_serializing_if = "AllowedClaims::is_empty")]
    pub claims: AllowedClaims,
    /// The service accounts whose requests it accepts, by name; none means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<Vec<ServiceAccountName>>,
    /// Whether it accepts tokens that are bound to no pod. None means what the Target says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbound_tokens: Option<bool>,
    /// How many leases of each whom it matches may be live at once; `total` counts those of one namespace.
    #[serde(default, skip_serializing_if = "LiveLeases::is_empty")]
    pub live_leases: LiveLeases,
}

/// The rule that lets some service accounts of its own namespace have a credential for a target (namespaced).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantSpec {
    /// Which service accounts of its own namespace, by name; at most 256. Either this or `serviceAccountLabels`, or both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccountName>,
    /// Which service accounts, by label; at most 256 sets. One matches that has all labels of any one set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_account_labels: Vec<Labels>,
    /// For which target.
    pub target: TargetName,
    /// What they may do there: 1 to 64 scopes.
    pub scope: Vec<Scope>,
    /// What else its tokens say, each claim a string or a list of strings: at most 32 claims, 2048 bytes in all. Claims
    /// that are registered, or Dayfly's own, cannot be set.
    #[serde(default, skip_serializing_if = "Claims::is_empty")]
    pub claims: Claims,
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
    /// It grants nothing. What it would have decided is recorded as audit events.
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
        self.count(path, list.len(), least, most);
        let seen = list.iter().take(most).enumerate();
        for (index, entry) in seen.filter(|(index, entry)| list.iter().take(*index).any(|e| e == *entry)) {
            let path: Vec<_> = path.iter().copied().chain([Index(index)]).collect();
            self.add(&path, format!("{} is listed twice", entry.to_string()));
        }
    }

    pub(crate) fn count(&mut self, path: &[Step], len: usize, least: usize, most: usize) {
        if len < least || len > most {
            self.add(path, format!("has {len} entries: {least} to {most} are allowed"));
        }
    }

    pub(crate) fn text(&mut self, path: &[Step], text: &str) {
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
        faults.list(&[Key("namespaces"), Key("names")], &self.namespaces.names, 0, LIST);
        faults.label_sets(&[Key("namespaces"), Key("labels")], &self.namespaces.labels);
        faults.count(&[Key("delegates")], self.delegates.len(), 0, LIST);
        for (index, delegate) in self.delegates.iter().enumerate().take(LIST) {
            delegate.check(index, faults);
        }
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
        faults.live_leases(&[Key("liveLeases")], &self.live_leases);
        for (index, entry) in self.ceiling.iter().enumerate().take(LIST) {
            entry.check(index, self.audiences(), faults);
            if entry.unbound_tokens == Some(true) && !self.unbound_tokens {
                let path = [Key("ceiling"), Index(index), Key("unboundTokens")];
                faults.add(&path, "is above spec.unboundTokens, which is false");
            }
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
        faults.allowed_claims(&at("claims"), &self.claims);
        if let Some(accounts) = &self.service_accounts {
            faults.list(&at("serviceAccounts"), accounts, 1, LIST);
        }
        faults.live_leases(&at("liveLeases"), &self.live_leases);
    }
}

impl Spec for GrantSpec {
    fn check(&self, _: &Reserved, faults: &mut Faults) {
        if self.service_accounts.is_empty() && self.service_account_labels.is_empty() {
            let message = "has 0 entries: 1 to 256 are needed here or in serviceAccountLabels";
            faults.add(&[Key("serviceAccounts")], message);
        }
        faults.list(&[Key("serviceAccounts")], &self.service_accounts, 0, LIST);
        faults.label_sets(&[Key("serviceAccountLabels")], &self.service_account_labels);
        faults.claims(&[Key("claims")], &self.claims);
        faults.list(&[Key("scope")], &self.scope, 1, limits::SCOPES);
        faults.ttl(&[Key("maxTtl")], self.max_ttl);
        faults.ttl(&[Key("defaultTtl")], self.default_ttl);
        if self.default_ttl > self.max_ttl {
            faults.add(&[Key("defaultTtl")], format!("is longer than maxTtl, {}", self.max_ttl));
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
