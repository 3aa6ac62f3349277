//! Where a workload came from, as its cluster's API server tells it: what applied it, what controls it, what it runs.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::{ImageDigest, Namespace, ServiceAccountName, Uid};

/// Labels of a Kubernetes object.
pub type Labels = BTreeMap<String, String>;

/// Labels of one object that are kept: of an object with more, none is.
pub const LABELS: usize = 64;
/// The longest chain of controllers that is followed.
pub const CONTROLLERS: usize = 8;
/// Images of one pod that are recorded.
pub const IMAGES: usize = 64;

/// A Kubernetes object, by name and, where whoever names it says so, uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its API version: `apps/v1`.
    pub api_version: String,
    /// Its kind: `Deployment`.
    pub kind: String,
    /// Its namespace; none where the kind has none.
    pub namespace: Option<Namespace>,
    /// Its name.
    pub name: String,
    /// Its uid; none where whoever names it does not say, as the labels of GitOps tools do not.
    pub uid: Option<Uid>,
}

/// As `Kind/name`: of a workload's own namespace, mostly.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What one container of a pod runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image {
    /// The container's name.
    pub container: String,
    /// The image's digest, `sha256:` and 64 hexadecimal digits, from the pod's status. Never a tag.
    pub digest: String,
}

/// Whether a text is an image's digest as it is recorded.
pub fn is_image_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Where a workload came from when its lease was decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// The chain of `ownerReferences` with `controller: true` whose uids agree with what is there, from the pod's own
    /// up to the top controller; at most [`CONTROLLERS`].
    pub controllers: Vec<ObjectRef>,
    /// What its pod's containers run; at most [`IMAGES`].
    pub images: Vec<Image>,
    /// Whether `images` are those of all its containers: none of them had an image that was not known by its digest. False
    /// without a pod.
    pub images_known: bool,
    /// The GitOps object that applied the top controller, by that one's labels and annotations: asserted.
    pub applied_by: Option<ObjectRef>,
}

impl Provenance {
    /// Whether any container ran this image.
    pub fn runs(&self, image: &ImageDigest) -> bool {
        self.images.iter().any(|one| one.digest == image.as_str())
    }

    /// The top controller.
    pub fn top(&self) -> Option<&ObjectRef> {
        self.controllers.last()
    }
}

/// What a narrower owner was chosen by. Asserted, not attested: whoever can create a pod can write it, so it counts
/// only within a namespace whose Owner delegates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asserted {
    /// A label of the pod.
    Label {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The service account's name.
    ServiceAccount(ServiceAccountName),
    /// The top controller.
    Controller(ObjectRef),
}

impl fmt::Display for Asserted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label { key, value } => write!(f, "label {key}={value}"),
            Self::ServiceAccount(name) => write!(f, "service account {name}"),
            Self::Controller(object) => write!(f, "controller {object}"),
        }
    }
}
