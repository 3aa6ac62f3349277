//! What somebody writes who may write policy for a team: each object is in force beside all the others, which hold.

use dayfly_e2e::policy;
use dayfly_e2e::world::{Pod, asking_for, reason};
use serde_json::{Value, json};

use super::{Attack, Scene, Teams, asking_by};

const NO_GRANT: &str = "GRANT_UNKNOWN";
const NO_TARGET: &str = "TARGET_UNKNOWN";
const CEILING: &str = "SCOPE_ABOVE_CEILING";

/// The teams, and an audience of the cluster's API server.
type Given = (Teams, String);

fn grant(teams: &Teams, change: impl FnOnce(&mut Value)) -> Value {
    let mut grant = teams.attacker.grant_object.clone();
    change(&mut grant["spec"]);
    grant
}

fn target(teams: &Teams, change: impl FnOnce(&mut Value)) -> Value {
    let mut target = teams.attacker.target_object.clone();
    change(&mut target["spec"]);
    target
}

fn claiming<'a>(teams: &Teams, names: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
    let of = |name: &str| grant(teams, |spec| spec["claims"] = json!({ name: "system:admin" }));
    names.into_iter().map(of).collect()
}

fn entry(teams: &Teams, field: &str, value: &Value) -> Value {
    target(teams, |spec| {
        let entry = spec["ceiling"][0].as_object_mut().unwrap();
        if field == "owners" {
            entry.remove("namespaces");
        }
        entry.insert(field.to_owned(), value.clone());
    })
}

