//! Token Status Lists, for verifiers that hold no stream, and the durable teardown that sets their bits.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use dayfly_api::v1;
use dayfly_e2e::broker::{ISSUER, Options};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::jwt;
use dayfly_e2e::run::until;
use dayfly_e2e::world::{Operator, Team, World, asking_for, lease_of, owned_by};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

on_both!(
    a_status_list_shows_what_has_ended,
    a_teardown_goes_on_after_a_crash_of_the_broker,
    a_target_has_status_lists_only_where_it_says_so,
    a_restored_store_says_of_no_earlier_token_that_it_is_good,
);

/// A team whose target has status lists.
async fn team(world: &World, name: &str) -> Team {
    let mut team = world.unsettled_team(name).await.unwrap();
    team.target_object["spec"]["jwt"]["statusList"] = json!(true);
    world.put(&[&team.owner_object, &team.target_object, &team.grant_object]).await.unwrap();
    team
}

/// Where a credential's bit is: the list's path at the broker, and the place.
fn place(issued: &v1::IssueResponse) -> (String, usize) {
    let status = jwt::read(&issued.credential).unwrap().claims["status"]["status_list"].clone();
    let uri = status["uri"].as_str().unwrap().to_owned();
    let path = uri.strip_prefix(ISSUER).unwrap().to_owned();
    (path, usize::try_from(status["idx"].as_u64().unwrap()).unwrap())
}

/// A status list, verified by ring, and read by Python.
struct List {
    claims: Value,
    bits: String,
}

impl List {
    /// The list at this path; none where it cannot be had now.
    async fn at(world: &World, path: &str) -> Result<Option<Self>> {
        let token = match world.fetch(path).await? {
            Ok(token) => token,
            Err(503) => return Ok(None),
            Err(status) => anyhow::bail!("the list is answered {status}"),
        };
        let jwks = world.fetch("/status/jwks.json").await?.ok().context("no keys of status lists")?;
        let claims = jwt::verify_status_list(&token, &jwks)?.claims;
        anyhow::ensure!(claims["sub"] == format!("{ISSUER}{path}"), "it is another list: {claims}");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour/status_list.py");
        let mut python = tokio::process::Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asked = json!({ "token": token, "jwks": serde_json::from_str::<Value>(&jwks)? });
        python.stdin.take().context("no stdin")?.write_all(asked.to_string().as_bytes()).await?;
        let output = python.wait_with_output().await?;
        anyhow::ensure!(output.status.success(), "python3 does not read it");
        Ok(Some(Self { claims, bits: String::from_utf8(output.stdout)?.trim().to_owned() }))
    }

    fn bit(&self, place: usize) -> bool {
        self.bits.as_bytes()[place] == b'1'
    }

    fn set(&self) -> usize {
        self.bits.matches('1').count()
    }
}

