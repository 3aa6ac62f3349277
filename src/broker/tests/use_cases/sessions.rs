//! Sessions: opened for whom the home cluster's API server names, and an operator's token from then on.

use std::collections::BTreeMap;

use dayfly_broker::{Caller, Error, ListLeases, Reason, SessionRequest};
use dayfly_core::audit::EventKind;
use dayfly_core::limits;
use dayfly_core::ports::{InvalidToken, StoreError};
use dayfly_core::secret::Secret;

use crate::support::{World, api, bearer, operator, orders, refused, secret};

fn ada() -> SessionRequest {
    SessionRequest {
        username: "ada".to_owned(),
        uid: "u-1".to_owned(),
        groups: vec!["on-call".to_owned()],
        extra: BTreeMap::from([("scope".to_owned(), vec!["a".to_owned(), "b".to_owned()])]),
        audit_id: "4f0c".to_owned(),
    }
}

async fn opened(world: &World) -> Secret {
    world.broker.open_session(&ada()).await.unwrap_or_else(|error| panic!("{error}")).token
}

#[tokio::test]
async fn a_session_is_an_operator_of_the_home_cluster() {
    let world = World::of(&["east", "west"], Some("west")).unwrap();
    world.issued().await;
    let session = opened(&world).await;
    let all = ListLeases::default();
    let list = || world.broker.list_leases(bearer(&session), &all);
    assert_eq!(refused(list().await).reason(), Reason::NotAllowed, "a session gives no right by itself");
    // The right counts where the API server has said who it is.
    world.clusters[0].allow("ada", "list", None);
    assert_eq!(refused(list().await).reason(), Reason::NotAllowed);
    world.clusters[1].allow("ada", "list", None);
    assert_eq!(list().await.unwrap().leases.len(), 1);
    let east = "east".parse().unwrap();
    let of_east = dayfly_broker::Bearer { cluster: Some(&east), ..bearer(&session) };
    assert_eq!(
        refused(world.broker.verify(of_east, Caller::Operator).await).reason(),
        Reason::TokenIssuerUnknown
    );
    let verified = world.broker.verify(bearer(&session), Caller::Operator).await.unwrap();
    let identity = verified.identity();
    assert_eq!(
        (identity.uid.as_str(), identity.groups.as_slice()),
        ("u-1", ["on-call".to_owned()].as_slice())
    );
    assert_eq!(identity.extra["scope"], ["a", "b"]);
}

#[tokio::test]
async fn a_session_ends_and_is_no_other_kind_of_token() {
    let world = World::new();
    world.east().allow("ada", "list", None);
    let session = opened(&world).await;
    for kind in [Caller::Workload, Caller::Verifier] {
        let refused = refused(world.broker.verify(bearer(&session), kind).await);
        assert_eq!(refused.reason(), Reason::TokenIssuerUnknown, "{kind:?}");
    }
    assert_eq!(refused(world.issue(&session, &orders()).await).reason(), Reason::TokenIssuerUnknown);
    // It is never asked of a cluster: while that is down, whose session it is stays known.
    world.east().down.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(world.broker.verify(bearer(&session), Caller::Operator).await.is_ok());
    world.clock.advance(limits::SESSION_TTL);
    let error = refused(world.broker.verify(bearer(&session), Caller::Operator).await);
    assert_eq!(error.reason(), Reason::TokenExpired);
    // A workload's token is none, nor is a service account's operator token read as one.
    world.east().down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(
        refused(world.broker.verify(bearer(&api()), Caller::Operator).await).reason(),
        Reason::TokenAudience
    );
    assert!(world.broker.verify(bearer(&operator("ada")), Caller::Operator).await.is_ok());
}

#[tokio::test]
async fn what_opened_it_is_on_record_before_it_is_answered() {
    let world = World::new();
    let session = world.broker.open_session(&ada()).await.unwrap_or_else(|error| panic!("{error}"));
    let notes = world.store.notes();
    let event = notes.iter().find(|note| note.kind == EventKind::SessionIssued).unwrap();
    assert_eq!(event.subject, Some(session.id.to_bytes()));
    let detail = &event.detail;
    assert_eq!((&*detail.actor, &*detail.user_uid, &*detail.audit_id), ("ada@east", "u-1", "4f0c"));
    assert_eq!(
        (detail.groups.join(","), detail.extra.join(",")),
        ("on-call".to_owned(), "scope=a,scope=b".to_owned())
    );
    assert_eq!(detail.expires_at_secs, session.expires_at.as_secs());
    let text = session.token.expose_text().unwrap();
    assert!(!format!("{event:?}").contains(text), "the token is not in it");
    world.store.fail(Some(StoreError::Full));
    let error = refused(world.broker.open_session(&ada()).await);
    assert_eq!(error.reason(), Reason::StoreFull);
    assert_eq!(world.store.notes().len(), notes.len());
}

#[tokio::test]
async fn nobody_and_too_much_get_none() {
    let world = World::new();
    let open = async |change: fn(&mut SessionRequest)| {
        let mut request = ada();
        change(&mut request);
        world.broker.open_session(&request).await.err()
    };
    assert_eq!(open(|_| {}).await, None);
    let nobody: [fn(&mut SessionRequest); 3] = [
        |request| request.username.clear(),
        |request| request.username = "system:anonymous".to_owned(),
        |request| request.groups.push("system:unauthenticated".to_owned()),
    ];
    for change in nobody {
        assert_eq!(open(change).await.unwrap().reason(), Reason::NotAllowed);
    }
    let too_much: [fn(&mut SessionRequest); 5] = [
        |request| request.username = "a".repeat(limits::SESSION_USER_BYTES),
        |request| request.groups = vec!["group".to_owned(); 600],
        |request| drop(request.extra.insert("k".to_owned(), vec!["\u{1}".repeat(700)])),
        |request| drop(request.extra.insert("k".repeat(400), vec![String::new(); 10])),
        |request| request.audit_id = "4".repeat(limits::AUDIT_ID_BYTES + 1),
    ];
    for change in too_much {
        assert!(matches!(open(change).await, Some(Error::Invalid { .. })));
    }
    assert_eq!(world.store.notes().len(), 1);
}

#[tokio::test]
async fn where_sessions_are_not_served_none_is_read() {
    let world = World::without_sessions();
    assert_eq!(refused(world.broker.open_session(&ada()).await).reason(), Reason::NotFound);
    let own = secret("dayfly.example/session/0");
    let error = refused(world.broker.verify(bearer(&own), Caller::Operator).await);
    assert!(matches!(error, Error::Unauthenticated { kind: InvalidToken::UnknownIssuer, .. }));
    assert!(error.to_string().contains("opens no sessions"), "{error}");
}
