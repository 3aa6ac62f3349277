use std::sync::Arc;
use std::time::Duration;

use dayfly_broker::{Error, ListRevocations, Reason, RevocationPage};
use dayfly_core::ids::RuleId;
use dayfly_core::ports::LeaseStore;
use dayfly_core::rule::{After, Rule, Selector};

use crate::issue::revoke_payments;
use crate::revoke::{hold_owner, revoke_owner};
use crate::support::{World, bearer, operator, orders, refused, web};

async fn list(world: &World, user: &str, request: &ListRevocations) -> Result<RevocationPage, Error> {
    world.broker.list_revocations(bearer(&operator(user)), request).await
}

fn ids(rules: &[Arc<Rule>]) -> Vec<RuleId> {
    rules.iter().map(|rule| rule.id).collect()
}

#[tokio::test]
async fn pages_begin_with_the_newest_and_show_what_one_may_list() {
    let world = World::new();
    for user in ["root", "team"] {
        let owner = (user == "team").then_some("payments");
        world.east().allow(user, "list", owner);
        world.east().allow(user, "revoke", owner);
    }
    for n in 0..7 {
        let owner = ["payments", "checkout"][n % 2];
        revoke_owner(&world, &operator("root"), owner).await.unwrap();
    }
    hold_owner(&world, &operator("team"), "payments").await.unwrap();
    let all: Vec<_> = world.store.rules().iter().rev().map(|rule| rule.id).collect();
    let (mut request, mut seen) =
        (ListRevocations { limit: Some(3), ..ListRevocations::default() }, Vec::new());
    loop {
        let page = list(&world, "root", &request).await.unwrap();
        assert!(page.rules.len() <= 3);
        seen.extend(ids(&page.rules));
        request.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen, all);
    let team = list(&world, "team", &ListRevocations::default()).await.unwrap();
    let of_payments = Selector::owner("payments".parse().unwrap());
    assert_eq!(team.rules.len(), 5);
    assert!(team.rules.iter().all(|rule| rule.selector == of_payments));
    let named = |owner: &str| ListRevocations { owner: owner.parse().ok(), ..ListRevocations::default() };
    assert_eq!(ids(&list(&world, "team", &named("payments")).await.unwrap().rules), ids(&team.rules));
    for (user, request) in [("team", named("checkout")), ("nobody", ListRevocations::default())] {
        assert_eq!(refused(list(&world, user, &request).await).reason(), Reason::NotAllowed);
    }
    let holds = ListRevocations { holds_only: true, ..ListRevocations::default() };
    assert_eq!(ids(&list(&world, "root", &holds).await.unwrap().rules), all[..1]);
    world.clock.advance(Duration::from_secs(3600));
    let in_force = ListRevocations { in_force_only: true, ..ListRevocations::default() };
    assert_eq!(ids(&list(&world, "root", &in_force).await.unwrap().rules), all[..1], "a hold stays");
    assert_eq!(list(&world, "root", &ListRevocations::default()).await.unwrap().rules.len(), 8);
}

#[tokio::test]
async fn what_a_revocation_ended_is_counted_afterwards_and_anew_after_a_start() {
    let world = World::new();
    world.east().allow("root", "revoke", None);
    world.east().allow("root", "get", None);
    for _ in 0..3 {
        world.issued().await;
        world.clock.advance(Duration::from_millis(5));
    }
    world.issue(&web(), &orders()).await.ok().unwrap();
    let get =
        async |id| world.broker.get_revocation(bearer(&operator("root")), id).await.unwrap().counts.unwrap();
    revoke_owner(&world, &operator("root"), "payments").await.unwrap();
    let first = world.store.rules().iter().next().unwrap().id;
    let counting = get(first).await;
    assert!(!counting.counted && counting.leases == 0);
    world.broker.count_a_revocation().await.unwrap();
    let counted = get(first).await;
    assert!(counted.counted);
    let told: Vec<_> =
        counted.by_owner_and_target.iter().map(|c| (c.owner.as_str(), c.target.as_str(), c.leases)).collect();
    assert_eq!((counted.leases, told), (3, vec![("payments", "orders", 3)]));
    // What another had ended is not counted twice; a rule of a start before is counted when it is asked for.
    revoke_payments(&world.store, After::Reissue);
    let second = world.store.rules().iter().next_back().unwrap().id;
    assert!(!get(second).await.counted);
    world.broker.count_a_revocation().await.unwrap();
    let counted = get(second).await;
    assert_eq!((counted.counted, counted.leases), (true, 0));
}
