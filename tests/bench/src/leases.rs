//! Leases as a cluster of 500 teams has them: for the store's gate, and for the million that `issue_warm` runs on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dayfly_core::change::{Change, Draw, Issue};
use dayfly_core::digest::Digest;
use dayfly_core::ids::{
    Audience, ClusterName, CredentialId, GrantName, GrantRef, KeyId, Namespace, NodeName, NotAName,
    OwnerName, PodName, Scope, ServiceAccountName, TargetName, Uid,
};
use dayfly_core::lease::{Check, Grounds, Idempotency, Lease, Owners, Phase, PolicyObject};
use dayfly_core::live::LiveCaps;
use dayfly_core::ports::Clock;
use dayfly_core::provenance::{Image, ObjectRef, Provenance};
use dayfly_core::time::Timestamp;
use dayfly_core::workload::{Node, Pod, ServiceAccount, Workload};

use crate::number::mixed;

/// Owners, each with a namespace of its name.
pub(crate) const OWNERS: u64 = 500;
/// Pods of each owner, each with its own service account.
const PODS: u64 = 4;
/// Every this many pods' leases have a narrowed owner too: one in ten.
const NARROWED: u64 = 10;
/// The life of a credential.
pub(crate) const TTL: Duration = Duration::from_secs(300);

/// The name of an owner, and of its namespace.
pub(crate) fn owner_name(number: u64) -> String {
    format!("team-{:03}", number % OWNERS)
}

/// Makes leases of [`OWNERS`] × [`PODS`] workloads, in no order.
pub(crate) struct LeaseMaker {
    workloads: Vec<(Workload, Owners, GrantRef)>,
    target: TargetName,
    audience: Audience,
    scope: Vec<Scope>,
    key_id: KeyId,
}

impl LeaseMaker {
    /// The same workloads each time.
    pub(crate) fn new() -> Result<Self, NotAName> {
        Ok(Self {
            workloads: (0..OWNERS * PODS).map(workload).collect::<Result<_, _>>()?,
            target: "orders".parse()?,
            audience: "https://orders.example.internal".parse()?,
            scope: vec!["orders:read".parse()?, "orders:write".parse()?],
            key_id: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".parse()?,
        })
    }

    /// The change that records the `number`th lease.
    pub(crate) fn issue(&self, number: u64, draw: Draw) -> Result<Change, NotAName> {
        let random = mixed(number);
        let at = usize::try_from(random % (OWNERS * PODS)).unwrap_or(0);
        let (workload, owners, grant) = &self.workloads[at];
        let mut workload = workload.clone();
        workload.credential_id = Some(credential_id(random)?);
        let issued_at = draw.now.floor_secs();
        let digest = |what: &[u8]| Digest::of_parts(&[what, &number.to_be_bytes()]);
        let lease = Lease {
            id: draw.id,
            provenance: provenance(random % (OWNERS * PODS), &workload),
            workload,
            owners: owners.clone(),
            target: self.target.clone(),
            grant: grant.clone(),
            audience: self.audience.clone(),
            scope: self.scope.clone(),
            claims: dayfly_core::claims::Claims::new(),
            issued_at,
            expires_at: issued_at.plus(TTL),
            key_id: self.key_id.clone(),
            digests: vec![digest(b"credential")],
            status: None,
            confirmation: None,
            spiffe_id: None,
            idempotency: Some(Idempotency { key: digest(b"key"), request: digest(b"request") }),
            renews: None,
            grounds: grounds(owners, grant, &self.target, &self.audience),
            phase: Phase::Active,
        };
        Ok(Change::Issue(Box::new(Issue { lease, decided_under: draw.position, caps: LiveCaps::default() })))
    }
}

/// A Deployment's pod of one container, which Argo CD applied.
fn provenance(number: u64, workload: &Workload) -> Provenance {
    let account = &workload.service_account;
    let object = |api_version: &str, kind: &str, name: String, uid: Option<Uid>| ObjectRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: Some(account.namespace.clone()),
        name,
        uid,
    };
    let set = format!("{}-{:010x}", account.name, mixed(number) >> 24);
    Provenance {
        controllers: vec![
            object("apps/v1", "ReplicaSet", set, Some(uid(number, 4))),
            object("apps/v1", "Deployment", account.name.to_string(), Some(uid(number, 5))),
        ],
        images: vec![Image {
            container: account.name.to_string(),
            digest: format!("sha256:{}", Digest::of(&number.to_be_bytes())),
        }],
        images_known: true,
        applied_by: Some(object("argoproj.io/v1alpha1", "Application", account.namespace.to_string(), None)),
    }
}

