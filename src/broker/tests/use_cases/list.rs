use dayfly_broker::{ListLeases, Reason, Which};
use dayfly_core::rule::Fields;

use crate::support::{World, bearer, operator, orders, refused, secret, web};

async fn seen(world: &World, user: &str, request: &ListLeases) -> Result<Vec<String>, dayfly_broker::Error> {
    let page = world.broker.list_leases(bearer(&operator(user)), request).await?;
    Ok(page.leases.iter().map(|view| format!("{} {}", view.lease.owners.namespace, view.state)).collect())
}

async fn world_with_two_leases() -> World {
    let world = World::new();
    world.issued().await;
    world.issue(&web(), &orders()).await.ok().unwrap();
    world.east().allow("alice", "list", Some("payments"));
    world.east().allow("alice", "get", Some("payments"));
    world.east().allow("root", "list", None);
    world.east().allow("root", "get", None);
    world
}

#[tokio::test]
async fn lists_are_filtered_by_the_owners_one_may_list() {
    let world = world_with_two_leases().await;
    let all = ListLeases::default();
    assert_eq!(seen(&world, "root", &all).await.unwrap(), ["payments active", "checkout active"]);
    assert_eq!(seen(&world, "alice", &all).await.unwrap(), ["payments active"]);
    assert_eq!(refused(seen(&world, "mallory", &all).await).reason(), Reason::NotAllowed);
    let of = |owner: &str| ListLeases {
        which: Some(Which::fields(Fields { owner: owner.parse().ok(), ..Fields::default() })),
        ..ListLeases::default()
    };
    assert_eq!(seen(&world, "alice", &of("payments")).await.unwrap().len(), 1);
    assert_eq!(refused(seen(&world, "alice", &of("checkout")).await).reason(), Reason::NotAllowed);
    assert_eq!(seen(&world, "root", &of("nobody")).await.unwrap().len(), 0);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let world = world_with_two_leases().await;
    let first = ListLeases { limit: Some(1), ..ListLeases::default() };
    let page = world.broker.list_leases(bearer(&operator("root")), &first).await.unwrap();
    let second = ListLeases { after: page.next, ..first };
    let rest = world.broker.list_leases(bearer(&operator("root")), &second).await.unwrap();
    assert!(page.leases[0].lease.id < rest.leases[0].lease.id);
    assert_eq!((page.leases.len(), rest.leases.len(), rest.next), (1, 1, None));
    for limit in [0, 1001] {
        let wrong = ListLeases { limit: Some(limit), ..ListLeases::default() };
        assert_eq!(refused(seen(&world, "root", &wrong).await).reason(), Reason::InvalidField);
    }
}

#[tokio::test]
async fn what_one_may_not_read_is_not_found() {
    let world = world_with_two_leases().await;
    let [mine, theirs] = world.store.all().try_into().unwrap();
    let get = async |user: &str, id| world.broker.get_lease(bearer(&operator(user)), id).await;
    assert_eq!(get("alice", mine.id).await.unwrap().lease, mine);
    let hidden = refused(get("alice", theirs.id).await);
    let unknown = refused(get("alice", "0192f0c1-5d0e-7a39-8b1d-2f6a1c9e4b70".parse().unwrap()).await);
    assert_eq!((hidden.reason(), unknown.reason()), (Reason::NotFound, Reason::NotFound));
    assert_eq!(hidden.to_string().split(' ').count(), unknown.to_string().split(' ').count());

    world.east().allow("root", "revoke", None);
    crate::revoke::revoke_owner(&world, &operator("root"), "checkout").await.unwrap();
    let rules = dayfly_core::ports::LeaseStore::rules(&*world.store);
    let rule = rules.iter().next().unwrap();
    let get = async |user: &str| world.broker.get_revocation(bearer(&operator(user)), rule.id).await;
    assert_eq!(get("root").await.unwrap().rule.id, rule.id);
    assert_eq!(refused(get("alice").await).reason(), Reason::NotFound);
}

#[tokio::test]
async fn owners_are_listed_by_cluster_and_name() {
    let world = World::of(&["east", "west"], Some("west")).unwrap();
    for cluster in &world.clusters {
        cluster.allow("root", "list", None);
        cluster.allow("alice", "list", Some("payments"));
    }
    let list = async |token: &str, after: Option<(&str, &str)>, limit| {
        let after = after.map(|(cluster, owner)| (cluster.parse().unwrap(), owner.parse().unwrap()));
        let token = secret(token);
        let owners = world.broker.list_owners(bearer(&token), after.as_ref(), limit).await.unwrap();
        owners.iter().map(|view| format!("{}/{}", view.cluster, view.owner.name)).collect::<Vec<_>>()
    };
    let all = ["east/checkout", "east/payments", "west/checkout", "west/payments"];
    assert_eq!(list("west/dayfly-operator/root", None, None).await, all);
    assert_eq!(list("west/dayfly-operator/root", Some(("east", "checkout")), Some(2)).await, all[1..3]);
    assert_eq!(list("east/dayfly-operator/root", None, None).await, all[..2]);
    assert_eq!(list("west/dayfly-operator/alice", None, None).await, ["east/payments", "west/payments"]);
}

#[tokio::test]
async fn an_operator_sees_only_what_the_own_cluster_holds() {
    let world = World::of(&["east", "west"], Some("west")).unwrap();
    for cluster in &world.clusters {
        cluster.allow("root", "list", None);
    }
    world.issued().await;
    let of_west = secret("west/dayfly/system:serviceaccount:payments:api/api-0");
    let theirs = world.issue(&of_west, &orders()).await.ok().unwrap().lease;
    assert_eq!(seen(&world, "root", &ListLeases::default()).await.unwrap().len(), 1);
    let token = secret("west/dayfly-operator/root");
    let all = world.broker.list_leases(bearer(&token), &ListLeases::default()).await.unwrap();
    assert_eq!(all.leases.len(), 2);
    world.east().allow("root", "get", None);
    let error = refused(world.broker.get_lease(bearer(&operator("root")), theirs.id).await);
    assert_eq!(error.reason(), Reason::NotFound);
}
