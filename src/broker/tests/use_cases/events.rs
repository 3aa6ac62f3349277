//! Who sees which events, what is an event, and how they are followed.

use std::time::Duration;

use dayfly_broker::{
    Broker, Error, EventFilter, EventResume, EventWatch, ListEvents, ListLeases, Reason, RevokeRequest, Which,
};
use dayfly_core::audit::{Event, EventKind};
use dayfly_core::change::Change;
use dayfly_core::ids::{Incarnation, Position};
use dayfly_core::ports::LeaseStore as _;
use dayfly_core::rule::{Actor, After, Fields};

use crate::support::{World, api, bearer, gate, operator, orders, refused, secret, web};

async fn listed(broker: &Broker, user: &str, request: &ListEvents) -> Result<Vec<Event>, Error> {
    Ok(broker.list_events(bearer(&operator(user)), request).await?.events)
}

fn of(filter: EventFilter) -> ListEvents {
    ListEvents { filter, ..ListEvents::default() }
}

fn named(events: &[Event]) -> Vec<String> {
    let owners = |event: &Event| event.detail.as_ref().map(|it| it.owners.join(",")).unwrap_or_default();
    events.iter().map(|event| format!("{} {}", event.kind.name(), owners(event)).trim().to_owned()).collect()
}

/// A lease each of payments and checkout, one of them revoked, and what is of nobody.
async fn world() -> World {
    let world = World::new();
    let events = |user: &str, name| world.east().allow_on("events", user, "list", name);
    events("alice", Some("payments"));
    events("root", None);
    world.east().allow("alice", "list", Some("payments"));
    world.east().allow("alice", "revoke", Some("payments"));
    world.issued().await;
    world.issue(&web(), &orders()).await.ok().unwrap();
    let request = RevokeRequest {
        which: Which::fields(Fields { owner: "payments".parse().ok(), ..Fields::default() }),
        after: After::Hold,
        reason: "incident 12".to_owned(),
        dry_run: false,
        idempotency_key: None,
    };
    world.broker.revoke(bearer(&operator("alice")), &request).await.unwrap();
    note(&world).await;
    world
}

async fn note(world: &World) {
    let note = dayfly_core::audit::Draft::note(EventKind::PolicyChanged, &Actor::dayfly(), "p".to_owned());
    world.store.commit(Change::Note(Box::new(note))).await.unwrap();
}

#[tokio::test]
async fn events_are_seen_by_those_who_may_list_their_owner() {
    let world = world().await;
    let all = ListEvents::default();
    let everything = ["issued payments", "issued checkout", "revoked payments", "policy-changed"];
    assert_eq!(named(&listed(&world.broker, "root", &all).await.unwrap()), everything);
    let own = ["issued payments", "revoked payments"];
    assert_eq!(named(&listed(&world.broker, "alice", &all).await.unwrap()), own);
    let mallory = refused(listed(&world.broker, "mallory", &all).await);
    assert_eq!(mallory.reason(), Reason::NotAllowed);
    assert!(mallory.to_string().contains("all events.dayfly.dev"), "{mallory}");
    let theirs = of(EventFilter { owner: "checkout".parse().ok(), ..EventFilter::default() });
    assert_eq!(refused(listed(&world.broker, "alice", &theirs).await).reason(), Reason::NotAllowed);
}

#[tokio::test]
async fn an_operator_of_one_cluster_sees_no_events_of_another() {
    let world = World::of(&["east", "west"], Some("east")).unwrap();
    for cluster in &world.clusters {
        cluster.allow_on("events", "root", "list", None);
    }
    world.issued().await;
    note(&world).await;
    let seen = async |token| {
        let page = world.broker.list_events(bearer(&token), &ListEvents::default()).await;
        named(&page.unwrap().events)
    };
    assert_eq!(seen(operator("root")).await, ["issued payments", "policy-changed"]);
    assert_eq!(seen(secret("west/dayfly-operator/root")).await, Vec::<String>::new());
    let west = secret("west/dayfly-operator/root");
    let refused = refused(world.broker.export_events(bearer(&west), None).await);
    assert!(refused.to_string().contains("the home cluster"), "{refused}");
}