/// Grants of the attacker's namespace, and Targets with a Grant for each. A Grant is asked for by its name.
const OBJECTS: &[Attack<Given, Value>] = &[
    Attack {
        name: "claim-registered",
        gets: NO_GRANT,
        sends: |(t, _)| {
            claiming(
                t,
                [
                    "iss",
                    "sub",
                    "aud",
                    "exp",
                    "nbf",
                    "iat",
                    "jti",
                    "scope",
                    "client_id",
                    "groups",
                    "roles",
                    "azp",
                    "email",
                ],
            )
        },
    },
    Attack {
        name: "claim-cnf-or-act",
        gets: NO_GRANT,
        sends: |(t, _)| claiming(t, ["cnf", "act", "may_act"]),
    },
    Attack {
        name: "claim-of-dayfly",
        gets: NO_GRANT,
        sends: |(t, _)| claiming(t, ["dayfly", "owner", "kubernetes.io"]),
    },
    Attack {
        name: "claim-case-and-unicode",
        gets: NO_GRANT,
        sends: |(t, _)| {
            claiming(
                t,
                [
                    "SUB",
                    "Aud",
                    "CNF",
                    "DayFly",
                    "sCope",
                    "ѕub",
                    "ｓub",
                    "sub\0",
                    "sub ",
                    " sub",
                    "s\u{200b}ub",
                    "%73ub",
                    "",
                ],
            )
        },
    },
    Attack {
        name: "claim-that-is-no-text",
        gets: NO_GRANT,
        sends: |(t, _)| {
            let values =
                [json!({ "sub": "a" }), json!([["a"]]), json!([{ "sub": "a" }]), json!(null), json!([])];
            values.map(|value| grant(t, |spec| spec["claims"] = json!({ "tier": value }))).to_vec()
        },
    },
    Attack {
        name: "claim-above-the-ceiling",
        gets: "CLAIM_ABOVE_CEILING",
        sends: |(t, _)| {
            let claims = [
                json!({ "tier": "platinum" }),
                json!({ "admin": "yes" }),
                json!({ "tier": ["gold", "*"] }),
                json!({ "Tier": "gold" }),
            ];
            claims.map(|claims| grant(t, |spec| spec["claims"] = claims)).to_vec()
        },
    },
    Attack {
        name: "claims-oversized",
        gets: NO_GRANT,
        sends: |(t, _)| {
            let many: Value =
                (0..33).map(|n| (format!("c{n}"), json!("a"))).collect::<serde_json::Map<_, _>>().into();
            let long = "c".repeat(129);
            let large =
                json!({ "tier": (0..10).map(|n| format!("{n}{}", "v".repeat(300))).collect::<Vec<_>>() });
            [many, json!({ long: "a" }), json!({ "tier": "v".repeat(513) }), large, json!({ "tier": "a\nb" })]
                .map(|claims| grant(t, |spec| spec["claims"] = claims))
                .to_vec()
        },
    },
    Attack {
        name: "grant-for-anothers-account",
        gets: NO_GRANT,
        sends: |(t, _)| {
            let (namespace, account) = (&t.victim.namespace, "api");
            let names = [
                format!("{namespace}/{account}"),
                format!("{namespace}:{account}"),
                format!("east:{namespace}:{account}"),
                format!("system:serviceaccount:{namespace}:{account}"),
                format!("../{namespace}/{account}"),
            ];
            names.map(|name| grant(t, |spec| spec["serviceAccounts"] = json!([name]))).to_vec()
        },
    },
    Attack {
        name: "grant-of-wildcards",
        gets: NO_GRANT,
        sends: |(t, _)| {
            vec![
                grant(t, |spec| spec["serviceAccounts"] = json!(["*"])),
                grant(t, |spec| spec["serviceAccounts"] = json!([])),
                grant(t, |spec| spec["serviceAccountLabels"] = json!([{}])),
                grant(t, |spec| spec["serviceAccountLabels"] = json!([{ "app": "*" }])),
                grant(t, |spec| spec["target"] = json!("*")),
            ]
        },
    },
    Attack {
        name: "grant-of-unknown-fields",
        gets: NO_GRANT,
        sends: |(t, _)| {
            let fields = ["namespaces", "owner", "admin", "ServiceAccounts", "maxTTL"];
            let all = fields.map(|field| grant(t, |spec| spec[field] = json!(["a"])));
            let conditions = grant(t, |spec| spec["conditions"] = json!(["true"]));
            all.into_iter().chain([conditions]).collect()
        },
    },
    Attack {
        name: "grant-names-unicode-and-case",
        gets: NO_GRANT,
        sends: |(t, _)| {
            ["API", "api.", "аpi", "ａpi", "api\0", "%61pi", "api "]
                .map(|name| grant(t, |spec| spec["serviceAccounts"] = json!([name])))
                .to_vec()
        },
    },
    Attack {
        name: "grant-scopes-oversized",
        gets: NO_GRANT,
        sends: |(t, _)| {
            let many: Vec<_> = (0..65).map(|n| format!("s{n}")).collect();
            [json!(many), json!(["s".repeat(129)]), json!(["read write"]), json!(["read", "read"]), json!([])]
                .map(|scope| grant(t, |spec| spec["scope"] = scope))
                .to_vec()
        },
    },
    Attack {
        name: "grant-that-never-ends",
        gets: NO_GRANT,
        sends: |(t, _)| {
            ["25h", "0s", "-5m", "1000000h", "forever", "1s"]
                .map(|ttl| grant(t, |spec| spec["maxTtl"] = json!(ttl)))
                .to_vec()
        },
    },
    Attack {
        name: "grant-scope-wildcard",
        gets: CEILING,
        sends: |(t, _)| {
            ["*", "read*", "**", ".*", "READ", "all"]
                .map(|scope| grant(t, |spec| spec["scope"] = json!([scope])))
                .to_vec()
        },
    },
    Attack {
        name: "grant-for-anothers-target",
        gets: CEILING,
        sends: |(t, _)| vec![grant(t, |spec| spec["target"] = json!(t.victim.target))],
    },
    Attack {
        name: "grant-of-another-audience",
        gets: "AUDIENCE_NOT_GRANTED",
        sends: |(t, api)| {
            let audiences =
                [policy::audience(&t.victim.target), "dayfly".to_owned(), api.clone(), "*".to_owned()];
            audiences.map(|audience| grant(t, |spec| spec["audience"] = json!(audience))).to_vec()
        },
    },
    Attack {
        name: "audit-grant",
        gets: NO_GRANT,
        sends: |(t, _)| vec![grant(t, |spec| spec["mode"] = json!("Audit"))],
    },
    Attack {
        name: "target-of-our-audience",
        gets: NO_TARGET,
        sends: |(t, _)| {
            let ours = ["dayfly", "dayfly-operator", "dayfly-verifier"];
            let alone = ours.map(|ours| target(t, |spec| spec["jwt"]["audiences"] = json!([ours])));
            let beside = ours.map(|ours| {
                target(t, |spec| spec["jwt"]["audiences"] = json!([policy::audience("x"), ours]))
            });
            let mut svid = target(t, |spec| spec["jwt"]["audiences"] = json!(["dayfly"]));
            policy::to_svid(&mut svid, dayfly_e2e::broker::TRUST_DOMAIN);
            alone.into_iter().chain(beside).chain([svid]).collect()
        },
    },
    Attack {
        name: "target-of-the-api-servers-audience",
        gets: NO_TARGET,
        sends: |(t, api)| vec![target(t, |spec| spec["jwt"]["audiences"] = json!([api]))],
    },
    Attack {
        name: "target-of-anothers-trust-domain",
        gets: NO_TARGET,
        sends: |(t, _)| {
            let of = |domain: &str| {
                let mut svid = t.attacker.target_object.clone();
                policy::to_svid(&mut svid, domain);
                svid
            };
            [
                "other.example.org",
                "PROD.example.org",
                "prod.example.org.",
                "prod.example.org/ns/a",
                "prоd.example.org",
            ]
            .map(of)
            .to_vec()
        },
    },
    Attack {
        name: "ceiling-of-wildcards",
        gets: NO_TARGET,
        sends: |(t, _)| {
            let star = json!(["*"]);
            let mut all = ["namespaces", "owners", "serviceAccounts", "audiences"]
                .map(|field| entry(t, field, &star))
                .to_vec();
            all.extend([entry(t, "claims", &json!({ "*": ["a"] })), entry(t, "namespaces", &json!([]))]);
            all
        },
    },
    Attack {
        name: "ceiling-scope-wildcard",
        gets: CEILING,
        sends: |(t, _)| ["*", "r*", ".*", "READ"].map(|scope| entry(t, "scopes", &json!([scope]))).to_vec(),
    },
    Attack {
        name: "ceiling-allows-reserved-claims",
        gets: NO_TARGET,
        sends: |(t, _)| {
            ["sub", "cnf", "dayfly", "SCOPE"].map(|name| entry(t, "claims", &json!({ name: ["a"] }))).to_vec()
        },
    },
    Attack {
        name: "ceiling-of-another-team",
        gets: CEILING,
        sends: |(t, _)| {
            vec![
                entry(t, "namespaces", &json!([t.victim.namespace])),
                entry(t, "owners", &json!([t.victim.owner])),
            ]
        },
    },
];

