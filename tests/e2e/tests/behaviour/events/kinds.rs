//! Which kinds of events are told to whom, by the operations that make them.

use dayfly_api::v1;
use dayfly_e2e::run::{run, until};
use dayfly_e2e::world::owned_by;
use serde_json::json;

use super::{kinds, of_kind};
use crate::sessions;

/// What concerns the broker or one rule, and not one lease.
const KINDS: [&str; 5] = ["backup-taken", "key-activated", "key-revoked", "session-issued", "torn-down"];

#[test]
fn keys_backups_sessions_and_others_teardowns_are_for_those_who_see_all() {
    run(async {
        // A session is issued in it.
        let world = sessions::start().await;
        let (mut mine, theirs) =
            (world.unsettled_team("payments").await.unwrap(), world.team("orders").await.unwrap());
        mine.target_object["spec"]["jwt"]["statusList"] = json!(true);
        world.put(&[&mine.owner_object, &mine.target_object, &mine.grant_object]).await.unwrap();
        let pod = world.pod(&mine.namespace, "api").await.unwrap();
        let [all, of_mine, of_theirs] =
            [None, Some(&*mine.owner), Some(&*theirs.owner)].map(|owner| world.auditor(owner));
        let (all, of_mine, of_theirs) =
            (all.await.unwrap(), of_mine.await.unwrap(), of_theirs.await.unwrap());

        let rule = async {
            pod.issue(&mine.target).await.unwrap();
            let operator = world.operator(&["revoke"], Some(&mine.owner)).await.unwrap();
            operator.revoke(owned_by(&mine.owner)).await.unwrap().id
        };
        let rule = rule.await;
        pod.issue(&mine.target).await.unwrap();
        let keeper = world.key_operator(&["list", "rotate", "revoke"], None).await.unwrap();
        let purpose = "access-token";
        let signs = async || {
            let keys = keeper.signing_keys().await.unwrap();
            keys.into_iter()
                .find(|key| key.purpose == purpose && key.stage() == v1::KeyStage::Active)
                .unwrap()
                .id
        };
        let signed = signs().await;
        keeper.rotate_key(purpose, true).await.unwrap();
        keeper.revoke_key(&signed, "a test").await.unwrap();
        world.operator_on("backups", &["create"], None).await.unwrap().backup().await.unwrap();

        until(async || Ok(kinds(&all, of_kind(&KINDS)).await == KINDS)).await.unwrap();
        // One teardown of the team's rule, and one of the key's, which is nobody's.
        until(async || Ok(all.events(of_kind(&["torn-down"])).await?.len() == 2)).await.unwrap();
        let seen = of_mine.events(of_kind(&KINDS)).await.unwrap();
        let told: Vec<_> = seen.iter().map(|event| (&*event.kind, &*event.subject)).collect();
        assert_eq!(told, [("torn-down", &*rule)]);
        let detail = seen[0].detail.clone().unwrap();
        assert_eq!(
            (detail.owners, &*detail.note, detail.count),
            (vec![mine.owner.clone()], "status-list", 1)
        );
        assert_eq!(of_theirs.events(of_kind(&KINDS)).await.unwrap(), []);
    });
}
