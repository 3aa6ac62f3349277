//! What the table in `operator.proto` says is what the use cases ask for, and nothing else is enough: each RPC is called with
//! no rights, with every right on another owner, with each right alone, and from another cluster.

use std::collections::BTreeSet;

use dayfly_broker::{
    About, Error, EventFilter, LiftRequest, ListEvents, ListLeases, ListRevocations, Reason, RevokeRequest,
    Revoked, Which,
};
use dayfly_core::audit::Event;
use dayfly_core::ids::{LeaseId, Position, RuleId};
use dayfly_core::ports::NamespaceFacts;
use dayfly_core::rule::{After, Fields, Rule};
use dayfly_core::secret::Secret;

use crate::support::{World, bearer, operator, orders, secret, uid_of};

/// One row.
struct Row {
    rpc: String,
    verb: &'static str,
    resource: &'static str,
    /// Whether operators of the home cluster alone may.
    home: bool,
}

fn proto() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/dayfly/v1/operator.proto");
    std::fs::read_to_string(path).unwrap()
}

fn table() -> Vec<Row> {
    let proto = proto();
    let rows = proto.lines().filter_map(|line| line.strip_prefix("// | ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells[0] != "RPC").map(|cells| {
        let [rpc, verb, resource, _name, cluster] = cells[..] else {
            panic!("{cells:?}: RPC, verb, resource, name, cluster")
        };
        assert!(["its own", "home"].contains(&cluster), "{rpc}: cluster is `its own` or `home`");
        // Rights are of 'static names.
        let text = |cell: &str| &*cell.to_owned().leak();
        Row { rpc: rpc.to_owned(), verb: text(verb), resource: text(resource), home: cluster == "home" }
    });
    rows.collect()
}

/// The verbs and resources of the whole table: each right that there is, alone.
fn rights() -> BTreeSet<(&'static str, &'static str)> {
    let table = table();
    let verbs: BTreeSet<_> = table.iter().map(|row| row.verb).collect();
    table.iter().flat_map(|row| verbs.iter().map(|verb| (row.resource, *verb))).collect()
}

/// What is asked about: what one cluster has.
struct Things {
    cluster: &'static str,
    lease: LeaseId,
    rule: RuleId,
}

fn of_payments(cluster: &str) -> Which {
    Which::fields(Fields {
        owner: "payments".parse().ok(),
        cluster: cluster.parse().ok(),
        ..Fields::default()
    })
}

fn revoke(cluster: &str) -> RevokeRequest {
    RevokeRequest {
        which: of_payments(cluster),
        after: After::Hold,
        reason: "a test".to_owned(),
        dry_run: false,
        idempotency_key: None,
    }
}

/// Calls an RPC about these things, and says how many of them it gave or changed: none is as good as a refusal.
async fn call(world: &World, rpc: &str, caller: &Secret, about: &Things) -> Result<usize, Error> {
    let (broker, caller) = (&world.broker, bearer(caller));
    let of_cluster = |cluster: &str| cluster == about.cluster;
    let of_rule =
        |rule: &Rule| rule.selector.named().cluster.as_ref().is_some_and(|it| of_cluster(it.as_str()));
    let of_events = |events: &[Event]| {
        let clusters = events.iter().filter_map(|event| Some(event.detail.as_ref()?.about_cluster()));
        clusters.filter(|cluster| of_cluster(cluster)).count()
    };
    let (lease, rule) = (about.lease, about.rule);
    let filter = EventFilter { owner: "payments".parse().ok(), ..EventFilter::default() };
    match rpc {
        "ListLeases" => {
            let page = broker.list_leases(caller, &ListLeases::default()).await?;
            let leases = page.leases.iter().map(|view| &view.lease.workload.cluster);
            Ok(leases.filter(|cluster| of_cluster(cluster.as_str())).count())
        }
        "GetLease" => broker.get_lease(caller, lease).await.map(|_| 1),
        "Revoke" => broker.revoke(caller, &revoke(about.cluster)).await.map(|_| 1),
        "GetRevocation" => broker.get_revocation(caller, rule).await.map(|_| 1),
        "ListRevocations" => {
            let page = broker.list_revocations(caller, &ListRevocations::default()).await?;
            Ok(page.rules.iter().filter(|rule| of_rule(rule)).count())
        }
        "LiftRevocation" => {
            let request = LiftRequest { rule, reason: "a test".to_owned() };
            broker.lift(caller, &request).await.map(|_| 1)
        }
        "ListOwners" => {
            let owners = broker.list_owners(caller, None, None).await?;
            let named = owners.iter().filter(|view| view.owner.name.as_str() == "payments");
            Ok(named.filter(|view| of_cluster(view.cluster.as_str())).count())
        }
        "ListUnowned" => {
            let unowned = broker.list_unowned(caller, None, None).await?;
            Ok(unowned.iter().filter(|it| of_cluster(it.cluster.as_str())).count())
        }
        "Explain" => broker.explain(caller, &About::Lease(lease)).await.map(|_| 1),
        "ListKeys" => broker.list_keys(caller, false).await.map(|keys| keys.len()),
        "RotateKey" => broker.rotate_key(caller, &"access-token".parse().unwrap(), true).await.map(|_| 1),
        "RevokeKey" => broker.revoke_key(caller, &"key-1".parse().unwrap(), "a test").await.map(|_| 1),
        "CreateBackup" => broker.may_back_up(caller).await.map(|_| 1),
        "AdoptStore" => broker.adopt_store(caller).await.map(|_| 1),
        "MakeCheckpoint" => broker.make_checkpoint(caller).await.map(|_| 1),
        "ListEvents" => {
            let page = broker.list_events(caller, &ListEvents { filter, ..ListEvents::default() }).await?;
            Ok(of_events(&page.events))
        }
        "WatchEvents" => {
            let filter = EventFilter { from: Some(Position::new(1)), ..filter };
            let watch = broker.watch_events(caller, filter, None).await?;
            let mut watch = watch.with_heartbeat(std::time::Duration::from_millis(10));
            // The first only says from where.
            watch.next().await?;
            watch.next().await.map(|news| of_events(&news.events))
        }
        "ExportEvents" => broker.export_events(caller, None).await.map(|_| 1),
        other => panic!(
            "{other} has a row in operator.proto and no call here: say how it is called, and how many of the things it gives"
        ),
    }
}

