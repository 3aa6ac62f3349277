use std::sync::Arc;

use dayfly_broker::{By, Error, LiftRequest, LiftedHold, Reason, RevokeRequest, Revoked, Which};
use dayfly_core::ids::RuleId;
use dayfly_core::ports::LeaseStore;
use dayfly_core::rule::{After, Authority, Fields, Rule, Selector};

use crate::revoke::{hold_owner, revoke_owner};
use crate::support::{World, bearer, operator, orders, refused, secret};

fn rule_of(revoked: Result<Revoked, Error>) -> Arc<Rule> {
    match revoked.unwrap() {
        Revoked::Written { rule, .. } => rule,
        Revoked::DryRun { .. } => panic!("nothing was written"),
    }
}

async fn lift(world: &World, user: &str, rule: RuleId) -> Result<LiftedHold, Error> {
    let request = LiftRequest { rule, reason: "it is over".to_owned() };
    world.broker.lift(bearer(&operator(user)), &request).await
}

fn hold(which: Which) -> RevokeRequest {
    RevokeRequest {
        which,
        after: After::Hold,
        reason: "incident 12".to_owned(),
        dry_run: false,
        idempotency_key: None,
    }
}

#[tokio::test]
async fn a_team_lifts_its_own_hold_and_what_it_covered_stays_revoked() {
    let world = World::new();
    for (user, verb, owner) in [
        ("alice", "revoke", Some("payments")),
        ("bob", "lift", Some("payments")),
        ("carol", "lift", Some("checkout")),
        ("carol", "get", Some("payments")),
        ("mallory", "lift", Some("checkout")),
        ("root", "lift", None),
    ] {
        world.east().allow(user, verb, owner);
    }
    let covered = world.issued().await.lease;
    let rule = rule_of(hold_owner(&world, &operator("alice"), "payments").await);
    assert_eq!(rule.authority, Authority::Owners);
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::Held);

    // Who may read it is told what is missing; to others it is as if it were not there.
    let error = refused(lift(&world, "carol", rule.id).await);
    assert_eq!(error.to_string(), "needs verb lift on owners.dayfly.dev named payments in cluster east");
    let unknown = RuleId::from_u128(7);
    let (one, other) = (lift(&world, "mallory", rule.id).await, lift(&world, "root", unknown).await);
    let told = [one, other].map(|refusal| refused(refusal).to_string());
    assert_eq!(told[0], told[1].replace(&unknown.to_string(), &rule.id.to_string()));
    assert_eq!(world.refusal(&orders()).await.reason(), Reason::Held);

    let lifted = lift(&world, "bob", rule.id).await.unwrap();
    let by = lifted.rule.lifted.clone().unwrap();
    assert_eq!((by.by.to_string().as_str(), by.reason.as_str()), ("bob@east", "it is over"));
    assert!(!lifted.repeated && lifted.can_reissue);
    let again = world.issued().await.lease;
    assert!(lifted.rule.covers(&covered) && !lifted.rule.covers(&again));
    assert!(world.store.rules().covering(&covered).is_some(), "what it covered stays revoked");

    let repeated = lift(&world, "root", rule.id).await.unwrap();
    assert!(repeated.repeated && repeated.rule == lifted.rule, "it says who did it, and when");
}

#[tokio::test]
async fn only_a_hold_can_be_lifted_and_the_reason_is_said() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    world.east().allow("root", "lift", None);
    let reissue = rule_of(revoke_owner(&world, &operator("root"), "payments").await);
    let error = refused(lift(&world, "root", reissue.id).await);
    assert_eq!(error.reason(), Reason::NotAHold, "{error}");
    for reason in ["", " ", "a\nb", &"x".repeat(513)] {
        let request = LiftRequest { rule: reissue.id, reason: reason.to_owned() };
        let error = refused(world.broker.lift(bearer(&operator("root")), &request).await);
        assert_eq!(error.reason(), Reason::InvalidField, "{reason:?}");
    }
}