#[tokio::test]
async fn every_part_of_a_filter_must_match() {
    let world = world().await;
    let lease = world.store.all()[0].clone();
    let found = async |filter| named(&listed(&world.broker, "root", &of(filter)).await.unwrap());
    let none = EventFilter::default;
    assert_eq!(found(EventFilter { kinds: vec![EventKind::Revoked], ..none() }).await, ["revoked payments"]);
    assert_eq!(found(EventFilter { subject: Some(lease.id), ..none() }).await, ["issued payments"]);
    assert_eq!(found(EventFilter { owner: "checkout".parse().ok(), ..none() }).await, ["issued checkout"]);
    let target = EventFilter { target: "orders".parse().ok(), ..none() };
    assert_eq!(found(target.clone()).await, ["issued payments", "issued checkout"]);
    let actor = |actor: &str| EventFilter { actor: Some(actor.to_owned()), ..none() };
    assert_eq!(found(actor("alice@east")).await, ["revoked payments"]);
    assert_eq!(found(actor("east:checkout:web")).await, ["issued checkout"]);
    let (from, to) = (Some(Position::new(2)), Some(Position::new(3)));
    assert_eq!(found(EventFilter { from, to, ..none() }).await, ["issued checkout", "revoked payments"]);
    assert_eq!(found(EventFilter { from, to: Some(Position::new(1)), ..none() }).await, Vec::<String>::new());
    assert_eq!(found(EventFilter { kinds: vec![EventKind::Revoked], ..target }).await, Vec::<String>::new());
    let at = listed(&world.broker, "root", &ListEvents::default()).await.unwrap()[0].at;
    let later = at.plus(Duration::from_secs(1));
    assert_eq!(found(EventFilter { since: Some(at), until: Some(later), ..none() }).await.len(), 4);
    assert_eq!(found(EventFilter { since: Some(later), ..none() }).await.len(), 0);
}

#[tokio::test]
async fn pages_follow_each_other_both_ways() {
    let world = world().await;
    for _ in 0..2500 {
        note(&world).await;
    }
    for newest_first in [false, true] {
        let mut request = ListEvents {
            newest_first,
            limit: Some(999),
            ..of(EventFilter { from: Some(Position::new(2)), ..EventFilter::default() })
        };
        let mut seen = Vec::new();
        loop {
            let page = world.broker.list_events(bearer(&operator("root")), &request).await.unwrap();
            assert!(page.events.len() <= 999);
            seen.extend(page.events.iter().map(|event| event.position.number()));
            request.at = page.next;
            if page.next.is_none() {
                break;
            }
        }
        if newest_first {
            seen.reverse();
        }
        assert_eq!(seen, (2..=2504).collect::<Vec<_>>(), "newest first: {newest_first}");
    }
    // The page ends where the search does: a day is what a clock is taken to be off.
    world.clock.advance(Duration::from_secs(26 * 3600));
    note(&world).await;
    let since = Some(dayfly_core::ports::Clock::now(&*world.clock));
    let late = ListEvents { newest_first: true, ..of(EventFilter { since, ..EventFilter::default() }) };
    let page = world.broker.list_events(bearer(&operator("root")), &late).await.unwrap();
    assert_eq!((page.events.len(), page.next), (1, None));
}