/// The name by which a right is enough, where it is not on all.
fn name_for(rpc: &str, resource: &str) -> Option<&'static str> {
    match (rpc, resource) {
        // What nobody owns is for those who may list all, and all keys are listed.
        (
            "ListUnowned" | "ListKeys" | "CreateBackup" | "AdoptStore" | "MakeCheckpoint" | "ExportEvents",
            _,
        ) => None,
        ("RotateKey", "keys") => Some("access-token"),
        ("RevokeKey", "keys") => Some("key-1"),
        _ => Some("payments"),
    }
}

/// `east`, the home cluster, and `west`: each with a lease of payments', a hold on those, and a namespace of nobody's.
async fn two_clusters() -> (World, [Things; 2]) {
    let world = World::of(&["east", "west"], Some("east")).unwrap();
    let mut things = Vec::new();
    for (cluster, name) in world.clusters.iter().zip(["east", "west"]) {
        let stray =
            NamespaceFacts { uid: uid_of("stray"), labels: std::sync::Arc::default(), deleting: false };
        cluster.namespace("stray", Some(stray));
        cluster.allow("team", "revoke", Some("payments"));
        let api = secret(&format!("{name}/dayfly/system:serviceaccount:payments:api/api-0"));
        let issued = world.issue(&api, &orders()).await.unwrap_or_else(|error| panic!("{error}"));
        let team = secret(&format!("{name}/dayfly-operator/team"));
        let revoked = world.broker.revoke(bearer(&team), &revoke(name)).await;
        let Ok(Revoked::Written { rule, .. }) = revoked else {
            panic!("a team may revoke its own: {revoked:?}")
        };
        things.push(Things { cluster: name, lease: issued.lease.id, rule: rule.id });
    }
    (world, things.try_into().unwrap_or_else(|_| panic!("two clusters")))
}

fn is_nothing(answer: &Result<usize, Error>) -> bool {
    matches!(answer, Err(_) | Ok(0))
}

#[test]
fn every_rpc_has_a_row() {
    let proto = proto();
    let rpcs = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    let rows: Vec<_> = table().into_iter().map(|row| row.rpc).collect();
    for rpc in rpcs {
        assert!(rows.iter().any(|row| row == rpc), "{rpc} has no row in the table of operator.proto");
    }
}

#[tokio::test]
async fn each_rpc_takes_the_right_that_its_row_names() {
    let (world, [here, _]) = two_clusters().await;
    for Row { rpc, verb, resource, .. } in table() {
        let nobody = call(&world, &rpc, &operator(&format!("{rpc}-nobody")), &here).await;
        assert!(is_nothing(&nobody), "{rpc} without any right");
        for (on, right) in rights() {
            let user = format!("{rpc}-{right}-{on}");
            world.east().allow_on(on, &user, right, name_for(&rpc, on));
            let given = call(&world, &rpc, &operator(&user), &here).await;
            let enough = right == verb && on == resource;
            assert_eq!(!is_nothing(&given), enough, "{rpc} with {right} on {on} alone: {given:?}");
        }
    }
}