/// What a decision keeps of itself: as many objects and checks, and as long, as a real one has.
fn grounds(owners: &Owners, grant: &GrantRef, target: &TargetName, audience: &Audience) -> Grounds {
    let generation = || "3f9c2a7be1d04586".to_owned();
    let object = |kind: &str, name: String| PolicyObject {
        kind: kind.to_owned(),
        name,
        uid: None,
        generation: generation(),
    };
    let check = |name: &str, outcome: String| Check { name: name.to_owned(), outcome };
    let owner = &owners.namespace;
    Grounds {
        objects: vec![
            object("Owner", owner.to_string()),
            object("Grant", grant.to_string()),
            object("Target", target.to_string()),
        ],
        checks: vec![
            check("owner", format!("namespace {} belongs to Owner {owner}, by name", grant.namespace)),
            check("grant", format!("{grant} is the only one that matches")),
            check("target", format!("Target {target} is there; for this namespace and owner: ceiling[0]")),
            check("bound", "the token is bound to a pod".to_owned()),
            check("audience", format!("{audience} is allowed by Target and Grant")),
            check("scope", "orders:read, orders:write are asked, granted and under the ceiling".to_owned()),
            check(
                "ttl",
                "300 s, the least of asked 300 s, grant 900 s, target 3600 s, most 86400 s".to_owned(),
            ),
        ],
    }
}

fn workload(number: u64) -> Result<(Workload, Owners, GrantRef), NotAName> {
    let owner = owner_name(number);
    let account = format!("service-{}", number / OWNERS);
    let random = mixed(number);
    let pod: PodName = format!("{account}-{:010x}-{:05x}", random >> 24, random & 0xF_FFFF).parse()?;
    let namespace: Namespace = owner.parse()?;
    let narrowed: Option<OwnerName> =
        (number.is_multiple_of(NARROWED)).then(|| format!("{owner}-batch").parse()).transpose()?;
    let workload = Workload {
        cluster: "bench".parse::<ClusterName>()?,
        service_account: ServiceAccount {
            namespace: namespace.clone(),
            name: account.parse::<ServiceAccountName>()?,
            uid: uid(number, 1),
        },
        pod: Some(Pod { name: pod, uid: uid(number, 2) }),
        node: Some(Node {
            name: format!("ip-10-0-{}-17.eu-central-1.compute.internal", number % 250).parse::<NodeName>()?,
            uid: Some(uid(number % 250, 3)),
        }),
        credential_id: None,
    };
    let grant = GrantRef { namespace, name: "orders".parse::<GrantName>()? };
    Ok((workload, Owners { narrowed, ..Owners::of(owner.parse()?) }, grant))
}

/// As the API server gives them: version 4, so without order.
fn uid(number: u64, of: u64) -> Uid {
    let (high, low) = (mixed(number * 8 + of), mixed(!(number * 8 + of)));
    Uid::from_u128((u128::from(high) << 64) | u128::from(low))
}

fn credential_id(random: u64) -> Result<CredentialId, NotAName> {
    format!("JTI={}", uid(random >> 4, 4)).parse()
}

/// A clock that goes on only as leases are made: both of its times, by the same step each.
pub(crate) struct SteppingClock {
    micros: AtomicU64,
    start: u64,
}

impl SteppingClock {
    /// A clock that shows `start`.
    pub(crate) fn at(start: Timestamp) -> Self {
        let start = start.as_millis() * 1000;
        Self { micros: AtomicU64::new(start), start }
    }

    /// Time passes, in microseconds.
    pub(crate) fn step(&self, micros: u64) {
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.micros.load(Ordering::Relaxed) / 1000)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed) - self.start)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dayfly_core::ids::{LeaseId, Position};

    use super::*;

    fn lease(maker: &LeaseMaker, number: u64) -> Lease {
        let now = Timestamp::from_secs(1_795_435_200);
        let draw = Draw { id: LeaseId::from_u128(number.into()), position: Position::ZERO, now };
        match maker.issue(number, draw).unwrap() {
            Change::Issue(issue) => issue.lease,
            _ => unreachable!(),
        }
    }

    #[test]
    fn they_are_of_five_hundred_owners_and_a_tenth_is_narrowed() {
        let maker = LeaseMaker::new().unwrap();
        let leases: Vec<_> = (0..20_000).map(|n| lease(&maker, n)).collect();
        let owners: HashSet<_> = leases.iter().map(|lease| lease.owners.namespace.to_string()).collect();
        assert_eq!(owners.len(), 500);
        let callers: HashSet<_> = leases.iter().map(|lease| lease.workload.caller()).collect();
        assert_eq!(callers.len(), 2000);
        let narrowed = leases.iter().filter(|lease| lease.owners.narrowed.is_some()).count();
        assert!((1_700..2_300).contains(&narrowed), "{narrowed}");
    }

    #[test]
    fn the_clock_goes_by_steps() {
        let clock = SteppingClock::at(Timestamp::from_secs(10));
        clock.step(1_500);
        assert_eq!(clock.now(), Timestamp::from_millis(10_001));
        assert_eq!(clock.monotonic(), Duration::from_micros(1500));
    }
}
