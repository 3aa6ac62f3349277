//! A storm: clients that do everything at once, and what disturbs the broker meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dayfly_api::v1;
use dayfly_api::v1::operator_service_client::OperatorServiceClient;
use dayfly_api::v1::verifier_service_client::VerifierServiceClient;
use dayfly_api::v1::workload_service_client::WorkloadServiceClient;
use dayfly_core::clock::SystemClock;
use dayfly_core::ports::Clock as _;
use dayfly_e2e::world::{VERIFIER, World, asking_for, bearing, owned_by, reason, renewal_of, revocation};
use futures_util::future::join_all;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::dice::Dice;
use crate::history::{History, Record};

/// Clients of a storm.
pub(crate) const CLIENTS: usize = 10;
/// Owners that they act for.
pub(crate) const OWNERS: usize = 3;
/// Answered operations of a storm.
pub(crate) const OPERATIONS: u64 = 5_000;
/// What is looked at or renewed is mostly one of the latest.
const LATEST: usize = 30;
/// No call takes so long that is still answered.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// The limits of a broker in a storm.
pub(crate) const LIMITS: [(&str, u64); 8] = [
    ("live_leases_per_pod", 1_000_000),
    ("live_leases_per_workload", 1_000_000),
    ("calls_of_one_pod", 1_000),
    ("calls_of_one_caller", 1_000),
    ("operator_calls_at_once", 1_000),
    ("operator_calls_of_one_namespace", 1_000),
    ("calls_of_one_operator", 1_000),
    ("revocations_at_once", 1_000),
];

/// What happens to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    None,
    KillsAndJumps,
}

enum Event {
    /// kill -9, and a new start.
    Kill,
    /// The clock goes ahead by so many seconds, for a while. Above 300 it is a jump.
    Ahead(i64),
}

/// One storm: owners of its own, and what is known of their leases.
pub(crate) struct Storm<'w> {
    world: &'w World,
    owners: Vec<Owned>,
    admin: String,
    clock: SystemClock,
    answered: AtomicU64,
    down: AtomicBool,
    records: Mutex<Vec<Record>>,
}

/// An owner, and the tokens of a pod and of a verifier of its one target.
struct Owned {
    owner: String,
    target: String,
    pod: String,
    verifier: String,
    leases: Mutex<Vec<Known>>,
}

#[derive(Clone)]
struct Known {
    lease: String,
    credential: String,
}

/// A client, with a connection of its own.
struct Client<'s> {
    storm: &'s Storm<'s>,
    number: usize,
    dice: Dice,
    workloads: WorkloadServiceClient<Channel>,
    verifiers: VerifierServiceClient<Channel>,
    operators: OperatorServiceClient<Channel>,
}

impl<'w> Storm<'w> {
    /// So many, whose policy is in force.
    pub(crate) async fn prepare(world: &'w World, storms: usize) -> Vec<Self> {
        let mut all = Vec::new();
        let mut objects = Vec::new();
        for storm in 0..storms {
            let mut owners = Vec::new();
            for name in ["payments", "orders", "search"].iter().take(OWNERS) {
                let mut team = world.unsettled_team(&format!("{name}-{storm}")).await.unwrap();
                // Nothing expires in a storm but by its renewal.
                team.grant_object["spec"]["defaultTtl"] = "55m".into();
                team.grant_object["spec"]["maxTtl"] = "55m".into();
                let pod = world.pod(&team.namespace, "api").await.unwrap();
                let gate = world.pod(&team.namespace, "gate").await.unwrap();
                owners.push(Owned {
                    owner: team.owner.clone(),
                    target: team.target.clone(),
                    pod: pod.token().await.unwrap(),
                    verifier: gate.token_for(VERIFIER).await.unwrap(),
                    leases: Mutex::default(),
                });
                objects.extend([team.owner_object, team.target_object, team.grant_object]);
            }
            all.push(Self {
                world,
                owners,
                admin: world.admin().await.unwrap().token().to_owned(),
                clock: SystemClock::new(),
                answered: AtomicU64::new(0),
                down: AtomicBool::new(false),
                records: Mutex::default(),
            });
        }
        world.put(&objects.iter().collect::<Vec<_>>()).await.unwrap();
        all
    }

