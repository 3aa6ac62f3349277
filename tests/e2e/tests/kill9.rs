//! kill -9 of the real broker at random moments under load: whatever it answered holds, and it starts again by itself.
//!
//! Ten rounds; 200 with `DAYFLY_LONG=1`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dayfly_api::v1;
use dayfly_core::clock::SystemRng;
use dayfly_core::ports::Rng as _;
use dayfly_e2e::broker::Options;
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::run::run_for;
use dayfly_e2e::world::{
    Operator, Pod, Team, Verifier, World, as_others_see, asking_for, owned_by, reason, revocation,
};
use futures_util::future::join_all;
use tonic::Status;

const TEAMS: usize = 3;
const CLIENTS: usize = 6;

#[test]
fn what_a_killed_broker_answered_holds() {
    let long = std::env::var_os("DAYFLY_LONG").is_some();
    let rounds: u32 = if long { 200 } else { 10 };
    run_for(Duration::from_secs(60 + 30 * u64::from(rounds)), async move {
        let mut options = Options::default();
        options.limits.extend([
            ("live_leases_per_pod", 1_000_000),
            ("live_leases_per_workload", 1_000_000),
            // One admin looks at everything, many at once.
            ("calls_of_one_operator", 1_000),
            ("operator_calls_of_one_namespace", 1_000),
        ]);
        let world = World::with_own_broker(Kind::StandIn, options).await.unwrap();
        let scene = Scene::of(&world).await;
        for round in 1..=rounds {
            let before = scene.answered();
            let moment = Duration::from_millis(random(1200));
            scene.storm_and_kill(moment).await;
            if round % 3 == 0 {
                killed_while_it_starts(&world).await;
            }
            let news = format!("round {round}, killed after {moment:?}");
            if round <= 10 || round % 10 == 0 {
                verify_copy(&world, &news).await;
            }
            world.broker().launch().await.unwrap_or_else(|error| panic!("{news}: {error:#}"));
            scene.check_latest(before, &news).await;
            if round <= 10 || round % 10 == 0 {
                scene.check_all(&news).await;
            }
        }
        let issued = scene.issued.lock().unwrap().len();
        let rules = scene.rules.lock().unwrap().len();
        println!("{rounds} rounds: {issued} leases and {rules} revocations were answered");
        assert!(issued > 100 && rules > 5, "{issued} leases, {rules} rules: hardly a load");
        scene.check_each(0, "at the end").await;
        let rules = scene.rules.lock().unwrap().clone();
        for rule in &rules {
            assert_eq!(&scene.admin.revocation(&rule.id).await.unwrap(), rule);
        }
        world.broker().stop().await.unwrap();
        let store = world.broker().store_dir().display().to_string();
        let (status, said) = world.broker().command(&["store", "verify", &store]).await.unwrap();
        assert!(status.success(), "{said}");
        assert_eq!(world.broker().log().matches("panicked").count(), 0, "{}", world.broker().log());
    });
}

/// An answered issue.
struct Issued {
    lease: v1::Lease,
    credential: String,
    team: usize,
}

/// A revocation that was asked for and not answered: it may have been made, or not.
type Unanswered = v1::Selector;

struct Scene<'w> {
    world: &'w World,
    teams: Vec<Team>,
    pods: Vec<Pod<'w>>,
    verifiers: Vec<Verifier>,
    admin: Operator,
    stop: AtomicBool,
    keys: AtomicU64,
    issued: Mutex<Vec<Issued>>,
    rules: Mutex<Vec<v1::Rule>>,
    unanswered: Mutex<Vec<Unanswered>>,
    /// Each client's last answered request: its idempotency key, and the lease's place in `issued`.
    last: Mutex<BTreeMap<usize, (String, usize)>>,
}

impl<'w> Scene<'w> {
    async fn of(world: &'w World) -> Self {
        let (mut teams, mut verifiers, mut pods) = (Vec::new(), Vec::new(), Vec::new());
        for name in ["payments", "orders", "search"] {
            let team = world.team(name).await.unwrap();
            verifiers.push(world.verifier(&team.namespace, "gate").await.unwrap());
            teams.push(team);
        }
        for client in 0..CLIENTS {
            pods.push(world.pod(&teams[client % TEAMS].namespace, "api").await.unwrap());
        }
        Self {
            world,
            teams,
            pods,
            verifiers,
            admin: world.admin().await.unwrap(),
            stop: AtomicBool::new(false),
            keys: AtomicU64::new(0),
            issued: Mutex::default(),
            rules: Mutex::default(),
            unanswered: Mutex::default(),
            last: Mutex::default(),
        }
    }

