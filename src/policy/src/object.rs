//! One document as one object: which it is, whether it is valid, and what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use dayfly_core::digest::Digest;
use dayfly_core::ids::{GrantName, GrantRef, Namespace, OwnerName, TargetName};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::claimed::claimed;
use crate::load::Reserved;
use crate::problem::{Problem, Severity};
use crate::spec::{
    API_VERSION, Fault, Faults, GrantSpec, NamespacesSpec, OwnerSpec, Spec, Step, TargetSpec, UNOWNED,
};
use crate::table::{Table, TestSpec};
use crate::yaml::{Document, Place};

/// An object's identity: two of the same are duplicates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Owner,
    Target,
    Grant,
    PolicyTest,
}

impl Kind {
    fn of(text: &str) -> Option<Self> {
        match text {
            "Owner" => Some(Self::Owner),
            "Target" => Some(Self::Target),
            "Grant" => Some(Self::Grant),
            "PolicyTest" => Some(Self::PolicyTest),
            _ => None,
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{:?} {namespace:.63}/{:.253}", self.kind, self.name),
            None => write!(f, "{:?} {:.253}", self.kind, self.name),
        }
    }
}

/// A valid object.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Owner(OwnerName, OwnerSpec),
    Target(TargetName, TargetSpec),
    Grant(GrantRef, GrantSpec),
    Test(Table),
}

/// What a document turned out to be.
pub(crate) struct Object<'a> {
    pub(crate) file: &'a str,
    pub(crate) document: Document<'a>,
    /// Which object it says it is, where it says so; an invalid object still has its name.
    pub(crate) key: Option<ObjectKey>,
    /// The object, where it is valid.
    pub(crate) body: Option<Body>,
    /// The namespaces that one which is not valid claims, as far as they can be made out; none where it is not even YAML.
    pub(crate) claimed: Option<NamespacesSpec>,
    /// A digest over everything in it that counts.
    pub(crate) digest: Digest,
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Object<'a> {
    /// Reads a document.
    pub(crate) fn read(file: &'a str, document: Document<'a>, reserved: &Reserved) -> Self {
        let mut object = Self::read_strictly(file, document, reserved);
        if object.body.is_none() {
            object.claimed = claimed(document);
        }
        object
    }

    fn read_strictly(file: &'a str, document: Document<'a>, reserved: &Reserved) -> Self {
        let mut object = Self {
            file,
            document,
            key: None,
            body: None,
            claimed: None,
            digest: Digest::of(b""),
            problems: Vec::new(),
        };
        let head: Head = match document.parse_head() {
            Ok(head) => head,
            Err(bad) => {
                object.problem(bad.place, Severity::Error, bad.message);
                return object;
            }
        };
        let Some(kind) = Kind::of(&head.kind).filter(|_| head.api_version == API_VERSION) else {
            let message = format!(
                "{:.80} {:.80} is not a policy object: {API_VERSION} has Owner, Target and Grant, and PolicyTest",
                head.api_version, head.kind
            );
            object.problem(document.find(&[Step::Key("kind")]), Severity::Error, message);
            return object;
        };
        object.key =
            Some(ObjectKey { kind, namespace: head.metadata.namespace, name: head.metadata.name.clone() });
        match kind {
            Kind::Owner => object.read_as::<OwnerSpec>(reserved, |metadata, spec| {
                let name: OwnerName = cluster_scoped(&metadata)?;
                if name.as_str() == UNOWNED {
                    let message = "is reserved: it is who answers where there is no Owner";
                    return Err(of_metadata("name", message));
                }
                if let Some(index) = spec.delegates.iter().position(|delegate| delegate.owner == name) {
                    let path = vec![
                        Step::Key("spec"),
                        Step::Key("delegates"),
                        Step::Index(index),
                        Step::Key("owner"),
                    ];
                    let message = "is this Owner itself: leave the delegate out".to_owned();
                    return Err(Fault { path, message });
                }
                Ok(Body::Owner(name, spec))
            }),
            Kind::Target => object.read_as::<TargetSpec>(reserved, |metadata, spec| {
                Ok(Body::Target(cluster_scoped(&metadata)?, spec))
            }),
            Kind::Grant => object.read_as::<GrantSpec>(reserved, |metadata, spec| {
                Ok(Body::Grant(namespaced(&metadata)?, spec))
            }),
            Kind::PolicyTest => {
                let file = object.file.to_owned();
                object.read_as::<TestSpec>(reserved, |metadata, spec| {
                    let name: GrantName = cluster_scoped(&metadata)?;
                    Ok(Body::Test(Table { file, name: name.to_string(), spec }))
                });
            }
        }
        object
    }

    fn read_as<S: DeserializeOwned + Serialize + Spec>(
        &mut self,
        reserved: &Reserved,
        body: impl FnOnce(Metadata, S) -> Result<Body, Fault>,
    ) {
        let whole: Whole<S> = match self.document.parse() {
            Ok(whole) => whole,
            Err(bad) => return self.problem(bad.place, Severity::Error, bad.message),
        };
        let mut faults = Faults::default();
        whole.spec.check(reserved, &mut faults);
        // The digest is over the object as it was understood: comments and layout do not count.
        let canonical = serde_saphyr::to_string(&whole.spec);
        let body = body(whole.metadata, whole.spec).map_err(|fault| faults.0.push(fault));
        for fault in &faults.0 {
            self.fault(fault, Severity::Error);
        }
        match canonical {
            Ok(text) => self.digest = Digest::of_parts(&[self.name().as_bytes(), b"\0", text.as_bytes()]),
            Err(error) => return self.problem(self.document.start(), Severity::Error, error.to_string()),
        }
        if faults.0.is_empty() {
            self.body = body.ok();
        }
    }

    /// Which object, in words.
    fn name(&self) -> String {
        self.key.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// Reports what is wrong with a field.
    pub(crate) fn fault(&mut self, fault: &Fault, severity: Severity) {
        let place = self.document.find(&fault.path);
        self.problem(place, severity, format!("{} {}", path_text(&fault.path), fault.message));
    }

    /// Reports what is wrong with it at a place.
    pub(crate) fn problem(&mut self, place: Place, severity: Severity, message: String) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            object: self.key.as_ref().map(ToString::to_string),
            message,
            severity,
        });
    }
}

