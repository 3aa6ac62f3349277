//! Attacks on identity and policy, by name: what is sent, and the reason that it gets.
//!
//! `docs/explanation/threat-model.md` lists them all, with those that are tests elsewhere; `threat_model.rs` holds the two
//! together.
//!
//! | table | who | what is sent |
//! |---|---|---|
//! | `forgeries.rs` | anybody | tokens that no cluster made, or made for another use |
//! | `requests.rs` | a pod, an operator | requests with their own good tokens |
//! | `objects.rs` | who writes policy for a team | Grants, Targets and Owners |
//! | `pods.rs` | a pod's author | pods that say they are another's |

mod forgeries;
mod objects;
mod pods;
mod requests;
mod stolen;
mod threat_model;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dayfly_api::v1;
use dayfly_core::audit::EventKind;
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ids::Position;
use dayfly_core::ports::LeaseStore as _;
use dayfly_e2e::broker::{CLUSTER, Options};
use dayfly_e2e::cluster::Kind;
use dayfly_e2e::world::{Pod, Team, World, asking_for, reason};
use dayfly_store::SledStore;
use tonic::{Code, Status};

on_both!(every_attack_gets_its_reason_and_the_honest_pod_is_served);

/// A named attack: what is sent, one by one, and the reason that each gets.
struct Attack<S: 'static, T: 'static> {
    name: &'static str,
    gets: &'static str,
    sends: fn(&S) -> Vec<T>,
}

/// The name and the reason of every attack in the tables.
fn all() -> Vec<(&'static str, &'static str)> {
    let tables = [forgeries::names(), requests::names(), objects::names(), pods::names()];
    tables.into_iter().flatten().collect()
}

/// Two teams beside each other, and how often which caller was denied for what.
struct Scene<'w> {
    world: &'w World,
    teams: Teams,
    honest: Pod<'w>,
    attacker: Pod<'w>,
    denied: Mutex<Denials>,
}

/// Who, and the reason.
type Denials = BTreeMap<(String, String), u64>;

/// The one that is attacked, and the attacker's own.
struct Teams {
    victim: Team,
    attacker: Team,
}

impl<'w> Scene<'w> {
    async fn set(world: &'w World) -> Self {
        let teams = Teams {
            victim: world.team("victim").await.unwrap(),
            attacker: world.team("attacker").await.unwrap(),
        };
        // So that its own token is of use to each service, and a stolen one would be.
        world.cluster().allow(&teams.victim.namespace, "api", &["list"], None).await.unwrap();
        let honest = world.pod(&teams.victim.namespace, "api").await.unwrap();
        let attacker = world.pod(&teams.attacker.namespace, "api").await.unwrap();
        Self { world, teams, honest, attacker, denied: Mutex::default() }
    }

    /// The reason that an attack got, counted where its caller was verified and refused.
    fn got<T>(&self, who: &str, answer: Result<T, Status>) -> String {
        let Err(status) = answer else { return "all that was asked for".to_owned() };
        if matches!(status.code(), Code::PermissionDenied | Code::NotFound) {
            *self.denied.lock().unwrap().entry((who.to_owned(), reason(&status))).or_default() += 1;
        }
        reason(&status)
    }

    /// As the audit log names the workload of a pod.
    fn workload(pod: &Pod<'_>) -> String {
        format!("{CLUSTER}:{}:{}", pod.namespace, pod.service_account)
    }

    /// What a pod got that asks for this.
    async fn ask(&self, pod: &Pod<'_>, request: v1::IssueRequest) -> String {
        let answer = pod.ask(request).await.unwrap();
        self.got(&Self::workload(pod), answer)
    }

    /// The honest pod gets what it always got.
    async fn the_honest_pod_is_served(&self) {
        let lease = self.honest.issue(&self.teams.victim.target).await.unwrap().lease.unwrap();
        let given = (lease.owner.as_str(), lease.scope.as_slice(), lease.narrowed_owner.as_str());
        let scope = ["read", "write"].map(str::to_owned);
        assert_eq!(given, (self.teams.victim.owner.as_str(), scope.as_slice(), ""));
    }
}

async fn every_attack_gets_its_reason_and_the_honest_pod_is_served(kind: Kind) {
    let world = World::with_own_broker(kind, Options::default()).await.unwrap();
    let scene = Scene::set(&world).await;
    scene.the_honest_pod_is_served().await;
    forgeries::run(&scene).await;
    scene.the_honest_pod_is_served().await;
    requests::run(&scene).await;
    scene.the_honest_pod_is_served().await;
    objects::run(&scene).await;
    scene.the_honest_pod_is_served().await;
    pods::run(&scene).await;
    scene.the_honest_pod_is_served().await;
    // Every refusal of a verified caller is in the audit log, and nothing of the others.
    world.broker().stop().await.unwrap();
    assert_eq!(denials_in_the_log(&world).await, *scene.denied.lock().unwrap());
}

/// What the audit log says of denials; every detail is the one that its leaf binds.
async fn denials_in_the_log(world: &World) -> Denials {
    let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng::new()));
    let options = dayfly_store::Options::new(world.broker().store_dir(), clock, rng);
    let store = SledStore::open(options).unwrap();
    let (mut denials, mut next) = (Denials::new(), Position::ZERO.next());
    loop {
        let records = store.events(next, 256).await.unwrap();
        if records.is_empty() {
            return denials;
        }
        for record in records {
            let event = record.read().unwrap();
            next = event.position.next();
            if let Some(detail) = event.detail.filter(|_| event.kind == EventKind::Denied) {
                let who = detail.workload + &detail.actor;
                *denials.entry((who, detail.reason)).or_default() += detail.count;
            }
        }
    }
}

/// A request of all that this Grant has.
fn asking_by(grant: &str, target: &str) -> v1::IssueRequest {
    v1::IssueRequest { grant: grant.to_owned(), ..asking_for(target) }
}