    fn answered(&self) -> usize {
        self.issued.lock().unwrap().len()
    }

    /// Clients issue and one operator revokes, until the broker is killed in the middle of it.
    async fn storm_and_kill(&self, moment: Duration) {
        self.stop.store(false, Ordering::Relaxed);
        let kill = async {
            // The moment counts from the first answer of this round.
            let before = self.answered();
            while self.answered() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(moment).await;
            self.world.broker().kill9().await.unwrap();
            self.stop.store(true, Ordering::Relaxed);
        };
        let clients = join_all((0..CLIENTS).map(|client| self.issue_until_killed(client)));
        tokio::join!(kill, clients, self.revoke_until_killed());
    }

    async fn issue_until_killed(&self, client: usize) {
        let team = client % TEAMS;
        while !self.stop.load(Ordering::Relaxed) {
            let key = format!("{client}-{}", self.keys.fetch_add(1, Ordering::Relaxed));
            let request =
                v1::IssueRequest { idempotency_key: key.clone(), ..asking_for(&self.teams[team].target) };
            match self.pods[client].ask(request).await.unwrap() {
                Ok(v1::IssueResponse { lease, credential, .. }) => {
                    let mut issued = self.issued.lock().unwrap();
                    self.last.lock().unwrap().insert(client, (key, issued.len()));
                    issued.push(Issued { lease: lease.unwrap(), credential, team });
                }
                Err(status) => is_of_a_killed_broker(&status).await,
            }
        }
    }