/// `spec.ceiling[1].maxTtl:`.
fn path_text(path: &[Step]) -> String {
    let steps = path.iter().enumerate().map(|(depth, step)| match step {
        Step::Key(key) if depth == 0 => (*key).to_owned(),
        Step::Key(key) => format!(".{key}"),
        Step::Index(index) => format!("[{index}]"),
    });
    steps.chain([":".to_owned()]).collect()
}

/// What a document is, whatever else is in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    metadata: HeadMetadata,
    #[expect(dead_code, reason = "takes the rest of the document, which is read by kind")]
    spec: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct HeadMetadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Whole<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

fn cluster_scoped<N: std::str::FromStr<Err: fmt::Display>>(metadata: &Metadata) -> Result<N, Fault> {
    if metadata.namespace.is_some() {
        return Err(of_metadata("namespace", "remove it: this kind belongs to the whole cluster"));
    }
    metadata.name.parse().map_err(|error: N::Err| of_metadata("name", error.to_string()))
}

fn namespaced(metadata: &Metadata) -> Result<GrantRef, Fault> {
    let namespace = metadata.namespace.as_deref();
    let namespace =
        namespace.ok_or_else(|| of_metadata("namespace", "is missing: a Grant belongs to one"))?;
    let namespace: Namespace =
        namespace.parse().map_err(|error| of_metadata("namespace", format!("{error}")))?;
    let name: GrantName = metadata.name.parse().map_err(|error| of_metadata("name", format!("{error}")))?;
    Ok(GrantRef { namespace, name })
}

fn of_metadata(field: &'static str, message: impl Into<String>) -> Fault {
    Fault { path: vec![Step::Key("metadata"), Step::Key(field)], message: message.into() }
}
