//! Tokens that no cluster made, or made for another use. Nobody is verified by them, so nothing of them is recorded.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use dayfly_api::v1;
use dayfly_api::v1::operator_service_client::OperatorServiceClient;
use dayfly_e2e::broker::TRUST_DOMAIN;
use dayfly_e2e::cluster::{Cluster, TOKEN_SECS};
use dayfly_e2e::forger::Forger;
use dayfly_e2e::world::{OPERATOR, VERIFIER, WORKLOAD, World, asking_for, bearing, reason};
use dayfly_e2e::{jwt, policy};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::stolen::Stolen;
use super::{Attack, Scene};

const MALFORMED: &str = "TOKEN_MALFORMED";
const SIGNATURE: &str = "TOKEN_SIGNATURE";
const ISSUER: &str = "TOKEN_ISSUER_UNKNOWN";
const AUDIENCE: &str = "TOKEN_AUDIENCE";

fn encode(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

const FORGERIES: &[Attack<Stolen, String>] = &[
    Attack { name: "another-issuer-same-names", gets: ISSUER, sends: |s| vec![s.claim("iss", json!(s.url))] },
    Attack {
        name: "same-issuer-another-key",
        gets: SIGNATURE,
        sends: |s| vec![s.header(|_| ()), s.header(|header| header["kid"] = json!("attacker"))],
    },
    Attack {
        name: "issuer-case-and-unicode",
        gets: ISSUER,
        sends: |s| {
            let issuer = s.claims["iss"].as_str().unwrap();
            let games = [
                issuer.to_uppercase(),
                format!("{issuer}/"),
                format!("{issuer}."),
                format!("{issuer}\0"),
                format!(" {issuer}"),
                issuer.replacen('h', "%68", 1),
                issuer.replacen('t', "ｔ", 1),
                issuer.replacen('p', "р", 1),
                String::new(),
            ];
            games.iter().map(|issuer| s.claim("iss", json!(issuer))).collect()
        },
    },
    Attack {
        name: "alg-none",
        gets: MALFORMED,
        sends: |s| {
            let algs = ["none", "None", "NONE", "nOnE", ""];
            let signed = algs.iter().map(|alg| s.header(|header| header["alg"] = json!(alg)));
            signed
                .clone()
                .chain(signed.map(|token| token.rsplit_once('.').unwrap().0.to_owned() + "."))
                .collect()
        },
    },
    Attack {
        name: "alg-hs256-by-public-key",
        gets: MALFORMED,
        sends: |s| s.public_key().iter().map(|secret| jwt::by_hs256(&s.token, secret).unwrap()).collect(),
    },
    Attack {
        name: "alg-of-another-kind",
        gets: SIGNATURE,
        sends: |s| {
            ["RS256", "PS256", "EdDSA", "ES384"]
                .iter()
                .map(|alg| s.header(|header| header["alg"] = json!(alg)))
                .collect()
        },
    },
    Attack {
        name: "signature-of-nothing",
        gets: SIGNATURE,
        sends: |s| {
            vec![s.signature(&[0; 64]), s.signature(&[0xff; 64]), s.signature(&[0x30; 70]), s.signature(&[0])]
        },
    },
    Attack {
        name: "claims-changed",
        gets: SIGNATURE,
        sends: |s| {
            let admin = json!("system:serviceaccount:kube-system:admin");
            vec![
                jwt::with_claims(&s.token, |claims| claims["sub"] = admin).unwrap(),
                jwt::tampered(&s.token).unwrap(),
            ]
        },
    },
    Attack {
        name: "kid-path",
        gets: SIGNATURE,
        sends: |s| {
            let kids = [
                "../../dev/null",
                "/dev/null",
                "file:///dev/null",
                "..%2f..%2fdev%2fnull",
                "\0",
                "' OR '1'='1",
                "*",
            ];
            kids.iter().map(|kid| s.header(|header| header["kid"] = json!(kid))).collect()
        },
    },
    Attack {
        name: "kid-empty-or-missing",
        gets: SIGNATURE,
        sends: |s| {
            let missing = s.header(|header| drop(header.as_object_mut().unwrap().remove("kid")));
            vec![s.header(|header| header["kid"] = json!("")), missing]
        },
    },
    Attack {
        name: "kid-very-long",
        gets: SIGNATURE,
        sends: |s| vec![s.header(|header| header["kid"] = json!("k".repeat(4000)))],
    },
    Attack {
        name: "kid-of-no-text",
        gets: MALFORMED,
        sends: |s| {
            let kids = [json!(null), json!(1), json!(["a"]), json!({ "a": 1 })];
            kids.into_iter().map(|kid| s.header(|header| header["kid"] = kid)).collect()
        },
    },
    Attack { name: "key-url-jku", gets: SIGNATURE, sends: |s| s.pointing("jku", &json!(s.url)) },
    Attack { name: "key-url-x5u", gets: SIGNATURE, sends: |s| s.pointing("x5u", &json!(s.url)) },
    Attack {
        name: "key-inside-jwk",
        gets: SIGNATURE,
        sends: |s| {
            [s.header["kid"].clone(), json!("attacker")]
                .iter()
                .flat_map(|kid| s.pointing("jwk", &s.forger.jwk(kid)))
                .collect()
        },
    },
    Attack {
        name: "key-inside-x5c",
        gets: SIGNATURE,
        sends: |s| s.pointing("x5c", &json!([BASE64_STANDARD.encode(s.forger.certificate())])),
    },
    Attack {
        name: "crit",
        gets: MALFORMED,
        sends: |s| {
            let crits = [json!(["exp"]), json!([]), json!(["b64"]), json!("exp")];
            let b64 = s.header(|header| header["b64"] = json!(false));
            crits.into_iter().map(|crit| s.header(|header| header["crit"] = crit)).chain([b64]).collect()
        },
    },
    Attack {
        name: "typ-of-another-use",
        gets: MALFORMED,
        sends: |s| {
            ["at+jwt", "JWE", "jwt ", "secevent+jwt"]
                .iter()
                .map(|typ| s.header(|header| header["typ"] = json!(typ)))
                .collect()
        },
    },
    Attack {
        name: "json-serialization",
        gets: MALFORMED,
        sends: |s| {
            let parts: Vec<_> = s.token.split('.').collect();
            let flat = json!({ "payload": parts[1], "protected": parts[0], "signature": parts[2] });
            let general = json!({ "payload": parts[1], "signatures": [{ "protected": parts[0], "signature": parts[2] }] });
            vec![flat.to_string(), general.to_string()]
        },
    },
    Attack {
        name: "dots",
        gets: MALFORMED,
        sends: |s| {
            let (signed, signature) = s.token.rsplit_once('.').unwrap();
            let (header, payload) = signed.split_once('.').unwrap();
            vec![
                format!(".{}", s.token),
                format!("{}.", s.token),
                format!("{signed}..{signature}"),
                signed.to_owned(),
                format!("{}.{}", s.token, s.token),
                format!("{header}..{signature}"),
                format!(".{payload}.{signature}"),
                format!("{}.AAAA.AAAA", s.token),
                "..".to_owned(),
                ".".to_owned(),
            ]
        },
    },
    Attack {
        name: "base64-games",
        gets: MALFORMED,
        sends: |s| {
            let (signed, signature) = s.token.rsplit_once('.').unwrap();
            let (header, rest) = s.token.split_once('.').unwrap();
            vec![
                format!("{}=", s.token),
                format!("{}==", s.token),
                format!("{signed}.{}", signature.replacen(|_: char| true, "+", 1)),
                format!("{header}=.{rest}"),
                format!("{signed}.{signature}AAA"),
                format!("{signed}.%41{signature}"),
            ]
        },
    },
    Attack { name: "claim-twice-iss", gets: MALFORMED, sends: |s| s.twice("iss", &json!(s.url)).to_vec() },
    Attack {
        name: "claim-twice-aud",
        gets: MALFORMED,
        sends: |s| s.twice("aud", &json!(["other"])).to_vec(),
    },
    Attack {
        name: "claim-twice-exp",
        gets: MALFORMED,
        sends: |s| s.twice("exp", &json!(4_000_000_000u64)).to_vec(),
    },
    Attack {
        name: "claim-twice-sub",
        gets: MALFORMED,
        sends: |s| s.twice("sub", &json!("system:serviceaccount:kube-system:admin")).to_vec(),
    },
    Attack {
        name: "header-twice",
        gets: MALFORMED,
        sends: |s| {
            let (header, payload) = (s.header.to_string(), s.claims.to_string());
            let members = ["\"alg\":\"none\"", "\"kid\":\"attacker\"", "\"al\\u0067\":\"ES256\""];
            members
                .iter()
                .map(|member| s.forger.sign(&format!("{{{member},{}", &header[1..]), &payload).unwrap())
                .collect()
        },
    },
    Attack {
        name: "claims-of-wrong-type",
        gets: MALFORMED,
        sends: |s| {
            vec![
                s.claim("iss", json!([s.claims["iss"]])),
                s.claim("aud", json!([1])),
                s.claim("aud", json!({ "a": "b" })),
                s.claim("exp", json!("4000000000")),
                s.claim("exp", json!(1e300)),
                s.claim("nbf", json!(-1)),
                s.claim("sub", json!(1)),
            ]
        },
    },
    Attack {
        name: "no-claims",
        gets: MALFORMED,
        sends: |s| {
            ["[]", "null", "{}", "", "\"iss\"", "{}{}"]
                .iter()
                .map(|it| s.forger.sign(&s.header.to_string(), it).unwrap())
                .collect()
        },
    },
    Attack {
        name: "nested-deep",
        gets: MALFORMED,
        sends: |s| {
            let deep = format!("{{\"iss\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
            vec![s.forger.sign(&s.header.to_string(), &deep).unwrap()]
        },
    },
    Attack {
        name: "expired",
        gets: "TOKEN_EXPIRED",
        sends: |s| vec![s.claim("exp", json!(1_000_000_000)), s.claim("exp", json!(0))],
    },
    Attack {
        name: "not-yet-valid",
        gets: "TOKEN_NOT_YET_VALID",
        sends: |s| vec![s.claim("nbf", json!(4_000_000_000u64)), s.claim("iat", json!(4_000_000_000u64))],
    },
    Attack {
        name: "without-end",
        gets: "TOKEN_LEGACY",
        sends: |s| {
            let mut claims = s.claims.clone();
            claims.as_object_mut().unwrap().remove("exp");
            let endless = s.forger.sign(&s.header.to_string(), &claims.to_string()).unwrap();
            vec![endless, s.claim("iss", json!("kubernetes/serviceaccount"))]
        },
    },
    Attack {
        name: "token-oversized",
        gets: MALFORMED,
        sends: |s| {
            let most = 8 * 1024;
            vec![
                format!("{}{}", s.token, "A".repeat(most + 1 - s.token.len())),
                "A".repeat(most + 1),
                s.header(|header| header["kid"] = json!("k".repeat(most))),
            ]
        },
    },
    Attack {
        name: "no-jwt",
        gets: MALFORMED,
        sends: |_| {
            let words = ["sesame", "a.b.c", "null", "Bearer", "eyJ.eyJ.eyJ"];
            words
                .map(str::to_owned)
                .into_iter()
                .chain([format!("{}.{}.AA", encode("{}"), encode("{}"))])
                .collect()
        },
    },
];

/// Good tokens of the cluster, for other audiences. Each goes to every service that it is not for.
const AUDIENCES: &[Attack<String, Vec<String>>] = &[
    Attack { name: "workload-token-elsewhere", gets: AUDIENCE, sends: |_| one(&[WORKLOAD]) },
    Attack { name: "operator-token-elsewhere", gets: AUDIENCE, sends: |_| one(&[OPERATOR]) },
    Attack { name: "verifier-token-elsewhere", gets: AUDIENCE, sends: |_| one(&[VERIFIER]) },
    Attack { name: "audience-of-the-api-server", gets: AUDIENCE, sends: |api| one(&[api]) },
    Attack {
        name: "audience-ours-and-the-api-servers",
        gets: AUDIENCE,
        sends: |api| {
            [WORKLOAD, OPERATOR, VERIFIER]
                .iter()
                .flat_map(|ours| [one(&[ours, api]), one(&[api, ours])])
                .flatten()
                .collect()
        },
    },
    Attack {
        name: "audience-ours-and-another",
        gets: AUDIENCE,
        sends: |_| {
            [one(&[WORKLOAD, "other"]), one(&["other", OPERATOR]), one(&[WORKLOAD, OPERATOR, VERIFIER])]
                .concat()
        },
    },
    Attack {
        name: "audience-ours-twice",
        gets: AUDIENCE,
        sends: |_| {
            [one(&[WORKLOAD, WORKLOAD]), one(&[OPERATOR, OPERATOR]), one(&[VERIFIER, VERIFIER])].concat()
        },
    },
    Attack {
        name: "audience-case-and-unicode",
        gets: AUDIENCE,
        sends: |_| {
            let games = [
                "Dayfly",
                "DAYFLY",
                "dayfly.",
                "dayfly ",
                " dayfly",
                "dayfly\0",
                "dayfly%00",
                "d%61yfly",
                "dаyfly",
                "ｄａｙｆｌｙ",
                "dayﬂy",
                "dayfly-Operator",
                "dayfly‐operator",
                "*",
            ];
            games.iter().flat_map(|audience| one(&[audience])).collect()
        },
    },
];

fn one(audiences: &[&str]) -> Vec<Vec<String>> {
    vec![audiences.iter().map(|&audience| audience.to_owned()).collect()]
}

/// Those that are made by what is around them.
const OTHERS: &[(&str, &str)] = &[
    ("another-cluster-same-names", "TOKEN_SIGNATURE TOKEN_ISSUER_UNKNOWN"),
    ("access-token-as-caller", ISSUER),
    ("svid-as-caller", MALFORMED),
];

pub(super) fn names() -> Vec<(&'static str, &'static str)> {
    let forgeries = FORGERIES.iter().map(|attack| (attack.name, attack.gets));
    let audiences = AUDIENCES.iter().map(|attack| (attack.name, attack.gets));
    forgeries.chain(audiences).chain(OTHERS.iter().copied()).collect()
}

pub(super) async fn run(scene: &Scene<'_>) {
    forged(scene).await;
    of_other_audiences(scene).await;
    of_another_cluster(scene).await;
    of_our_own(scene).await;
}

async fn forged(scene: &Scene<'_>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/keys.json", listener.local_addr().unwrap());
    let key = cluster_key(scene.world).await;
    for service in [WORKLOAD, OPERATOR, VERIFIER] {
        let token = scene.honest.token_for(service).await.unwrap();
        let jwt::Jwt { header, claims } = jwt::read(&token).unwrap();
        let (key, url) = (key.clone(), url.clone());
        let stolen = Stolen { token, header, claims, key, forger: Forger::new().unwrap(), url };
        for attack in FORGERIES {
            for token in (attack.sends)(&stolen) {
                refused(scene, attack.name, &token, service, attack.gets).await;
            }
        }
        says(scene, service, &stolen.token).await.unwrap();
    }
    // Nobody followed where the tokens pointed.
    let followed = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept()).await;
    assert!(followed.is_err(), "the attacker's URL was fetched: {followed:?}");
}

async fn of_other_audiences(scene: &Scene<'_>) {
    let own = jwt::read(&scene.honest.token_for("").await.unwrap()).unwrap().claims["aud"][0]
        .as_str()
        .unwrap()
        .to_owned();
    for attack in AUDIENCES {
        for audiences in (attack.sends)(&own) {
            let audiences: Vec<_> = audiences.iter().map(String::as_str).collect();
            let token = scene.honest.token_for_all(&audiences, TOKEN_SECS).await.unwrap();
            for service in
                [WORKLOAD, OPERATOR, VERIFIER].into_iter().filter(|service| audiences != [*service])
            {
                refused(scene, attack.name, &token, service, attack.gets).await;
            }
        }
    }
}

/// A cluster of its own, with a namespace, service account and pod of the same names.
async fn of_another_cluster(scene: &Scene<'_>) {
    let other = Cluster::start(scene.world.cluster().kind()).await.unwrap();
    let (namespace, name) = (&scene.honest.namespace, &scene.honest.name);
    other.create_namespace(namespace).await.unwrap();
    other.create_service_account(namespace, "api").await.unwrap();
    let uid = other.create_pod(namespace, name, "api").await.unwrap();
    let (ours, theirs) = (scene.world.cluster().access().await.unwrap(), other.access().await.unwrap());
    for service in [WORKLOAD, OPERATOR, VERIFIER] {
        let token = other.token(namespace, "api", &[service], Some((name, &uid)), TOKEN_SECS).await.unwrap();
        // Real clusters have one and the same issuer here, as clusters of one installer do.
        let gets = if ours.issuer == theirs.issuer { SIGNATURE } else { ISSUER };
        refused(scene, "another-cluster-same-names", &token, service, gets).await;
    }
}

/// Credentials that Dayfly issued.
async fn of_our_own(scene: &Scene<'_>) {
    let access = scene.honest.issue(&scene.teams.victim.target).await.unwrap().credential;
    let team = scene.world.unsettled_team("svids").await.unwrap();
    let mut target = team.target_object.clone();
    policy::to_svid(&mut target, TRUST_DOMAIN);
    scene.world.put(&[&team.owner_object, &target, &team.grant_object]).await.unwrap();
    let svid =
        scene.world.pod(&team.namespace, "api").await.unwrap().issue(&team.target).await.unwrap().credential;
    for service in [WORKLOAD, OPERATOR, VERIFIER] {
        refused(scene, "access-token-as-caller", &access, service, ISSUER).await;
        refused(scene, "svid-as-caller", &svid, service, MALFORMED).await;
    }
}

/// Sends a token to the service of this audience.
async fn says(scene: &Scene<'_>, service: &str, token: &str) -> Result<(), Status> {
    let world = scene.world;
    match service {
        WORKLOAD => world.issue_with(token, asking_for(&scene.teams.victim.target)).await.map(drop),
        OPERATOR => {
            let mut operators = OperatorServiceClient::new(world.broker().channel());
            operators.list_owners(bearing(token, v1::ListOwnersRequest::default())).await.map(drop)
        }
        _ => {
            let request = v1::IntrospectRequest { credential: "x".to_owned() };
            world.verifiers().introspect(bearing(token, request)).await.map(drop)
        }
    }
}

async fn refused(scene: &Scene<'_>, name: &str, token: &str, service: &str, gets: &str) {
    // A word, or a token's end of a few letters, is in any log.
    if token.rsplit('.').next().is_some_and(|end| end.len() > 40) {
        scene.world.broker().keep_secret(token);
    }
    let Err(refused) = says(scene, service, token).await else { panic!("{name} was let in") };
    let told = (reason(&refused), refused.code());
    assert_eq!(told, (gets.to_owned(), Code::Unauthenticated), "{name} to {service}: {refused:?}\n{token}");
    assert!(token.len() < 20 || !refused.message().contains(token), "{name}: the token is in the message");
}

/// The key that the cluster publishes.
async fn cluster_key(world: &World) -> Value {
    let request = http::Request::get("/openid/v1/jwks").body(Vec::new()).unwrap();
    let text = world.cluster().client().request_text(request).await.unwrap();
    let set: Value = serde_json::from_str(&text).unwrap();
    set["keys"][0].clone()
}