    /// Runs it to its end.
    pub(crate) async fn run(&mut self, disturbance: Disturbance, seed: u64) -> History {
        let started = self.clock.monotonic();
        let storm = &*self;
        let clients = join_all((0..CLIENTS).map(|number| async move {
            let mut client = Client::new(storm, number, seed);
            client.act_until_done().await;
        }));
        let (_, (kills, jumps)) = tokio::join!(clients, self.disturb(disturbance, seed));
        let took = self.clock.monotonic().saturating_sub(started);
        History { records: std::mem::take(&mut *self.records.lock().unwrap()), took, kills, jumps }
    }

    fn is_done(&self) -> bool {
        self.answered.load(Ordering::Relaxed) >= OPERATIONS
    }

    async fn disturb(&self, disturbance: Disturbance, seed: u64) -> (usize, usize) {
        let (mut kills, mut jumps) = (0, 0);
        if disturbance == Disturbance::None {
            return (kills, jumps);
        }
        let mut client = Client::new(self, CLIENTS, seed);
        let ahead = |dice: &mut Dice, from, to: i64| {
            Event::Ahead(from + i64::try_from(dice.below(u64::try_from(to - from).unwrap())).unwrap())
        };
        for hundredths in [8, 20, 34, 48, 62, 76] {
            let event = match hundredths {
                20 | 48 | 76 => Event::Kill,
                34 => ahead(&mut client.dice, 400, 900),
                _ => ahead(&mut client.dice, 30, 280),
            };
            let at = OPERATIONS * (hundredths + client.dice.below(10)) / 100;
            self.until_answered(at).await;
            match event {
                Event::Kill => {
                    client.revoke_while_it_is_killed().await;
                    kills += 1;
                }
                Event::Ahead(secs) => {
                    self.world.broker().set_clock(secs).unwrap();
                    self.until_answered(self.answered.load(Ordering::Relaxed) + 150).await;
                    self.world.broker().set_clock(0).unwrap();
                    jumps += 1;
                }
            }
        }
        (kills, jumps)
    }