/// Owners that say a namespace is theirs. Its pod asks for what a Grant and a Target give it.
const OWNERS: &[Attack<String, Value>] = &[
    Attack {
        name: "owner-named-unowned",
        gets: "OWNER_AMBIGUOUS",
        sends: |namespace| vec![policy::owner("unowned", &[namespace])],
    },
    Attack {
        name: "owner-of-wildcards",
        gets: "UNOWNED",
        sends: |_| {
            let mut labels = policy::owner("labels-of-all", &[]);
            labels["spec"]["namespaces"] = json!({ "labels": [{ "kubernetes.io/metadata.name": "*" }] });
            let mut none = policy::owner("labels-of-none", &[]);
            none["spec"]["namespaces"] = json!({ "labels": [{}] });
            vec![policy::owner("names-of-all", &["*"]), labels, none]
        },
    },
    Attack {
        name: "owner-names-unicode-and-case",
        gets: "UNOWNED",
        sends: |namespace| {
            let names = [
                namespace.to_uppercase(),
                format!("{namespace}."),
                namespace.replace('e', "е"),
                format!("{namespace}\0"),
            ];
            names.iter().enumerate().map(|(n, name)| policy::owner(&format!("games-{n}"), &[name])).collect()
        },
    },
];

pub(super) fn names() -> Vec<(&'static str, &'static str)> {
    let objects = OBJECTS.iter().map(|attack| (attack.name, attack.gets));
    objects.chain(OWNERS.iter().map(|attack| (attack.name, attack.gets))).collect()
}