#[tokio::test]
async fn what_operators_read_is_an_event() {
    let world = world().await;
    let which = Some(Which::fields(Fields { owner: "payments".parse().ok(), ..Fields::default() }));
    for _ in 0..3 {
        let request = ListLeases { which: which.clone(), ..ListLeases::default() };
        world.broker.list_leases(bearer(&operator("alice")), &request).await.unwrap();
    }
    world.broker.list_owners(bearer(&operator("alice")), None, None).await.unwrap();
    assert_eq!(world.broker.flush_reads().await, Ok(2), "of one minute they are one");
    assert_eq!(world.broker.flush_reads().await, Ok(0));
    let reads = of(EventFilter { kinds: vec![EventKind::Read], ..EventFilter::default() });
    let mut said: Vec<_> = listed(&world.broker, "root", &reads)
        .await
        .unwrap()
        .into_iter()
        .map(|it| it.detail.unwrap())
        .collect();
    said.sort_by(|one, other| one.rpc.cmp(&other.rpc));
    let [leases, owners] = said.try_into().unwrap();
    assert_eq!((&*leases.actor, &*leases.rpc, leases.count), ("alice@east", "ListLeases", 3));
    assert!(leases.filter.contains("payments") && leases.owners == ["payments"], "{leases:?}");
    assert_eq!((&*owners.rpc, &*owners.filter, owners.owners.len()), ("ListOwners", "", 0));
    // Whose things were read sees it; who read the events is an event too.
    let own = listed(&world.broker, "alice", &reads).await.unwrap();
    assert_eq!(named(&own), ["read payments"]);
    assert_eq!(world.broker.flush_reads().await, Ok(2));
}