#[tokio::test]
async fn no_right_on_another_owner_is_enough() {
    let (world, [here, _]) = two_clusters().await;
    for Row { rpc, .. } in table() {
        let user = format!("{rpc}-of-checkout");
        for (on, right) in rights() {
            world.east().allow_on(on, &user, right, Some("checkout"));
        }
        let given = call(&world, &rpc, &operator(&user), &here).await;
        assert!(is_nothing(&given), "{rpc} with all rights on another owner: {given:?}");
    }
}

#[tokio::test]
async fn rights_of_another_cluster_are_none_here() {
    let (world, [here, there]) = two_clusters().await;
    for (on, right) in rights() {
        world.clusters[1].allow_on(on, "root", right, None);
    }
    let root = secret("west/dayfly-operator/root");
    for Row { rpc, verb, resource, home } in table() {
        let given = call(&world, &rpc, &root, &here).await;
        assert!(is_nothing(&given), "{rpc}: all rights of west over what east has: {given:?}");
        let own = call(&world, &rpc, &root, &there).await;
        assert_eq!(is_nothing(&own), home, "{rpc}: all rights of west over what west has: {own:?}");
        // The home cluster's one right holds over the others, where there is anything of theirs.
        let user = format!("{rpc}-of-home");
        world.east().allow_on(resource, &user, verb, name_for(&rpc, resource));
        let over = call(&world, &rpc, &operator(&user), &there).await;
        assert!(!is_nothing(&over), "{rpc}: the right of the home cluster over what west has: {over:?}");
    }
}

#[tokio::test]
async fn keys_are_for_operators_of_the_home_cluster() {
    let world = World::of(&["east", "west"], Some("east")).unwrap();
    for (cluster, (on, right)) in
        world.clusters.iter().flat_map(|it| rights().into_iter().map(move |right| (it, right)))
    {
        cluster.allow_on(on, "root", right, None);
    }
    let purpose = "access-token".parse().unwrap();
    let here = operator("root");
    let keys = world.broker.list_keys(bearer(&here), false).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["key-1"]);
    assert_eq!(world.broker.list_keys(bearer(&here), true).await.unwrap().len(), 2);
    world.broker.rotate_key(bearer(&here), &purpose, false).await.unwrap();
    let key = "key-1".parse().unwrap();
    world.broker.revoke_key(bearer(&here), &key, "it leaked").await.unwrap();
    let asked = ["rotate access-token false root@east", "revoke key-1 root@east it leaked"];
    assert_eq!(*world.keeper.asked.lock().unwrap(), asked);

    let elsewhere = secret("west/dayfly-operator/root");
    let refused = [
        world.broker.list_keys(bearer(&elsewhere), false).await.map(drop),
        world.broker.rotate_key(bearer(&elsewhere), &purpose, true).await.map(drop),
        world.broker.revoke_key(bearer(&elsewhere), &key, "it leaked").await.map(drop),
    ];
    for refused in refused {
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason(), Reason::NotAllowed);
        assert!(refused.to_string().contains("the home cluster"), "{refused}");
    }
    // A reason is always said, and what is not there is told to those who may.
    let unsaid = world.broker.revoke_key(bearer(&here), &key, " ").await.unwrap_err();
    assert_eq!(unsaid.reason(), Reason::InvalidField);
    let unknown = world.broker.revoke_key(bearer(&here), &"key-9".parse().unwrap(), "why").await;
    assert_eq!(unknown.unwrap_err().reason(), Reason::NotFound);
    assert_eq!(world.keeper.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn the_store_is_for_operators_of_the_home_cluster() {
    let world = World::of(&["east", "west"], Some("east")).unwrap();
    for cluster in &world.clusters {
        cluster.allow_on("backups", "root", "create", None);
        cluster.allow_on("stores", "root", "adopt", None);
    }
    let (here, elsewhere) = (operator("root"), secret("west/dayfly-operator/root"));
    assert_eq!(world.broker.may_back_up(bearer(&here)).await.unwrap().to_string(), "root@east");
    let refused = [
        world.broker.may_back_up(bearer(&elsewhere)).await.map(drop),
        world.broker.adopt_store(bearer(&elsewhere)).await.map(drop),
    ];
    for refused in refused {
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason(), Reason::NotAllowed);
        assert!(refused.to_string().contains("the home cluster"), "{refused}");
    }
    // One that was never restored has nothing to adopt; one that was is adopted once.
    assert!(world.broker.adopt_store(bearer(&here)).await.unwrap().already);
    world.store.restored();
    assert!(!world.broker.adopt_store(bearer(&here)).await.unwrap().already);
    assert!(world.broker.adopt_store(bearer(&here)).await.unwrap().already);
}