    async fn until_answered(&self, answered: u64) {
        while self.answered.load(Ordering::Relaxed) < answered.min(OPERATIONS) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl<'s> Client<'s> {
    fn new(storm: &'s Storm<'s>, number: usize, seed: u64) -> Self {
        let channel = storm.world.broker().another_channel().unwrap();
        Self {
            storm,
            number,
            dice: Dice::of(seed, u64::try_from(number).unwrap()),
            workloads: WorkloadServiceClient::new(channel.clone()),
            verifiers: VerifierServiceClient::new(channel.clone()),
            operators: OperatorServiceClient::new(channel),
        }
    }

    async fn act_until_done(&mut self) {
        while !self.storm.is_done() {
            if self.storm.down.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            }
            let owned = &self.storm.owners[self.dice.place(OWNERS)];
            let known = self.choose(owned);
            match (self.dice.below(100), known) {
                (0..3, _) => self.revoke(owned).await,
                (3..48, Some(known)) => self.introspect(owned, known).await,
                (48..63, Some(known)) => self.renew(owned, known).await,
                _ => self.issue(owned).await,
            }
        }
    }

    fn choose(&mut self, owned: &Owned) -> Option<Known> {
        let leases = owned.leases.lock().unwrap();
        let from = if self.dice.below(10) == 0 { 0 } else { leases.len().saturating_sub(LATEST) };
        let some = &leases[from..];
        (!some.is_empty()).then(|| some[self.dice.place(some.len())].clone())
    }

    async fn issue(&mut self, owned: &Owned) {
        let call = self.workloads.issue(bearing(&owned.pod, asking_for(&owned.target)));
        let record = record(self.number, owned, "issue", String::new());
        let answered = answered(self.storm, record, call, |record, answer| {
            let lease = answer.lease.as_ref().unwrap();
            (record.answer, record.id) = ("issued", lease.id.clone());
        });
        if let Some(v1::IssueResponse { lease, credential, .. }) = answered.await {
            owned.leases.lock().unwrap().push(Known { lease: lease.unwrap().id, credential });
        }
    }

    async fn renew(&mut self, owned: &Owned, Known { lease, .. }: Known) {
        let call = self.workloads.renew(bearing(&owned.pod, renewal_of(&lease)));
        let record = record(self.number, owned, "renew", lease);
        let answered = answered(self.storm, record, call, |record, answer| {
            let lease = answer.lease.as_ref().unwrap();
            (record.answer, record.id) = ("issued", lease.id.clone());
        });
        if let Some(v1::RenewResponse { lease, credential, .. }) = answered.await {
            owned.leases.lock().unwrap().push(Known { lease: lease.unwrap().id, credential });
        }
    }

    async fn introspect(&mut self, owned: &Owned, Known { lease, credential }: Known) {
        let request = v1::IntrospectRequest { credential };
        let call = self.verifiers.introspect(bearing(&owned.verifier, request));
        let record = record(self.number, owned, "introspect", lease);
        answered(self.storm, record, call, |record, answer| {
            record.position = answer.position;
            let state = answer.lease.as_ref().map(v1::Lease::state);
            assert_eq!(answer.active, state == Some(v1::LeaseState::Active), "{answer:?}");
            record.answer = match state {
                Some(v1::LeaseState::Active) => "active",
                Some(v1::LeaseState::Revoked) => "revoked",
                Some(v1::LeaseState::Expired) => "expired",
                _ => "unknown",
            };
            record.id = answer.lease.as_ref().map(|lease| lease.revoked_by.clone()).unwrap_or_default();
        })
        .await;
    }

    async fn revoke(&mut self, owned: &Owned) {
        let request = revocation(owned_by(&owned.owner), v1::After::Reissue);
        let call = self.operators.revoke(bearing(&self.storm.admin, request));
        let record = record(self.number, owned, "revoke", String::new());
        answered(self.storm, record, call, |record, answer| {
            let rule = answer.rule.as_ref().unwrap();
            record.answer = "rule";
            (record.id, record.cut_off) = (rule.id.clone(), rule.cut_off.clone());
            record.position = rule.position;
        })
        .await;
    }

    /// Kills the broker while everything is under way and a revocation too, and starts it again.
    async fn revoke_while_it_is_killed(&mut self) {
        let storm = self.storm;
        let owned = &storm.owners[self.dice.place(OWNERS)];
        let moment = Duration::from_micros(self.dice.below(8_000));
        let kill = async {
            tokio::time::sleep(moment).await;
            storm.world.broker().kill9().await.unwrap();
            storm.down.store(true, Ordering::Relaxed);
        };
        tokio::join!(self.revoke(owned), kill);
        storm.world.broker().launch().await.unwrap();
        storm.down.store(false, Ordering::Relaxed);
    }
}

fn record(client: usize, owned: &Owned, op: &'static str, lease: String) -> Record {
    Record { client, owner: owned.owner.clone(), op, lease, ..Record::default() }
}

/// Makes the call, and records it with its answer. Gives what was answered, where it was neither refused nor lost.
async fn answered<T>(
    storm: &Storm<'_>,
    mut record: Record,
    call: impl Future<Output = Result<Response<T>, Status>>,
    note: impl FnOnce(&mut Record, &T),
) -> Option<T> {
    let now = || u64::try_from(storm.clock.monotonic().as_nanos()).unwrap();
    record.call = now();
    let answer = match tokio::time::timeout(LONGEST_CALL, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::cancelled("no answer")),
    };
    let at = now();
    let (given, pause) = match answer {
        Ok(answer) => {
            record.r#return = Some(at);
            note(&mut record, &answer);
            storm.answered.fetch_add(1, Ordering::Relaxed);
            (Some(answer), None)
        }
        // Whether it was done is not known.
        Err(status) if reason(&status).starts_with('(') => (None, Some(10)),
        Err(status) => {
            record.r#return = Some(at);
            (record.answer, record.reason) = ("refused", reason(&status));
            (None, Some(2))
        }
    };
    storm.records.lock().unwrap().push(record);
    if let Some(millis) = pause {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    given
}
