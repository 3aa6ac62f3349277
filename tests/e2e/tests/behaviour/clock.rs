//! A clock that jumps: nothing is issued, everything can be ended.

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{World, as_others_see, asking_for, leases_of, owned_by, reason, retry_after};

on_both!(
    a_broker_whose_clock_jumped_issues_nothing_and_revokes,
    a_credential_ends_by_itself,
    a_broker_that_ran_ahead_issues_nothing_before_its_own_past,
    a_rule_whose_time_is_over_is_folded_away_and_still_explains,
);

async fn a_broker_whose_clock_jumped_issues_nothing_and_revokes(kind: Kind) {
    let options = Options { clock_ahead: Some(0), ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let issued = pod.issue(&team.target).await.unwrap();
    let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();

    for jump in [3600, -3600] {
        world.broker().set_clock(jump).unwrap();
        let denied = pod.ask(asking_for(&team.target)).await.unwrap().unwrap_err();
        if jump > 0 {
            assert_eq!((reason(&denied).as_str(), denied.code()), ("CLOCK_JUMPED", tonic::Code::Unavailable));
            assert!(retry_after(&denied).is_some(), "{denied:?}");
        } else {
            // Seen from the past the token is not valid yet, unless its review is still kept.
            assert!(
                ["CLOCK_JUMPED", "TOKEN_NOT_YET_VALID"].contains(&reason(&denied).as_str()),
                "{denied:?}"
            );
        }
        until(async || Ok(!world.broker().serves().await)).await.unwrap();
        if jump > 0 {
            let rule = operator.revoke(owned_by(&team.owner)).await.unwrap();
            let lease = operator.lease(&issued.lease.clone().unwrap().id).await.unwrap();
            assert_eq!((lease.state(), lease.revoked_by), (v1::LeaseState::Revoked, rule.id));
        }
        world.broker().set_clock(0).unwrap();
        until(async || Ok(world.broker().serves().await)).await.unwrap();
        let again = pod.issue(&team.target).await.unwrap();
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
        let at = again.lease.unwrap().issued_at.unwrap().seconds
            - issued.lease.clone().unwrap().issued_at.unwrap().seconds;
        assert!((0..600).contains(&at), "the jump left no trace in times: {at} s later");
    }
}

async fn a_credential_ends_by_itself(kind: Kind) {
    let options = Options { clock_ahead: Some(0), ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let short = pod.ask(v1::IssueRequest { ttl, ..asking_for(&team.target) }).await.unwrap().unwrap();
    let long = pod.issue(&team.target).await.unwrap();
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&short.credential).await.unwrap(), v1::LeaseState::Active);

    // Not far enough to be a jump.
    world.broker().set_clock(90).unwrap();
    assert_eq!(verifier.state(&short.credential).await.unwrap(), v1::LeaseState::Expired);
    assert_eq!(verifier.state(&long.credential).await.unwrap(), v1::LeaseState::Active);
    let admin = world.admin().await.unwrap();
    let lease = admin.lease(&short.lease.unwrap().id).await.unwrap();
    assert_eq!((lease.state(), lease.ended_at), (v1::LeaseState::Expired, lease.expires_at));
    let active = v1::ListLeasesRequest { active_only: true, ..leases_of(&team.owner) };
    let active: Vec<_> = admin.all_leases(active).await.unwrap();
    assert_eq!(as_others_see(active), [long.lease.unwrap()]);
    pod.issue(&team.target).await.unwrap();
}

async fn a_broker_that_ran_ahead_issues_nothing_before_its_own_past(kind: Kind) {
    let options = Options { clock_ahead: Some(1800), ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let ahead = pod.issue(&team.target).await.unwrap();
    world.broker().stop().await.unwrap();
    // The clock is right again, and behind what the store has: leases would get times in which others were issued.
    world.broker().set_clock(0).unwrap();
    world.broker().launch_unready().await.unwrap();
    until(async || Ok(reason(&pod.is_denied(&team.target).await?) != "NOT_READY")).await.unwrap();
    let denied = pod.is_denied(&team.target).await.unwrap();
    assert_eq!((reason(&denied).as_str(), denied.code()), ("CLOCK_JUMPED", tonic::Code::Unavailable));
    assert!(!world.broker().serves().await);
    let admin = world.admin().await.unwrap();
    let rule = admin.revoke(owned_by(&team.owner)).await.unwrap();
    assert!(rule.cut_off > ahead.lease.clone().unwrap().id);
    let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
    assert_eq!(verifier.state(&ahead.credential).await.unwrap(), v1::LeaseState::Revoked);

    // As half an hour later, for a broker that starts then.
    world.broker().stop().await.unwrap();
    world.broker().set_clock(1700).unwrap();
    world.broker().launch().await.unwrap();
    let again = pod.issue(&team.target).await.unwrap();
    assert_eq!(verifier.state(&again.credential).await.unwrap(), v1::LeaseState::Active);
    assert!(again.lease.unwrap().id > rule.cut_off, "ids only grow");
    assert_eq!(admin.all_leases(leases_of(&team.owner)).await.unwrap().len(), 2);
}

async fn a_rule_whose_time_is_over_is_folded_away_and_still_explains(kind: Kind) {
    let options = Options { clock_ahead: Some(0), ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let short = pod.ask(v1::IssueRequest { ttl, ..asking_for(&team.target) }).await.unwrap().unwrap();
    let lease = short.lease.unwrap().id;
    let admin = world.admin().await.unwrap();
    let rule = admin.revoke(owned_by(&team.owner)).await.unwrap();
    let hold = admin.hold(owned_by(&team.owner)).await.unwrap();
    let listed = async |in_force_only: bool| {
        let request = v1::ListRevocationsRequest {
            owner: team.owner.clone(),
            in_force_only,
            ..v1::ListRevocationsRequest::default()
        };
        let rules = admin.revocations(request).await.unwrap().rules;
        rules.into_iter().map(|rule| rule.id).collect::<Vec<_>>()
    };
    let both = [hold.id.clone(), rule.id.clone()];
    assert_eq!((listed(true).await, listed(false).await), (both.to_vec(), both.to_vec()));

    // A minute of life, half a minute of leeway; not far enough to be a jump.
    world.broker().set_clock(120).unwrap();
    until(async || Ok(listed(true).await == [hold.id.clone()])).await.unwrap();
    for _ in 0..2 {
        assert_eq!(listed(false).await, both);
        assert_eq!(admin.revocation(&rule.id).await.unwrap().cut_off, rule.cut_off);
        let ended = admin.lease(&lease).await.unwrap();
        assert_eq!((ended.state(), &ended.revoked_by), (v1::LeaseState::Revoked, &rule.id));
        assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "HELD");
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        // Verifiers hear of what is in force alone, once the other is folded away.
        until(async || {
            let told = verifier.watch("").await?.message().await?.unwrap_or_default();
            Ok(told.rules.iter().map(|rule| &rule.id).eq([&hold.id]))
        })
        .await
        .unwrap();
        world.broker().kill9().await.unwrap();
        world.broker().launch().await.unwrap();
    }
    world.operator(&["lift"], None).await.unwrap().lift(&hold.id).await.unwrap();
    until(async || Ok(listed(true).await.is_empty())).await.unwrap();
    assert_eq!(admin.revocation(&hold.id).await.unwrap().lifted.unwrap().reason, "it is over");
    pod.issue(&team.target).await.unwrap();
    assert_eq!(listed(false).await, both);
}