/// Waits until these bits are as said.
async fn until_bits(world: &World, expected: &[(&v1::IssueResponse, bool)]) -> Result<()> {
    until(async || {
        for (issued, ended) in expected {
            let (path, place) = place(issued);
            match List::at(world, &path).await? {
                Some(list) if list.bit(place) == *ended => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    })
    .await
}

async fn a_status_list_shows_what_has_ended(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = team(&world, "payments").await;
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let [live, revoked, released] = [
        pod.issue(&team.target).await.unwrap(),
        pod.issue(&team.target).await.unwrap(),
        pod.issue(&team.target).await.unwrap(),
    ];
    let (path, _) = place(&live);
    let list = List::at(&world, &path).await.unwrap().unwrap();
    assert_eq!((list.bits.len(), list.set()), (1 << 17, 0));
    let number = |name: &str| list.claims[name].as_u64().unwrap();
    assert_eq!((number("ttl"), number("exp") - number("iat")), (60, 300));
    let access_keys = world.fetch("/.well-known/jwks.json").await.unwrap().unwrap();
    let token = world.fetch(&path).await.unwrap().unwrap();
    let kid = jwt::read(&token).unwrap().header["kid"].as_str().unwrap().to_owned();
    assert!(!access_keys.contains(&kid), "its key is in no other set");

    let lease = |issued: &v1::IssueResponse| issued.lease.clone().unwrap().id;
    let operator = world.operator(&["revoke"], Some(&team.owner)).await.unwrap();
    operator.revoke(lease_of(&lease(&revoked))).await.unwrap();
    pod.release(&lease(&released)).await.unwrap().unwrap();
    let expected = [(&live, false), (&revoked, true), (&released, true)];
    until_bits(&world, &expected).await.unwrap();
    assert_eq!(List::at(&world, &path).await.unwrap().unwrap().set(), 2);

    let (status, headers) =
        world.curl(&path, &["--dump-header", "-", "--output", "/dev/null"]).await.unwrap();
    let headers = headers.to_lowercase();
    assert_eq!(status, 200);
    assert!(headers.contains("cache-control: public, max-age=60"), "{headers}");
    assert!(headers.contains("content-type: application/statuslist+jwt"), "{headers}");
    let etag = headers.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim().to_owned();
    let known = format!("If-None-Match: {etag}");
    assert_eq!(world.curl(&path, &["--header", &known]).await.unwrap(), (304, String::new()));
    let (lists, _) = path.rsplit_once('/').unwrap();
    for unknown in [format!("{lists}/0000000000000000"), format!("{lists}/x"), format!("{lists}/")] {
        until(async || Ok(world.fetch(&unknown).await? == Err(404))).await.unwrap();
    }

    world.broker().restart().await.unwrap();
    until_bits(&world, &expected).await.unwrap();
    world.broker().kill9().await.unwrap();
    world.broker().launch().await.unwrap();
    until_bits(&world, &expected).await.unwrap();
    let later = pod.issue(&team.target).await.unwrap();
    assert_ne!(place(&later).0, path, "each start has lists of its own");
    until_bits(&world, &[(&later, false)]).await.unwrap();
}

async fn step(operator: &Operator, rule: &str) -> Result<v1::TeardownStep> {
    let progress = operator.revocation_and_counts(rule).await?.progress.unwrap_or_default();
    Ok(progress.steps.into_iter().find(|step| step.name == "status-list").unwrap_or_default())
}

async fn a_teardown_goes_on_after_a_crash_of_the_broker(kind: Kind) {
    const LEASES: usize = 2000;
    let options = Options {
        limits: [("live_leases_per_pod", 10_000), ("teardown_leases_per_second", 400)].into(),
        ..Options::default()
    };
    let world = World::with_own_broker(kind, options).await.unwrap();
    let team = team(&world, "payments").await;
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    pod.token().await.unwrap();
    let issued: Vec<_> = stream::iter(0..LEASES)
        .map(|_| async { pod.ask(asking_for(&team.target)).await?.map_err(anyhow::Error::from) })
        .buffer_unordered(16)
        .try_collect()
        .await
        .unwrap();
    let (path, _) = place(&issued[0]);
    let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();
    let rule = operator.revoke(owned_by(&team.owner)).await.unwrap().id;
    let mut before = v1::TeardownStep::default();
    until(async || {
        before = step(&operator, &rule).await?;
        Ok(before.done >= 80)
    })
    .await
    .unwrap();
    world.broker().kill9().await.unwrap();
    assert!(!before.complete && before.done < LEASES as u64, "{before:?}");

    world.broker().launch().await.unwrap();
    let mut last = before.clone();
    until(async || {
        let now = step(&operator, &rule).await?;
        anyhow::ensure!(now.done >= last.done && now.up_to >= last.up_to, "{now:?} after {last:?}");
        last = now;
        Ok(last.complete)
    })
    .await
    .unwrap();
    assert_eq!((last.done, last.tries, &*last.last_error), (LEASES as u64, 0, ""));
    let mut list = None;
    until(async || {
        list = List::at(&world, &path).await?;
        Ok(list.is_some())
    })
    .await
    .unwrap();
    let list = list.unwrap();
    assert!(issued.iter().all(|issued| place(issued).0 == path && list.bit(place(issued).1)));
    assert_eq!(list.set(), LEASES);
    let listed = operator_list(&world, &team, &rule).await.unwrap();
    assert!(listed.steps.iter().any(|step| step.complete && step.done == LEASES as u64), "{listed:?}");

    world.broker().stop().await.unwrap();
    let store = world.broker().store_dir().display().to_string();
    let (status, report) = world.broker().command(&["store", "verify", &store]).await.unwrap();
    assert!(status.success(), "{report}");
}

/// The progress that ListRevocations tells of this rule.
async fn operator_list(world: &World, team: &Team, rule: &str) -> Result<v1::Teardown> {
    let lister = world.operator(&["list"], Some(&team.owner)).await?;
    let request = v1::ListRevocationsRequest { owner: team.owner.clone(), ..Default::default() };
    let page = lister.revocations(request).await?;
    let at = page.rules.iter().position(|listed| listed.id == rule).context("it is not listed")?;
    page.progress.get(at).cloned().context("there is no progress")
}

async fn a_target_has_status_lists_only_where_it_says_so(kind: Kind) {
    let world = World::shared(kind).await.unwrap();
    let team = world.team("payments").await.unwrap();
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let without = pod.issue(&team.target).await.unwrap();
    assert_eq!(jwt::read(&without.credential).unwrap().claims.get("status"), None);
    let operator = world.operator(&["revoke", "get"], Some(&team.owner)).await.unwrap();
    let idempotent = v1::IssueRequest { idempotency_key: "one".to_owned(), ..asking_for(&team.target) };
    pod.ask(idempotent.clone()).await.unwrap().unwrap();

    let mut target = team.target_object.clone();
    target["spec"]["jwt"]["statusList"] = json!(true);
    world.put(&[&target]).await.unwrap();
    let with = pod.issue(&team.target).await.unwrap();
    let again = pod.issue(&team.target).await.unwrap();
    let ((path, one), (other_path, other)) = (place(&with), place(&again));
    assert!(path == other_path && one != other);
    let refused = pod.ask(idempotent).await.unwrap().unwrap_err();
    assert_eq!(
        dayfly_e2e::world::reason(&refused),
        "DECISION_CHANGED",
        "a repeat gives what policy says now"
    );
    let lease = with.lease.clone().unwrap().id;
    let renewed = pod.renew(&lease).await.unwrap();
    let renewed = v1::IssueResponse { credential: renewed.credential, ..with.clone() };
    assert_ne!(place(&renewed).1, one, "each token has a place of its own");

    let rule = operator.revoke(owned_by(&team.owner)).await.unwrap().id;
    until_bits(&world, &[(&with, true), (&again, true), (&renewed, true)]).await.unwrap();
    assert_eq!(step(&operator, &rule).await.unwrap().done, 3, "not those that have no bit");
}

async fn a_restored_store_says_of_no_earlier_token_that_it_is_good(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let team = team(&world, "payments").await;
    let pod = world.pod(&team.namespace, "api").await.unwrap();
    let known = pod.issue(&team.target).await.unwrap();
    let keeper = world.operator_on("backups", &["create"], None).await.unwrap();
    let (backup, _) = keeper.backup().await.unwrap();
    // In the same list, and not in the backup.
    let unknown = pod.issue(&team.target).await.unwrap();
    assert_eq!(place(&known).0, place(&unknown).0);
    until_bits(&world, &[(&known, false), (&unknown, false)]).await.unwrap();

    let broker = world.broker();
    broker.stop().await.unwrap();
    std::fs::write(broker.dir().join("backup"), backup).unwrap();
    std::fs::rename(broker.store_dir(), broker.dir().join("lost")).unwrap();
    let restore = ["store", "restore", "--config", "dayfly.toml", "--from", "backup"];
    let (status, said) = broker.command(&restore).await.unwrap();
    assert!(status.success(), "{said}");
    broker.launch().await.unwrap();
    until_bits(&world, &[(&known, true), (&unknown, true)]).await.unwrap();
    // What it issues is good, and stays so over a start.
    let later = pod.issue(&team.target).await.unwrap();
    until_bits(&world, &[(&later, false)]).await.unwrap();
    broker.restart().await.unwrap();
    until_bits(&world, &[(&known, true), (&unknown, true), (&later, false)]).await.unwrap();
}