#[tokio::test]
async fn what_operators_and_verifiers_are_refused_is_an_event() {
    let world = world().await;
    let lease = world.store.all()[1].id;
    refused(world.broker.get_lease(bearer(&operator("mallory")), lease).await);
    refused(world.broker.list_owners(bearer(&operator("mallory")), None, None).await);
    let verifier = secret("east/dayfly-verifier/system:serviceaccount:payments:api/api-0");
    refused(world.broker.watch_revocations(bearer(&verifier), None).await);
    assert!(world.broker.watch_revocations(bearer(&gate()), None).await.is_ok());
    // And what workloads are, for the owner of their namespace.
    refused(world.issue(&api(), &orders()).await);
    assert_eq!(world.broker.flush_denials().await, Ok(4));
    let denied = of(EventFilter { kinds: vec![EventKind::Denied], ..EventFilter::default() });
    let all = listed(&world.broker, "root", &denied).await.unwrap();
    let mut told: Vec<_> = all
        .iter()
        .filter_map(|it| it.detail.clone())
        .map(|it| format!("{}{} {} {}", it.actor, it.workload, it.reason, it.owners.join(",")))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "east:payments:api HELD payments",
            "east:payments:api NOT_A_VERIFIER payments",
            "mallory@east NOT_ALLOWED ",
            "mallory@east NOT_FOUND ",
        ]
    );
    assert_eq!(listed(&world.broker, "alice", &denied).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_rule_about_ones_lease_is_seen_whoever_wrote_it() {
    let world = world().await;
    world.east().allow("root", "revoke", None);
    let [_, theirs] = world.store.all().try_into().unwrap();
    let request = RevokeRequest {
        which: Which::fields(Fields { lease: Some(theirs.id), ..Fields::default() }),
        after: After::Reissue,
        reason: "a drill".to_owned(),
        dry_run: false,
        idempotency_key: None,
    };
    world.broker.revoke(bearer(&operator("root")), &request).await.unwrap();
    world.east().allow_on("events", "carol", "list", Some("checkout"));
    let revoked = of(EventFilter { kinds: vec![EventKind::Revoked], ..EventFilter::default() });
    let seen = listed(&world.broker, "carol", &revoked).await.unwrap();
    assert_eq!(named(&seen), ["revoked checkout"]);
    assert_eq!(seen[0].detail.as_ref().unwrap().actor, "root@east");
    assert_eq!(named(&listed(&world.broker, "alice", &revoked).await.unwrap()), ["revoked payments"]);
}

async fn told(watch: &mut EventWatch) -> Vec<u64> {
    let news = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
    news.events.iter().map(|event| event.position.number()).collect()
}

#[tokio::test]
async fn a_watch_tells_each_event_once_and_goes_on_where_it_was() {
    let world = world().await;
    let watch = async |filter, resume| {
        let watch = world.broker.watch_events(bearer(&operator("root")), filter, resume).await.unwrap();
        watch.with_heartbeat(Duration::from_millis(200))
    };
    let mut from_now = watch(EventFilter::default(), None).await;
    let first = from_now.next().await.unwrap();
    assert_eq!((first.events.len(), first.position), (0, Position::new(4)), "at once, from where it begins");
    assert_eq!(told(&mut from_now).await, Vec::<u64>::new(), "a heartbeat");
    note(&world).await;
    assert_eq!(told(&mut from_now).await, [5]);

    let mut from = watch(EventFilter { from: Some(Position::new(2)), ..EventFilter::default() }, None).await;
    assert_eq!(told(&mut from).await, Vec::<u64>::new());
    assert_eq!(told(&mut from).await, [2, 3, 4, 5]);
    let resume = |position| EventResume { incarnation: Incarnation(1), position: Position::new(position) };
    let mut resumed =
        watch(EventFilter { from: Some(Position::new(1)), ..EventFilter::default() }, Some(resume(3))).await;
    assert_eq!((told(&mut resumed).await.len(), told(&mut resumed).await), (0, vec![4, 5]));

    // Many come in messages of a hundred, each with its place.
    for _ in 0..250 {
        note(&world).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 250 {
        let news = from.next().await.unwrap();
        assert!(news.events.len() <= 100);
        assert_eq!(news.events.last().map(|event| event.position), Some(news.position));
        seen.extend(news.events.iter().map(|event| event.position.number()));
    }
    assert_eq!(seen, (6..=255).collect::<Vec<_>>());
    let begin = async |resume| {
        world.broker.watch_events(bearer(&operator("root")), EventFilter::default(), Some(resume)).await
    };
    for bad in [resume(256), EventResume { incarnation: Incarnation(2), ..resume(1) }] {
        assert_eq!(refused(begin(bad).await).reason(), Reason::ResumeOutOfRange);
    }
}

#[tokio::test]
async fn a_watch_is_of_what_one_may_list_and_ends_with_the_right() {
    let world = world().await;
    let filter = EventFilter { from: Some(Position::new(1)), ..EventFilter::default() };
    let watch = world.broker.watch_events(bearer(&operator("alice")), filter, None).await.unwrap();
    let mut watch = watch.with_heartbeat(Duration::from_millis(100));
    assert_eq!((told(&mut watch).await.len(), told(&mut watch).await), (0, vec![1, 3]));
    world.east().disallow("alice");
    assert_eq!(told(&mut watch).await, Vec::<u64>::new(), "it is looked at now and then");
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(refused(watch.next().await).reason(), Reason::NotAllowed);
    let forever = EventFilter { to: Some(Position::new(9)), ..EventFilter::default() };
    let bounded = world.broker.watch_events(bearer(&operator("root")), forever, None).await;
    assert_eq!(refused(bounded).reason(), Reason::InvalidField);
}

#[tokio::test]
async fn an_export_is_recorded_before_its_first_record_and_ends_with_that() {
    let world = world().await;
    let mut export =
        world.broker.export_events(bearer(&operator("root")), Some(Position::new(2))).await.unwrap();
    assert_eq!(world.store.notes().last().unwrap().kind, EventKind::Exported);
    note(&world).await;
    let (first, records) = export.next().await.unwrap().unwrap();
    let events: Vec<_> = records.iter().map(|record| record.read().unwrap()).collect();
    assert_eq!((first, events.len()), (Position::new(2), 4));
    let last = events.last().unwrap();
    assert_eq!((last.kind, last.position), (EventKind::Exported, Position::new(5)));
    let detail = last.detail.clone().unwrap();
    assert_eq!((&*detail.actor, &*detail.note), ("root@east", "from position 2 up to this one"));
    assert!(export.next().await.unwrap().is_none());
    let later = world.broker.export_events(bearer(&operator("root")), Some(Position::new(99))).await;
    assert_eq!(refused(later).reason(), Reason::InvalidField);
    assert_eq!(
        refused(world.broker.export_events(bearer(&operator("alice")), None).await).reason(),
        Reason::NotAllowed
    );
}
