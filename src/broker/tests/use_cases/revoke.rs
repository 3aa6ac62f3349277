use dayfly_broker::{Error, Named, Reason, RevokeRequest, Revoked, Which};
use dayfly_core::rule::{After, Fields, Selector};
use dayfly_core::secret::Secret;

use crate::support::{World, api, bearer, operator, orders, refused, secret, uid_of, web};

fn request(which: Which) -> RevokeRequest {
    RevokeRequest {
        which,
        after: After::Reissue,
        reason: "incident 12".to_owned(),
        dry_run: false,
        idempotency_key: None,
    }
}

fn owner(name: &str) -> Which {
    Which::fields(Fields { owner: name.parse().ok(), ..Fields::default() })
}

async fn revoke(world: &World, token: &Secret, request: &RevokeRequest) -> Result<Revoked, Error> {
    world.broker.revoke(bearer(token), request).await
}

pub(crate) async fn hold_owner(world: &World, token: &Secret, name: &str) -> Result<Revoked, Error> {
    revoke(world, token, &RevokeRequest { after: After::Hold, ..request(owner(name)) }).await
}

pub(crate) async fn revoke_owner(world: &World, token: &Secret, name: &str) -> Result<Revoked, Error> {
    revoke(world, token, &request(owner(name))).await
}

fn written(revoked: Revoked) -> (std::sync::Arc<dayfly_core::rule::Rule>, bool, bool) {
    match revoked {
        Revoked::Written { rule, can_reissue, repeated, .. } => (rule, can_reissue, repeated),
        Revoked::DryRun { .. } => panic!("nothing was written"),
    }
}

#[tokio::test]
async fn a_team_ends_its_own_and_nobody_elses() {
    let world = World::new();
    world.east().allow("alice", "revoke", Some("payments"));
    let (mine, theirs) =
        (world.issued().await.lease, world.issue(&web(), &orders()).await.ok().unwrap().lease);
    let (rule, can_reissue, repeated) =
        written(revoke_owner(&world, &operator("alice"), "payments").await.unwrap());
    assert!(rule.covers(&mine) && !rule.covers(&theirs));
    assert!(can_reissue && !repeated);
    assert_eq!((rule.by.to_string().as_str(), rule.reason.as_str()), ("alice@east", "incident 12"));

    for which in [
        owner("checkout"),
        Which::All,
        Which::fields(Fields { namespace: "payments".parse().ok(), ..Fields::default() }),
        Which::fields(Fields { lease: Some(theirs.id), ..Fields::default() }),
        Which::fields(Fields { cluster: "east".parse().ok(), ..Fields::default() }),
    ] {
        let error = refused(revoke(&world, &operator("alice"), &request(which.clone())).await);
        assert_eq!(error.reason(), Reason::NotAllowed, "{which:?}");
        assert!(!error.to_string().contains("checkout") || which == owner("checkout"), "{error}");
    }
    assert_eq!(world.rules(), 1);
    let lease = Which::fields(Fields { lease: Some(mine.id), ..Fields::default() });
    assert!(revoke(&world, &operator("alice"), &request(lease)).await.is_ok(), "a lease of one's own");
    assert_eq!(world.broker.flush_denials().await, Ok(1));
    assert_eq!(world.store.notes()[0].detail.count, 5);
}

#[tokio::test]
async fn an_unknown_lease_looks_like_one_of_others() {
    let world = World::new();
    world.east().allow("alice", "revoke", Some("payments"));
    world.east().allow("root", "revoke", None);
    let theirs = world.issue(&web(), &orders()).await.ok().unwrap().lease.id;
    let of = |lease| request(Which::fields(Fields { lease: Some(lease), ..Fields::default() }));
    let unknown = "0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70".parse().unwrap();
    let one = refused(revoke(&world, &operator("alice"), &of(theirs)).await);
    let other = refused(revoke(&world, &operator("alice"), &of(unknown)).await);
    assert_eq!(one, other);
    assert_eq!(refused(revoke(&world, &operator("root"), &of(unknown)).await).reason(), Reason::NotFound);
}

#[tokio::test]
async fn names_are_resolved_to_uids() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    let lease = world.issued().await.lease;
    let in_payments = Fields { namespace: "payments".parse().ok(), ..Fields::default() };
    let pod = Named { fields: in_payments.clone(), pod: "api-0".parse().ok(), ..Named::default() };
    let (rule, ..) = written(
        revoke(&world, &operator("root"), &request(Which::Where(Box::new(pod.clone())))).await.unwrap(),
    );
    assert_eq!(rule.selector.to_string(), format!("namespace=payments, pod-uid={}", uid_of("api-0")));
    assert!(rule.covers(&lease));
    let account = Named { fields: in_payments, service_account: "api".parse().ok(), ..Named::default() };
    let (rule, ..) =
        written(revoke(&world, &operator("root"), &request(Which::Where(Box::new(account)))).await.unwrap());
    assert!(rule.covers(&lease));

    world.east().pod("api-0", |_| None);
    let gone =
        refused(revoke(&world, &operator("root"), &request(Which::Where(Box::new(pod.clone())))).await);
    assert_eq!(gone.reason(), Reason::NotFound);
    assert!(gone.to_string().contains("name the uid"), "{gone}");
    let nowhere = Named { fields: Fields::default(), ..pod.clone() };
    let both = Named { fields: Fields { pod: Some(uid_of("x")), ..pod.fields.clone() }, ..pod };
    for named in [nowhere, both] {
        let error = refused(revoke(&world, &operator("root"), &request(Which::Where(Box::new(named)))).await);
        assert_eq!(error.reason(), Reason::InvalidField, "{error}");
    }
}

