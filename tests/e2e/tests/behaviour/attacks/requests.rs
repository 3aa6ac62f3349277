//! What a pod, or an operator, sends with a good token of its own.

use dayfly_api::v1;
use dayfly_e2e::policy;
use dayfly_e2e::world::{Operator, asking_for, lease_of, owned_by, reason, renewal_of, revocation};
use tonic::Request;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::{Attack, Scene, Teams, asking_by};

const INVALID: &str = "INVALID_FIELD";

/// Ways to write a name so that a careless reader takes it for this one.
fn disguises(name: &str) -> Vec<String> {
    let first = name.get(..1).unwrap_or_default();
    let fullwidth =
        first.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap_or(c)).collect::<String>();
    let rest = name.get(1..).unwrap_or_default();
    vec![
        name.to_uppercase(),
        format!("{name}."),
        format!("{name} "),
        format!(" {name}"),
        format!("{name}\0"),
        format!("{name}\n"),
        format!("{name}\u{200b}"),
        format!("{name}\u{301}"),
        format!("%{:02x}{rest}", first.bytes().next().unwrap_or_default()),
        format!("{fullwidth}{rest}"),
        name.replacen('a', "а", 1).replacen('e', "е", 1),
        format!("../{name}"),
        format!("{name}/"),
        "*".to_owned(),
    ]
}

/// Those of them that a scope or an audience, which are any printable ASCII, may be: other ones.
fn other_words(name: &str) -> Vec<String> {
    let printable = |text: &String| text.bytes().all(|b| (0x21..=0x7e).contains(&b));
    disguises(name).into_iter().filter(printable).collect()
}

/// And those that it may not.
fn no_words(name: &str) -> Vec<String> {
    let printable = |text: &String| text.bytes().all(|b| (0x21..=0x7e).contains(&b));
    disguises(name).into_iter().filter(|text| !printable(text)).collect()
}

fn of_scopes(teams: &Teams, scopes: Vec<String>) -> Vec<v1::IssueRequest> {
    let of = |scope| v1::IssueRequest { scope: vec![scope], ..asking_for(&teams.attacker.target) };
    scopes.into_iter().map(of).collect()
}

fn of_audiences(teams: &Teams, audiences: Vec<String>) -> Vec<v1::IssueRequest> {
    let of = |audience| v1::IssueRequest { audience, ..asking_for(&teams.attacker.target) };
    audiences.into_iter().map(of).collect()
}

/// What the attacker's pod asks for.
const ISSUES: &[Attack<Teams, v1::IssueRequest>] = &[
    Attack {
        name: "target-of-another-team",
        gets: "GRANT_MISSING",
        sends: |t| vec![asking_for(&t.victim.target)],
    },
    Attack {
        name: "target-unicode-and-case",
        gets: INVALID,
        sends: |t| {
            let twice = [t.attacker.target.as_str(), &t.victim.target].map(disguises);
            twice.concat().iter().map(|target| asking_for(target)).collect()
        },
    },
    Attack {
        name: "grant-of-another-namespace",
        gets: "GRANT_UNKNOWN",
        sends: |t| {
            vec![asking_by("api-secrets", &t.victim.target), asking_by("api-secrets", &t.attacker.target)]
        },
    },
    Attack {
        name: "grant-unicode-and-case",
        gets: INVALID,
        sends: |t| {
            let qualified = format!("{}/api-ledger", t.victim.namespace);
            let names = disguises("api-ledger").into_iter().chain([qualified]);
            names.map(|grant| asking_by(&grant, &t.attacker.target)).collect()
        },
    },
    Attack {
        name: "scope-not-in-the-grant",
        gets: "SCOPE_NOT_GRANTED",
        sends: |t| {
            of_scopes(
                t,
                [
                    other_words("read"),
                    vec!["list".to_owned(), "read,write".to_owned(), "read+write".to_owned()],
                ]
                .concat(),
            )
        },
    },
    Attack {
        name: "scope-unicode-and-space",
        gets: INVALID,
        sends: |t| {
            of_scopes(
                t,
                [no_words("read"), vec!["read write".to_owned(), "read\\".to_owned(), String::new()]]
                    .concat(),
            )
        },
    },
    Attack {
        name: "audience-not-in-the-target",
        gets: "AUDIENCE_NOT_GRANTED",
        sends: |t| {
            let others = [
                "dayfly",
                "dayfly-operator",
                "dayfly-verifier",
                "https://kubernetes.default.svc.cluster.local",
            ];
            let others = others.map(str::to_owned).to_vec();
            of_audiences(
                t,
                [
                    other_words(&policy::audience(&t.attacker.target)),
                    others,
                    vec![policy::audience(&t.victim.target)],
                ]
                .concat(),
            )
        },
    },
    Attack {
        name: "audience-unicode-and-space",
        gets: INVALID,
        sends: |t| {
            let audience = policy::audience(&t.attacker.target);
            of_audiences(t, [no_words(&audience), vec![format!("{audience} dayfly")]].concat())
        },
    },
    Attack {
        name: "fields-oversized",
        gets: INVALID,
        sends: |t| {
            let good = asking_for(&t.attacker.target);
            let scopes = (0..65).map(|n| format!("s{n}")).collect();
            let ttl = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
            vec![
                asking_for(&"t".repeat(64)),
                asking_by(&"g".repeat(254), &t.attacker.target),
                v1::IssueRequest { scope: scopes, ..good.clone() },
                v1::IssueRequest { scope: vec!["s".repeat(129)], ..good.clone() },
                v1::IssueRequest { audience: "a".repeat(256), ..good.clone() },
                v1::IssueRequest { idempotency_key: "k".repeat(65), ..good.clone() },
                v1::IssueRequest { idempotency_key: "é".repeat(33), ..good.clone() },
                v1::IssueRequest { ttl: ttl(i64::MAX), ..good.clone() },
                v1::IssueRequest { ttl: ttl(24 * 3600 + 1), ..good.clone() },
                v1::IssueRequest { ttl: ttl(-60), ..good },
            ]
        },
    },
    Attack {
        name: "message-oversized",
        gets: "REQUEST_MALFORMED",
        sends: |t| {
            let audience = "a".repeat(64 * 1024);
            let scope = vec!["s".repeat(1024); 100];
            let good = asking_for(&t.attacker.target);
            vec![v1::IssueRequest { audience, ..good.clone() }, v1::IssueRequest { scope, ..good }]
        },
    },
];