pub(super) async fn run(scene: &Scene<'_>) {
    let api = scene.honest.token_for("").await.unwrap();
    let api = dayfly_e2e::jwt::read(&api).unwrap().claims["aud"][0].as_str().unwrap().to_owned();
    let teams = Teams { victim: scene.teams.victim.clone(), attacker: scene.teams.attacker.clone() };
    // A claim that the target allows: the good Grant beside all these.
    let mut good = teams.attacker.grant_object.clone();
    good["metadata"]["name"] = json!("good");
    good["spec"]["claims"] = json!({ "tier": "gold" });
    let mut allowing = teams.attacker.target_object.clone();
    allowing["spec"]["ceiling"][0]["claims"] = json!({ "tier": ["gold", "silver"] });
    let given = (teams, api);

    let mut objects = vec![good, allowing];
    let mut asks = Vec::new();
    for attack in OBJECTS {
        for (n, mut object) in (attack.sends)(&given).into_iter().enumerate() {
            let name = format!("{}-{n}", attack.name);
            object["metadata"]["name"] = json!(name);
            let attacked = if object["kind"] == "Target" {
                let mut grant = given.0.attacker.grant_object.clone();
                grant["metadata"]["name"] = json!(name);
                grant["spec"]["target"] = json!(name);
                objects.push(grant);
                name.clone()
            } else {
                let target = object["spec"]["target"].as_str().unwrap();
                if target == "*" { given.0.attacker.target.clone() } else { target.to_owned() }
            };
            asks.push((attack, asking_by(&name, &attacked), object.to_string()));
            objects.push(object);
        }
    }
    scene.world.put(&objects.iter().collect::<Vec<_>>()).await.unwrap();
    for (attack, request, object) in asks {
        assert_eq!(scene.ask(&scene.attacker, request).await, attack.gets, "{}: {object}", attack.name);
    }
    let target = &given.0.attacker.target;
    let issued = scene.attacker.ask(asking_by("good", target)).await.unwrap().unwrap();
    assert_eq!(dayfly_e2e::jwt::read(&issued.credential).unwrap().claims["tier"], "gold");
    owners(scene).await;
}

async fn owners(scene: &Scene<'_>) {
    let world = scene.world;
    for attack in OWNERS {
        let team = world.unsettled_team(attack.name.split('-').next_back().unwrap()).await.unwrap();
        let pod: Pod<'_> = world.pod(&team.namespace, "api").await.unwrap();
        let mut objects = (attack.sends)(&team.namespace);
        objects.extend([team.target_object.clone(), team.grant_object.clone()]);
        world.put(&objects.iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(scene.ask(&pod, asking_for(&team.target)).await, attack.gets, "{}", attack.name);
        assert_eq!(pod.who_am_i().await.unwrap().owner, "", "{}: WhoAmI", attack.name);
        let owners: Vec<_> = objects.iter().filter(|object| object["kind"] == "Owner").collect();
        world.remove(&owners).await.unwrap();
        let answer = pod.ask(asking_for(&team.target)).await.unwrap();
        let namespace = format!("{}:{}:api", dayfly_e2e::broker::CLUSTER, team.namespace);
        assert_eq!(answer.as_ref().map(drop).map_err(reason), Err("UNOWNED".to_owned()), "{}", attack.name);
        scene.got(&namespace, answer);
    }
}