/// What was ordered from above is lifted from above.
#[tokio::test]
async fn what_was_written_by_a_wider_right_takes_that_right_to_lift() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    world.east().allow("root", "lift", None);
    world.east().allow("team", "revoke", Some("payments"));
    world.east().allow("team", "lift", Some("payments"));
    world.east().allow("team", "get", Some("payments"));
    let lease = world.issued().await.lease.id;
    let fields = |fields: Fields| Which::fields(fields);
    let payments = Fields { owner: "payments".parse().ok(), ..Fields::default() };
    let broker = &world.broker;
    let mut from_above = Vec::new();
    for which in [
        fields(payments.clone()),
        fields(Fields { lease: Some(lease), ..Fields::default() }),
        fields(Fields { namespace: "payments".parse().ok(), ..Fields::default() }),
        Which::All,
    ] {
        from_above.push(rule_of(broker.revoke(bearer(&operator("root")), &hold(which)).await));
    }
    assert!(from_above.iter().all(|rule| rule.authority == Authority::ClusterWide));
    from_above.push(rule_of(broker.revoke(By::Socket { uid: 0 }, &hold(fields(payments))).await));
    assert_eq!(from_above.last().unwrap().authority, Authority::Socket);
    for rule in &from_above {
        let reason = refused(lift(&world, "team", rule.id).await).reason();
        assert!([Reason::NotAllowed, Reason::NotFound].contains(&reason), "{}: {reason:?}", rule.selector);
    }
    let own = rule_of(
        broker
            .revoke(
                bearer(&operator("team")),
                &hold(fields(Fields { lease: Some(lease), ..Fields::default() })),
            )
            .await,
    );
    assert_eq!(own.authority, Authority::Owners);
    let still = lift(&world, "team", own.id).await.unwrap();
    assert!(!still.can_reissue, "other holds stand");
    let (last, others) = from_above.split_last().unwrap();
    for rule in others {
        let lifted = lift(&world, "root", rule.id).await.unwrap();
        assert_eq!(lifted.can_reissue, rule.selector == Selector::All, "of everything, some is not held");
    }
    assert!(lift(&world, "root", last.id).await.unwrap().can_reissue);
    world.issued().await;
}

#[tokio::test]
async fn whoever_is_on_the_brokers_machine_needs_no_cluster() {
    let world = World::new();
    let lease = world.issued().await.lease;
    world.east().refuse_tokens();
    let by = By::Socket { uid: 1000 };
    let rule = rule_of(world.broker.revoke(by, &hold(Which::All)).await);
    assert!(rule.covers(&lease));
    assert_eq!(rule.by.to_string(), "socket:uid=1000");
    let found = world.broker.get_revocation(by, rule.id).await.unwrap();
    assert_eq!(found.rule, rule);
    let request = LiftRequest { rule: rule.id, reason: "over".to_owned() };
    assert!(world.broker.lift(by, &request).await.unwrap().can_reissue);
    let keyed = RevokeRequest { idempotency_key: Some("k".to_owned()), ..hold(Which::All) };
    let one = rule_of(world.broker.revoke(by, &keyed).await);
    assert_eq!(rule_of(world.broker.revoke(by, &keyed).await).id, one.id);
    let other = rule_of(world.broker.revoke(By::Socket { uid: 0 }, &keyed).await);
    assert_ne!(other.id, one.id, "keys are each user's own");
}

#[tokio::test]
async fn another_clusters_operators_lift_nothing_here() {
    let world = World::of(&["east", "west"], Some("west")).unwrap();
    for cluster in &world.clusters {
        cluster.allow("root", "revoke", None);
        cluster.allow("root", "lift", None);
    }
    let west = secret("west/dayfly-operator/root");
    let in_west =
        Fields { cluster: "west".parse().ok(), owner: "payments".parse().ok(), ..Fields::default() };
    let rule = rule_of(world.broker.revoke(bearer(&west), &hold(Which::fields(in_west))).await);
    assert_eq!(refused(lift(&world, "root", rule.id).await).reason(), Reason::NotFound);
    let in_east =
        Fields { cluster: "east".parse().ok(), owner: "payments".parse().ok(), ..Fields::default() };
    let rule = rule_of(world.broker.revoke(bearer(&west), &hold(Which::fields(in_east))).await);
    assert!(lift(&world, "root", rule.id).await.is_ok());
}