/// Entries of a call's metadata.
type Entries = Vec<(&'static str, Vec<u8>)>;

/// What is in a call's metadata; `TOKEN` stands for the attacker's own.
const METADATA: &[Attack<(), Entries>] = &[
    Attack {
        name: "cluster-of-another-name",
        gets: "TOKEN_ISSUER_UNKNOWN",
        sends: |()| with_cluster(&["west", "east-1", "e"]),
    },
    Attack {
        name: "cluster-unicode-and-case",
        gets: INVALID,
        sends: |()| {
            let long = "e".repeat(64);
            with_cluster(&[
                "EAST",
                "east.",
                "ea%73t",
                "еast",
                "ｅast",
                "east,west",
                "../east",
                "*",
                "",
                &long,
                &"e".repeat(4000),
            ])
        },
    },
    Attack {
        name: "identity-by-metadata",
        gets: "TOKEN_MISSING",
        sends: |()| {
            let headers = [
                ("x-remote-user", "system:admin"),
                ("impersonate-user", "system:admin"),
                ("x-forwarded-user", "admin"),
                ("x-forwarded-client-cert", "URI=spiffe://prod.example.org/ns/a/sa/b"),
                ("cookie", "token=TOKEN"),
                ("proxy-authorization", "Bearer TOKEN"),
                ("x-authorization", "Bearer TOKEN"),
                ("authorization", "Basic TOKEN"),
                ("authorization", "TOKEN"),
                ("authorization", "Bearer"),
            ];
            headers.map(|(name, value)| vec![(name, value.as_bytes().to_vec())]).to_vec()
        },
    },
    Attack {
        name: "two-tokens",
        gets: "TOKEN_MISSING",
        sends: |()| {
            let good = ("authorization", b"Bearer TOKEN".to_vec());
            let bad = ("authorization", b"Bearer sesame".to_vec());
            vec![vec![good.clone(), bad.clone()], vec![bad, good.clone()], vec![good.clone(), good]]
        },
    },
];

fn with_cluster(names: &[&str]) -> Vec<Entries> {
    let of = |name: &&str| {
        vec![("authorization", b"Bearer TOKEN".to_vec()), ("dayfly-cluster", name.as_bytes().to_vec())]
    };
    names.iter().map(of).collect()
}

/// What an operator with the right over the attacker's Owner alone sends.
const REVOCATIONS: &[Attack<(Teams, String), v1::RevokeRequest>] = &[
    Attack {
        name: "operator-without-the-right",
        gets: "NOT_ALLOWED",
        sends: |(teams, lease)| {
            let victim = &teams.victim;
            let selectors = [
                owned_by(&victim.owner),
                lease_of(lease),
                v1::Selector { all: true, ..v1::Selector::default() },
                v1::Selector { namespace: victim.namespace.clone(), ..v1::Selector::default() },
                v1::Selector { target: victim.target.clone(), ..v1::Selector::default() },
                v1::Selector { cluster: "east".to_owned(), ..v1::Selector::default() },
            ];
            selectors.map(|selector| revocation(selector, v1::After::Hold)).to_vec()
        },
    },
    Attack {
        name: "selector-unicode-and-case",
        gets: INVALID,
        sends: |(teams, _)| {
            disguises(&teams.attacker.owner)
                .iter()
                .map(|owner| revocation(owned_by(owner), v1::After::Hold))
                .collect()
        },
    },
    Attack {
        name: "selector-of-nothing",
        gets: "SELECTOR_EMPTY",
        sends: |_| vec![revocation(v1::Selector::default(), v1::After::Hold)],
    },
    Attack {
        name: "reason-oversized-or-hidden",
        gets: INVALID,
        sends: |(teams, _)| {
            let reasons = [
                "r".repeat(513),
                "é".repeat(257),
                "a\nb".to_owned(),
                "\u{1b}[2K".to_owned(),
                " ".to_owned(),
                String::new(),
            ];
            let of = |reason| v1::RevokeRequest {
                reason,
                ..revocation(owned_by(&teams.attacker.owner), v1::After::Hold)
            };
            reasons.map(of).to_vec()
        },
    },
    Attack {
        name: "revocation-key-oversized",
        gets: INVALID,
        sends: |(teams, _)| {
            let idempotency_key = "k".repeat(65);
            vec![v1::RevokeRequest {
                idempotency_key,
                ..revocation(owned_by(&teams.attacker.owner), v1::After::Hold)
            }]
        },
    },
];

/// Another pod's lease and key, in the hands of the attacker's pod.
const OTHERS: &[(&str, &str)] = &[("lease-of-another-pod", "NOT_FOUND"), ("lease-id-games", INVALID)];

pub(super) fn names() -> Vec<(&'static str, &'static str)> {
    let issues = ISSUES.iter().map(|attack| (attack.name, attack.gets));
    let metadata = METADATA.iter().map(|attack| (attack.name, attack.gets));
    let revocations = REVOCATIONS.iter().map(|attack| (attack.name, attack.gets));
    issues.chain(metadata).chain(revocations).chain(OTHERS.iter().copied()).collect()
}

pub(super) async fn run(scene: &Scene<'_>) {
    let (world, teams) = (scene.world, &scene.teams);
    let mut secret = teams.victim.grant_object.clone();
    secret["metadata"]["name"] = "api-secrets".into();
    secret["spec"]["serviceAccounts"] = serde_json::json!(["gate"]);
    world.put(&[&secret]).await.unwrap();
    for attack in ISSUES {
        for request in (attack.sends)(teams) {
            let what = format!("{}: {:.300}", attack.name, format!("{request:?}"));
            assert_eq!(scene.ask(&scene.attacker, request).await, attack.gets, "{what}");
        }
    }
    metadata(scene).await;
    revocations(scene).await;
    leases(scene).await;
}

async fn metadata(scene: &Scene<'_>) {
    let token = scene.attacker.token().await.unwrap();
    for attack in METADATA {
        for entries in (attack.sends)(&()) {
            let mut request = Request::new(asking_for(&scene.teams.attacker.target));
            for (name, value) in &entries {
                let value = String::from_utf8_lossy(value).replace("TOKEN", &token);
                append(request.metadata_mut(), name, value.as_bytes());
            }
            let answer = scene.world.workloads().issue(request).await;
            let Err(refused) = answer else { panic!("{} was let in", attack.name) };
            let what =
                entries.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
            assert_eq!(reason(&refused), attack.gets, "{}: {:?}", attack.name, what.collect::<Vec<_>>());
        }
    }
}

fn append(metadata: &mut MetadataMap, name: &'static str, value: &[u8]) {
    metadata.append(name, AsciiMetadataValue::try_from(value).unwrap());
}

async fn revocations(scene: &Scene<'_>) {
    let (world, victim) = (scene.world, &scene.teams.victim);
    let operator: Operator = world.operator(&["revoke"], Some(&scene.teams.attacker.owner)).await.unwrap();
    let lease = scene.honest.issue(&victim.target).await.unwrap().lease.unwrap().id;
    let who = user_of(operator.token());
    let copy = Teams { victim: victim.clone(), attacker: scene.teams.attacker.clone() };
    let given = (copy, lease);
    for attack in REVOCATIONS {
        for request in (attack.sends)(&given) {
            let what = format!("{}: {request:?}", attack.name);
            assert_eq!(scene.got(&who, operator.ask(request).await), attack.gets, "{what}");
        }
    }
}

/// As the audit log names the user of a token.
fn user_of(token: &str) -> String {
    let claims = dayfly_e2e::jwt::read(token).unwrap().claims;
    format!("{}@{}", claims["sub"].as_str().unwrap(), dayfly_e2e::broker::CLUSTER)
}

async fn leases(scene: &Scene<'_>) {
    let (pod, victim) = (&scene.attacker, &scene.teams.victim);
    let who = Scene::workload(pod);
    let issued = scene.honest.issue(&victim.target).await.unwrap();
    let lease = issued.lease.unwrap().id;
    let games = [
        lease.replace('-', ""),
        format!("{{{lease}}}"),
        format!("{lease}\0"),
        format!("urn:uuid:{lease}"),
        String::new(),
    ];
    let sent = games.iter().map(|id| (id.as_str(), INVALID)).chain([(lease.as_str(), "NOT_FOUND")]);
    for (id, gets) in sent {
        let renewed = scene.got(&who, pod.ask_to_renew(renewal_of(id)).await.unwrap());
        let released = scene.got(&who, pod.release(id).await.unwrap());
        assert_eq!((renewed.as_str(), released.as_str()), (gets, gets), "{id:?}");
    }
    let verifier = scene.world.verifier(&victim.namespace, "gate").await.unwrap();
    assert!(verifier.introspect(&issued.credential).await.unwrap().active);
}