    async fn revoke_until_killed(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(random(300))).await;
            let selector = self.selector();
            match self.admin.ask(revocation(selector.clone(), v1::After::Reissue)).await {
                Ok(answer) => self.rules.lock().unwrap().push(answer.rule.unwrap()),
                Err(status) => {
                    self.unanswered.lock().unwrap().push(selector);
                    is_of_a_killed_broker(&status).await;
                }
            }
        }
    }

    /// An owner, or one lease that was answered.
    fn selector(&self) -> v1::Selector {
        let issued = self.issued.lock().unwrap();
        let any = usize::try_from(random(u64::try_from(issued.len().max(1)).unwrap())).unwrap();
        match issued.get(any) {
            Some(issued) if random(2) == 0 => {
                v1::Selector { lease: issued.lease.id.clone(), ..v1::Selector::default() }
            }
            _ => owned_by(&self.teams[any % TEAMS].owner),
        }
    }

    /// Whether a lease must be revoked, by an answered rule.
    fn must_be_revoked(&self, lease: &v1::Lease) -> bool {
        self.rules.lock().unwrap().iter().any(|rule| covers(rule, lease))
    }

    /// What was answered since then is there, and each client's last request is known again.
    async fn check_latest(&self, before: usize, news: &str) {
        self.check_each(before, news).await;
        let rules = self.rules.lock().unwrap().clone();
        for rule in rules.iter().rev().take(20) {
            assert_eq!(&self.admin.revocation(&rule.id).await.unwrap(), rule, "{news}");
        }
        let last: Vec<_> =
            self.last.lock().unwrap().iter().map(|(client, last)| (*client, last.clone())).collect();
        for (client, (key, place)) in last {
            let id = self.issued.lock().unwrap()[place].lease.id.clone();
            let target = self.teams[client % TEAMS].target.clone();
            let request = v1::IssueRequest { idempotency_key: key, ..asking_for(&target) };
            match self.pods[client].ask(request).await.unwrap() {
                Ok(again) => assert_eq!(again.lease.unwrap().id, id, "{news}: a repeat has another lease"),
                Err(status) => assert_eq!(reason(&status), "LEASE_ENDED", "{news}: {status:?}"),
            }
        }
        // Ids go on above everything that was answered.
        let newest =
            self.issued.lock().unwrap().iter().map(|one| one.lease.id.clone()).max().unwrap_or_default();
        let cut_off = rules.iter().map(|rule| rule.cut_off.clone()).max().unwrap_or_default();
        let next = self.pods[0].issue(&self.teams[0].target).await.unwrap();
        let lease = next.lease.unwrap();
        assert!(lease.id > newest && lease.id > cut_off, "{news}: {} after {newest} and {cut_off}", lease.id);
        self.issued.lock().unwrap().push(Issued { lease, credential: next.credential, team: 0 });
    }

    /// One answered lease is as it must be, as the operator and as the verifier see it.
    async fn check(&self, lease: &v1::Lease, credential: &str, team: usize, news: &str) {
        let found = self.admin.lease(&lease.id).await;
        let found = found.unwrap_or_else(|status| panic!("{news}: lease {} is lost: {status:?}", lease.id));
        let found = as_others_see([found]).remove(0);
        self.check_state(lease, &found, news);
        let told = self.verifiers[team].introspect(credential).await.unwrap();
        assert_eq!(told.lease.as_ref(), Some(&found), "{news}: introspection of {}", lease.id);
        assert_eq!(told.active, found.state() == v1::LeaseState::Active, "{news}: {}", lease.id);
    }

    fn check_state(&self, answered: &v1::Lease, found: &v1::Lease, news: &str) {
        let id = &answered.id;
        let as_answered =
            v1::Lease { state: answered.state, revoked_by: String::new(), ended_at: None, ..found.clone() };
        assert_eq!(&as_answered, answered, "{news}: lease {id} has changed");
        match found.state() {
            v1::LeaseState::Active => {
                assert!(!self.must_be_revoked(answered), "{news}: lease {id} is active again");
            }
            v1::LeaseState::Revoked => {
                let maybe =
                    self.unanswered.lock().unwrap().iter().any(|selector| selects(selector, answered));
                assert!(
                    maybe || self.must_be_revoked(answered),
                    "{news}: nobody revoked lease {id}: {found:?}"
                );
            }
            // Five minutes, in a long run.
            v1::LeaseState::Expired => {}
            other => panic!("{news}: lease {id} is {other:?}"),
        }
    }

    /// Everything that was ever answered is there, by a list.
    async fn check_all(&self, news: &str) {
        let all = v1::ListLeasesRequest { page_size: 1000, ..v1::ListLeasesRequest::default() };
        let all = as_others_see(self.admin.all_leases(all).await.unwrap());
        assert!(all.is_sorted_by(|a, b| a.id < b.id), "{news}: the list is not in order");
        let all: BTreeMap<_, _> = all.into_iter().map(|lease| (lease.id.clone(), lease)).collect();
        for one in self.issued.lock().unwrap().iter() {
            let found =
                all.get(&one.lease.id).unwrap_or_else(|| panic!("{news}: lease {} is lost", one.lease.id));
            self.check_state(&one.lease, found, news);
        }
    }

    /// Everything that was answered since then is there, one by one.
    async fn check_each(&self, since: usize, news: &str) {
        let all: Vec<_> = {
            let issued = self.issued.lock().unwrap();
            issued[since..].iter().map(|one| (one.lease.clone(), one.credential.clone(), one.team)).collect()
        };
        // As many at once as one operator may have under way.
        for some in all.chunks(8) {
            let checks =
                some.iter().map(|(lease, credential, team)| self.check(lease, credential, *team, news));
            join_all(checks).await;
        }
    }
}

fn covers(rule: &v1::Rule, lease: &v1::Lease) -> bool {
    lease.id <= rule.cut_off && selects(rule.selector.as_ref().unwrap(), lease)
}

/// For the two kinds of selectors that are used here.
fn selects(selector: &v1::Selector, lease: &v1::Lease) -> bool {
    if selector.lease.is_empty() { selector.owner == lease.owner } else { selector.lease == lease.id }
}

/// Errors of the connection, and none that the broker gives.
async fn is_of_a_killed_broker(status: &Status) {
    let told = reason(status);
    assert!(told.starts_with('(') || told == "DECISION_OUTRUN" || told == "NOT_READY", "{status:?}");
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Starts it, and kills it before it serves, or a moment after.
async fn killed_while_it_starts(world: &World) {
    let moment = Duration::from_millis(random(400));
    // Giving up on the start kills it.
    if let Ok(started) = tokio::time::timeout(moment, world.broker().launch()).await {
        started.unwrap();
        world.broker().kill9().await.unwrap();
    }
}

/// The store as the killed broker left it is whole: verified in a copy, so that nothing repairs it first.
async fn verify_copy(world: &World, news: &str) {
    let copy = world.broker().dir().join("copy");
    copy_folder(&world.broker().store_dir(), &copy);
    let (status, said) =
        world.broker().command(&["store", "verify", &copy.display().to_string()]).await.unwrap();
    assert!(status.success(), "{news}: {said}");
    std::fs::remove_dir_all(copy).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// A number below this.
fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    SystemRng::new().fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % below
}