#[tokio::test]
async fn what_must_be_said_is_asked_for() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    let all = request(Which::All);
    for request in [
        RevokeRequest { reason: " ".to_owned(), ..all.clone() },
        RevokeRequest { reason: "a\nb".to_owned(), ..all.clone() },
        RevokeRequest { reason: "x".repeat(513), ..all.clone() },
        RevokeRequest { idempotency_key: Some(String::new()), ..all.clone() },
        RevokeRequest { which: Which::fields(Fields::default()), ..all },
    ] {
        let error = refused(revoke(&world, &operator("root"), &request).await);
        assert_eq!(error.reason(), Reason::InvalidField, "{error}");
    }
    assert_eq!(world.rules(), 0);
}

#[tokio::test]
async fn a_dry_run_counts_and_writes_nothing() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    for _ in 0..3 {
        world.issued().await;
    }
    world.issue(&web(), &orders()).await.ok().unwrap();
    let dry = RevokeRequest { dry_run: true, ..request(owner("payments")) };
    let counted = revoke(&world, &operator("root"), &dry).await.unwrap();
    let selector = Selector::owner("payments".parse().unwrap());
    assert_eq!(
        counted,
        Revoked::DryRun { selector, leases: 3, at_least: false, can_reissue: true, warnings: Vec::new() }
    );
    assert_eq!(world.rules(), 0);
    let all = RevokeRequest { dry_run: true, ..request(Which::All) };
    let counted = revoke(&world, &operator("root"), &all).await.unwrap();
    assert!(matches!(counted, Revoked::DryRun { leases: 4, .. }), "{counted:?}");
}

#[tokio::test]
async fn a_repeat_answers_with_the_earlier_rule() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    world.east().allow("other", "revoke", None);
    let named = Named {
        fields: Fields { namespace: "payments".parse().ok(), ..Fields::default() },
        pod: "api-0".parse().ok(),
        ..Named::default()
    };
    let keyed =
        RevokeRequest { idempotency_key: Some("k".to_owned()), ..request(Which::Where(Box::new(named))) };
    let (first, ..) = written(revoke(&world, &operator("root"), &keyed).await.unwrap());
    world.east().pod("api-0", |_| None);
    let (again, _, repeated) = written(revoke(&world, &operator("root"), &keyed).await.unwrap());
    assert!(repeated && again == first, "even when the name means nothing by now");
    let changed = RevokeRequest { after: After::Hold, ..keyed.clone() };
    let error = refused(revoke(&world, &operator("root"), &changed).await);
    assert_eq!(error.reason(), Reason::IdempotencyKeyReused);
    world.east().pod("api-0", Some);
    let (other, ..) = written(revoke(&world, &operator("other"), &keyed).await.unwrap());
    assert_ne!(other.id, first.id, "keys are each operator's own");
}

#[tokio::test]
async fn says_whether_what_was_covered_can_come_back() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    let hold = RevokeRequest { after: After::Hold, ..request(owner("payments")) };
    let (_, can_reissue, _) = written(revoke(&world, &operator("root"), &hold).await.unwrap());
    assert!(!can_reissue);
    let narrower =
        Fields { owner: "payments".parse().ok(), target: "orders".parse().ok(), ..Fields::default() };
    for (which, expected) in [
        (owner("payments"), false),
        (Which::fields(narrower), false),
        (owner("checkout"), true),
        (Which::All, true),
    ] {
        let (_, can_reissue, _) = written(revoke(&world, &operator("root"), &request(which)).await.unwrap());
        assert_eq!(can_reissue, expected);
    }
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::Held);
}

#[tokio::test]
async fn with_several_clusters_only_the_home_clusters_operators_reach_all() {
    let world = World::of(&["east", "west"], Some("west")).unwrap();
    for cluster in &world.clusters {
        cluster.allow("root", "revoke", None);
    }
    let lease = world.issued().await.lease;
    let of_east = |fields: Fields| Which::fields(Fields { cluster: "east".parse().ok(), ..fields });
    for which in [
        Which::All,
        owner("payments"),
        Which::fields(Fields { lease: Some(lease.id), ..Fields::default() }),
        Which::fields(Fields { cluster: "west".parse().ok(), ..Fields::default() }),
    ] {
        let error = refused(revoke(&world, &operator("root"), &request(which)).await);
        assert_eq!(error.reason(), Reason::NotAllowed);
        assert!(error.to_string().contains("selector.cluster"), "{error}");
    }
    let own = of_east(Fields { owner: "payments".parse().ok(), ..Fields::default() });
    assert!(revoke(&world, &operator("root"), &request(own)).await.is_ok());
    let of_west = secret("west/dayfly-operator/root");
    assert!(revoke(&world, &of_west, &request(Which::All)).await.is_ok());
}

#[tokio::test]
async fn takes_only_operators_tokens() {
    let world = World::new();
    let error = refused(revoke(&world, &api(), &request(Which::All)).await);
    assert_eq!(error.reason(), Reason::TokenAudience);
}
