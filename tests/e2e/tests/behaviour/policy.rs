//! Policy from a folder: what is broken grants nothing and stops nothing else, and what changes counts.

use dayfly_api::v1;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::policy;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{World, owned_by, reason};
use serde_json::json;

on_both!(
    one_broken_object_grants_nothing_and_stops_nothing,
    two_owners_of_a_namespace_are_none,
    a_policy_folder_that_is_gone_leaves_the_last_policy_in_force,
    a_changed_policy_counts_from_the_next_request_on,
    a_target_cannot_have_an_audience_of_dayfly_or_the_api_server,
    until_the_grace_ends_unowned_answers_like_any_owner,
);

async fn one_broken_object_grants_nothing_and_stops_nothing(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.unsettled_team("payments").await.unwrap();
    let mut unknown_field = policy::grant(&team.namespace, "gate-unknown", "gate", &team.target, &["read"]);
    unknown_field["spec"]["wildcards"] = json!(true);
    let mut unbuilt = policy::grant(&team.namespace, "gate-conditions", "gate", &team.target, &["read"]);
    unbuilt["spec"]["conditions"] = json!(["workload.namespace == 'x'"]);
    let broker = world.broker();
    broker.put_text(&format!("{}.yaml", world.named("not-yaml")), "kind: Grant\n  spec: [").unwrap();
    broker
        .put_text(&format!("{}.yaml", world.named("not-policy")), "kind: ConfigMap\napiVersion: v1\n")
        .unwrap();
    let all = [&team.owner_object, &team.target_object, &team.grant_object, &unknown_field, &unbuilt];
    world.put(&all).await.unwrap();

    world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap();
    let gate = world.pod(&team.namespace, "gate").await.unwrap();
    assert_eq!(reason(&gate.is_denied(&team.target).await.unwrap()), "GRANT_MISSING");
    assert_eq!(gate.who_am_i().await.unwrap().grants, []);
    let log = broker.log();
    for object in ["gate-unknown", "gate-conditions", &world.named("not-yaml")] {
        assert!(log.contains(object), "{object} is not in the broker's log");
    }
}

async fn two_owners_of_a_namespace_are_none(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    pod.issue(&team.target).await.unwrap();
    let rival = policy::owner(&world.named("rival"), &[&team.namespace]);
    world.put(&[&rival]).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "OWNER_AMBIGUOUS");
    world.remove(&[&rival]).await.unwrap();
    pod.issue(&team.target).await.unwrap();
}

async fn a_policy_folder_that_is_gone_leaves_the_last_policy_in_force(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let (folder, aside) = (world.broker().policy(), world.broker().dir().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    until(async || Ok(world.broker().log().contains("policy cannot be read"))).await.unwrap();
    pod.issue(&team.target).await.unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    world.remove(&[&team.grant_object]).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "GRANT_MISSING");
}

async fn a_changed_policy_counts_from_the_next_request_on(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let scope = async || pod.issue(&team.target).await.unwrap().lease.unwrap().scope;
    assert_eq!(scope().await, ["read", "write"]);
    team.grant_object["spec"]["scope"] = json!(["read"]);
    world.put(&[&team.grant_object]).await.unwrap();
    assert_eq!(scope().await, ["read"]);
    // One that breaks grants nothing, not what it was before.
    let mut broken = team.grant_object.clone();
    broken["spec"]["scope"] = json!("read");
    world.put(&[&broken]).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "GRANT_MISSING");
    world.put(&[&team.grant_object]).await.unwrap();
    assert_eq!(scope().await, ["read"]);
    world.remove(&[&team.target_object]).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "TARGET_UNKNOWN");
    world.remove(&[&team.grant_object]).await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "GRANT_MISSING");
}

async fn a_target_cannot_have_an_audience_of_dayfly_or_the_api_server(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let mut team = world.unsettled_team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let of_api_server =
        dayfly_e2e::jwt::read(&pod.token_for("").await.unwrap()).unwrap().claims["aud"][0].clone();
    for audience in ["dayfly".into(), "dayfly-operator".into(), "dayfly-verifier".into(), of_api_server] {
        team.target_object["spec"]["jwt"]["audiences"] = json!([audience]);
        world.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
        assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "TARGET_UNKNOWN", "{audience}");
    }
}

async fn until_the_grace_ends_unowned_answers_like_any_owner(kind: Kind) {
    let (later, over) = ("2200-01-31T00:00:00Z", "2026-01-31T00:00:00Z");
    let options = Options { unowned_until: Some(later), ..Options::default() };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = world.unsettled_team("orphan").await.unwrap();
    let mut target = team.target_object.clone();
    target["spec"]["ceiling"] = json!([{ "owners": ["unowned"], "scopes": ["read", "write"] }]);
    world.put(&[&target, &team.grant_object]).await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let lease = pod.issue(&team.target).await.unwrap().lease.unwrap();
    assert_eq!(lease.owner, "unowned");

    // Whoever has rights on that owner alone sees and ends its leases, and nobody else's do.
    let answering = world.operator(&["get", "list", "revoke"], Some("unowned")).await.unwrap();
    let seen = answering.all_leases(v1::ListLeasesRequest::default()).await.unwrap();
    assert_eq!(seen.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), [lease.id.as_str()]);
    let another = world.operator(&["get", "list", "revoke"], Some(&team.owner)).await.unwrap();
    assert_eq!(reason(&another.revoke(owned_by("unowned")).await.unwrap_err()), "NOT_ALLOWED");
    answering.revoke(owned_by("unowned")).await.unwrap();
    assert_eq!(answering.lease(&lease.id).await.unwrap().state(), v1::LeaseState::Revoked);
    pod.issue(&team.target).await.unwrap();

    // A file that does not read any more does not hand what it claimed to the grace.
    let file = format!("{}.yaml", world.named("orphans"));
    world.broker().put_text(&file, &team.owner_object.to_string()).unwrap();
    world.settle().await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "SCOPE_ABOVE_CEILING");
    world.broker().put_text(&file, "spec: [").unwrap();
    world.settle().await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "OWNER_AMBIGUOUS");
    world.broker().put_text(&file, "# gone\n").unwrap();
    world.settle().await.unwrap();
    pod.issue(&team.target).await.unwrap();

    let configuration = world.broker().dir().join("dayfly.toml");
    let text = std::fs::read_to_string(&configuration).unwrap();
    std::fs::write(&configuration, text.replace(later, over)).unwrap();
    world.broker().restart().await.unwrap();
    assert_eq!(reason(&pod.is_denied(&team.target).await.unwrap()), "UNOWNED");
    assert_eq!(answering.all_leases(v1::ListLeasesRequest::default()).await.unwrap().len(), 3);
}
