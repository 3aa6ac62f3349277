//! `sessions.dayfly.dev`, through the real aggregator: a kubeconfig becomes an operator's token.

mod kubeconfigs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dayfly_api::v1;
use dayfly_core::audit::{Event, EventKind};
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ids::Position;
use dayfly_core::ports::LeaseStore as _;
use dayfly_e2e::broker::{Broker, Options};
use dayfly_e2e::cluster::Cluster;
use dayfly_e2e::run::{run, until};
use dayfly_e2e::world::{World, asking_for, bearing, leases_of, owned_by, reason};
use dayfly_e2e::{control_plane, jwt};
use dayfly_store::SledStore;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const SESSION: &str = r#"{"apiVersion": "sessions.dayfly.dev/v1alpha1", "kind": "OperatorSession"}"#;
const CREATE: [&str; 4] = ["create", "--filename=-", "--output=json", "--request-timeout=20s"];

/// A real cluster that forwards to a broker's `sessions.dayfly.dev`.
pub(crate) async fn start() -> World {
    let options =
        control_plane::Options { aggregation: true, audit: true, ..control_plane::Options::default() };
    let cluster = Cluster::start_real(options).await.unwrap();
    let options = Options { sessions: true, ..Options::default() };
    let broker = Broker::start(cluster.access().await.unwrap(), options).await.unwrap();
    let ca = std::fs::read(broker.dir().join("sessions-ca.crt")).unwrap();
    let manifests =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/sessions.yaml")).unwrap();
    // On loopback: no pod is behind a Service here.
    let documents = manifests.split("\n---\n").filter(|document| !document.contains("\nkind: Service\n"));
    let port = broker.sessions_port();
    let mut text = format!(
        "{}\n---\n{}\n",
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "dayfly-sessions", "namespace": "dayfly" },
            "spec": { "type": "ExternalName", "externalName": "localhost" },
        }),
        documents.collect::<Vec<_>>().join("\n---\n"),
    );
    text = text.replace("port: 443\n", &format!("port: {port}\n"));
    text = text.replace("# caBundle: LS0t...", &format!("caBundle: {}", BASE64_STANDARD.encode(ca)));
    let world = World::of(cluster, Arc::new(broker));
    world.cluster().control_plane().await.unwrap().apply_yaml(&text).await.unwrap();
    bind(&world, "dayfly-session", "Group", "on-call").await;
    let ready = kubeconfig(&world, "ready", "on-call").await;
    opens(&world, &ready, &[]).await;
    world
}

/// The one that tests share.
async fn shared() -> World {
    static SHARED: OnceCell<World> = OnceCell::const_new();
    SHARED.get_or_init(start).await.sharing()
}

async fn kubeconfig(world: &World, user: &str, group: &str) -> PathBuf {
    world.cluster().control_plane().await.unwrap().kubeconfig_of(user, group).unwrap()
}

/// Binds a ClusterRole, and gives the binding's name.
async fn bind(world: &World, role: &str, kind: &str, name: &str) -> String {
    let binding = format!("{role}-{}-{name}", kind.to_lowercase());
    let object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": binding },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name }],
    });
    apply(world, &object).await;
    binding
}

async fn apply(world: &World, object: &Value) {
    world.cluster().control_plane().await.unwrap().apply_yaml(&object.to_string()).await.unwrap();
}

/// A ClusterRole of these verbs on one owner.
async fn role(world: &World, name: &str, verbs: &[&str], owner: &str) {
    let rule = json!({ "apiGroups": ["dayfly.dev"], "resources": ["owners"], "resourceNames": [owner], "verbs": verbs });
    let object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name },
        "rules": [rule],
    });
    apply(world, &object).await;
}

/// What `kubectl create` answers.
async fn create(world: &World, kubeconfig: &Path, more: &[&str]) -> Result<Value, String> {
    let control_plane = world.cluster().control_plane().await.unwrap();
    let said = control_plane.kubectl_with(kubeconfig, &[&CREATE, more].concat(), SESSION).await.unwrap()?;
    let answer: Value = serde_json::from_str(&said).unwrap();
    if let Some(token) = answer["status"]["token"].as_str() {
        world.broker().keep_secret(token);
    }
    Ok(answer)
}

/// Returns when sessions are opened for them.
async fn opens(world: &World, kubeconfig: &Path, more: &[&str]) {
    let mut said = String::new();
    let opened = until(async || {
        said = create(world, kubeconfig, more).await.err().unwrap_or_default();
        Ok(said.is_empty())
    });
    opened.await.unwrap_or_else(|_| panic!("{said}"));
}

async fn token(world: &World, kubeconfig: &Path, more: &[&str]) -> String {
    create(world, kubeconfig, more).await.unwrap()["status"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_client_certificate_becomes_an_operator_for_ten_minutes() {
    run(async {
        let world = shared().await;
        let (team, other) = (world.team("payments").await.unwrap(), world.team("checkout").await.unwrap());
        let ada = kubeconfig(&world, "ada", "on-call").await;
        role(&world, "ada-may", &["get", "list", "revoke"], &team.owner).await;
        let binding = bind(&world, "ada-may", "User", "ada").await;

        let answer = create(&world, &ada, &[]).await.unwrap();
        assert_eq!(
            (&answer["kind"], &answer["apiVersion"]),
            (&json!("OperatorSession"), &json!("sessions.dayfly.dev/v1alpha1"))
        );
        let session = answer["status"]["token"].as_str().unwrap();
        let read = jwt::read(session).unwrap();
        assert_eq!(
            (&read.header["typ"], &read.claims["aud"]),
            (&json!("dayfly-session+jwt"), &json!("dayfly-operator"))
        );
        assert_eq!(read.claims["exp"].as_u64().unwrap() - read.claims["iat"].as_u64().unwrap(), 600);
        assert_eq!((&read.claims["sub"], &read.claims["jti"]), (&json!("ada"), &answer["metadata"]["name"]));

        let pod = world.pod(&team.namespace, "api").await.unwrap();
        let issued = pod.issue(&team.target).await.unwrap();
        let operator = world.operator_with(session.to_owned());
        until(async || Ok(operator.leases(leases_of(&team.owner)).await.is_ok())).await.unwrap();
        assert_eq!(operator.all_leases(leases_of(&team.owner)).await.unwrap().len(), 1);
        let rule = operator.revoke(owned_by(&team.owner)).await.unwrap();
        assert!(rule.by.contains("ada"), "{}", rule.by);
        let verifier = world.verifier(&team.namespace, "gate").await.unwrap();
        assert_eq!(verifier.state(&issued.credential).await.unwrap(), v1::LeaseState::Revoked);
        let refused = operator.revoke(owned_by(&other.owner)).await.unwrap_err();
        assert_eq!(reason(&refused), "NOT_ALLOWED");

        // Good for operators' calls, and for nothing else.
        let refused = world.issue_with(session, asking_for(&team.target)).await.unwrap_err();
        assert_eq!(reason(&refused), "TOKEN_ISSUER_UNKNOWN");
        let request = v1::IntrospectRequest { credential: issued.credential.clone() };
        let refused = world.verifiers().introspect(bearing(session, request)).await.unwrap_err();
        assert_eq!(reason(&refused), "TOKEN_ISSUER_UNKNOWN");
        assert!(!verifier.introspect(session).await.unwrap().active);
        let refused =
            world.operator_with(issued.credential).leases(leases_of(&team.owner)).await.unwrap_err();
        assert_eq!(reason(&refused), "TOKEN_AUDIENCE", "nor is a workload's credential a session");

        // A right that is taken away is gone while the session lasts.
        let admin = world.cluster().client();
        let bindings = kube::Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(admin);
        bindings.delete(&binding, &kube::api::DeleteParams::default()).await.unwrap();
        until(async || {
            let answer = operator.revoke(owned_by(&team.owner)).await;
            Ok(answer.is_err_and(|status| reason(&status) == "NOT_ALLOWED"))
        })
        .await
        .unwrap();
    });
}

#[test]
fn who_may_not_create_sessions_gets_none() {
    run(async {
        let world = shared().await;
        let eve = kubeconfig(&world, "eve", "nobody").await;
        let refused = create(&world, &eve, &[]).await.unwrap_err();
        assert!(refused.contains("cannot create resource \"operatorsessions\""), "{refused}");
        // Nor is a session more than it says.
        let ada = kubeconfig(&world, "ada", "on-call").await;
        let refused = create(&world, &ada, &["--as=bob", "--validate=false"]).await.unwrap_err();
        assert!(refused.contains("cannot impersonate"), "{refused}");
        let dry = create(&world, &ada, &["--dry-run=server"]).await.unwrap();
        assert!(dry.get("status").is_none(), "nothing is opened to see how it would be");
        // kubectl knows what it is, and that there is nothing to list.
        let control_plane = world.cluster().control_plane().await.unwrap();
        let kubectl =
            async |arguments: &[&str]| control_plane.kubectl_with(&ada, arguments, "").await.unwrap();
        let mut explained = String::new();
        until(async || {
            explained =
                kubectl(&["explain", "operatorsession.status.token"]).await.unwrap_or_else(|said| said);
            Ok(explained.contains("A secret"))
        })
        .await
        .unwrap_or_else(|_| panic!("{explained}"));
        let root = control_plane.kubeconfig_for(control_plane.admin_token()).unwrap();
        let listed = control_plane.kubectl_with(&root, &["get", "operatorsessions"], "").await.unwrap();
        assert!(listed.as_ref().is_err_and(|said| said.contains("MethodNotAllowed")), "{listed:?}");
    });
}

#[test]
fn only_the_api_server_is_believed() {
    run(async {
        let world = shared().await;
        let (ada, beside, own) = {
            let control_plane = world.cluster().control_plane().await.unwrap();
            (
                control_plane.certificate_of_person("ada", "system:masters").unwrap(),
                control_plane.certificate_beside_front_proxy("not-the-api-server").unwrap(),
                control_plane.front_proxy_certificate(),
            )
        };
        let none = call(&world, None, &["X-Remote-User: root", "X-Remote-Group: system:masters"]).await;
        assert!(none.is_err(), "without a certificate the handshake fails: {none:?}");
        let of_person = call(&world, Some(&ada), &["X-Remote-User: root"]).await;
        assert!(of_person.is_err(), "a person's certificate is by another authority: {of_person:?}");
        let (code, said) = call(&world, Some(&beside), &["X-Remote-User: root"]).await.unwrap();
        assert_eq!((code, said["reason"].as_str()), (401, Some("Unauthorized")), "{said}");
        // The one that the API server has: so the refusals above are for what they say.
        let (code, said) = call(&world, Some(&own), &["X-Remote-User: ada"]).await.unwrap();
        assert_eq!((code, said["kind"].as_str()), (201, Some("OperatorSession")));
        world.broker().keep_secret(said["status"]["token"].as_str().unwrap());
        let (code, said) = call(&world, Some(&own), &[]).await.unwrap();
        assert_eq!(code, 401, "it has to name somebody: {said}");
        let anonymous = ["X-Remote-User: system:anonymous", "X-Remote-Group: system:unauthenticated"];
        assert_eq!(call(&world, Some(&own), &anonymous).await.unwrap().0, 403);
    });
}

/// Creates a session at the broker itself, by curl. An error is one of the connection.
async fn call(
    world: &World,
    certificate: Option<&(PathBuf, PathBuf)>,
    headers: &[&str],
) -> Result<(u16, Value), String> {
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--data", SESSION]);
    curl.args(["--header", "Content-Type: application/json", "--cacert"]);
    curl.arg(world.broker().dir().join("sessions-ca.crt"));
    if let Some((certificate, key)) = certificate {
        curl.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    for header in headers {
        curl.args(["--header", header]);
    }
    let port = world.broker().sessions_port();
    let url = format!("https://localhost:{port}/apis/sessions.dayfly.dev/v1alpha1/operatorsessions");
    let output = curl.arg(url).output().await.unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    Ok((code.parse().unwrap(), serde_json::from_str(body).unwrap()))
}

#[test]
fn too_many_groups_are_refused_in_kubernetes_own_words() {
    run(async {
        let world = shared().await;
        bind(&world, "cluster-admin", "User", "root").await;
        let root = kubeconfig(&world, "root", "on-call").await;
        let groups: Vec<_> = (0..200).map(|n| format!("--as-group=a-group-of-no-short-name-{n}")).collect();
        let mut arguments = vec!["--as=bob", "--as-group=on-call"];
        opens(&world, &root, &arguments).await;
        arguments.extend(groups.iter().map(String::as_str));
        let refused = create(&world, &root, &arguments).await.unwrap_err();
        assert!(refused.contains("RequestEntityTooLarge") && refused.contains("at most 4096"), "{refused}");
    });
}

#[test]
fn a_session_ends_with_its_key_and_is_on_record_with_its_audit_id() {
    run(async {
        let world = start().await;
        let team = world.team("payments").await.unwrap();
        bind(&world, "cluster-admin", "User", "ada").await;
        let ada = kubeconfig(&world, "ada", "on-call").await;
        role(&world, "platform-may", &["list"], &team.owner).await;
        bind(&world, "platform-may", "Group", "platform").await;
        let as_bob = ["--as=bob", "--as-group=platform", "--as-group=on-call"];
        opens(&world, &ada, &as_bob).await;
        let session = token(&world, &ada, &as_bob).await;
        let operator = world.operator_with(session.clone());
        until(async || Ok(operator.leases(leases_of(&team.owner)).await.is_ok())).await.unwrap();
        assert_eq!(
            reason(&operator.revoke(owned_by(&team.owner)).await.unwrap_err()),
            "NOT_ALLOWED",
            "bob is not ada"
        );

        // The command line gets one in the same way, and it is one that lasts over a restart.
        let file = world.broker().dir().join("session").display().to_string();
        let kubeconfig = ada.display().to_string();
        let mut arguments = vec!["session", "--kubeconfig", &kubeconfig, "--as", "bob", "--out", &file];
        arguments.extend(["--as-group", "platform", "--as-group", "on-call"]);
        let (status, said) = world.broker().command(&arguments).await.unwrap();
        assert!(status.success() && said.contains("is good until"), "{said}");
        world.broker().keep_secret(&std::fs::read_to_string(&file).unwrap());
        world.broker().restart().await.unwrap();
        let server = format!("https://localhost:{}", world.broker().port());
        let ca = world.broker().dir().join("ca.crt").display().to_string();
        let leases = [
            "leases",
            "list",
            "--owner",
            &team.owner,
            "--server",
            &server,
            "--ca-file",
            &ca,
            "--token-file",
            &file,
        ];
        let (status, said) = world.broker().command(&leases).await.unwrap();
        assert!(status.success(), "{said}");
        let eve = ["session", "--kubeconfig", &kubeconfig, "--as", "eve"];
        let (status, said) = world.broker().command(&eve).await.unwrap();
        assert!(status.code() == Some(3) && said.contains("operatorsessions"), "{said}");

        let kid = jwt::read(&session).unwrap().header["kid"].as_str().unwrap().to_owned();
        let keeper = world.key_operator(&["list", "revoke"], None).await.unwrap();
        let keys = keeper.signing_keys().await.unwrap();
        assert!(keys.iter().any(|key| key.id == kid && key.purpose == "operator-session"));
        assert!(!world.keys().await.unwrap().jwks.contains(&kid), "it is published to nobody");
        assert!(operator.leases(leases_of(&team.owner)).await.is_ok());
        keeper.revoke_key(&kid, "a test").await.unwrap();
        let refused = operator.leases(leases_of(&team.owner)).await.unwrap_err();
        assert_eq!(reason(&refused), "TOKEN_SIGNATURE", "at once");
        // Another key signs, and sessions are opened again.
        let again = world.operator_with(token(&world, &ada, &as_bob).await);
        assert!(again.leases(leases_of(&team.owner)).await.is_ok());

        let audit_log = world.cluster().control_plane().await.unwrap().audit_log();
        world.broker().stop().await.unwrap();
        let opened = sessions_of(&world, "bob@east").await;
        let jti = jwt::read(&session).unwrap().claims["jti"].as_str().unwrap().to_owned();
        let event = opened.iter().find(|event| event.lease_text() == jti).unwrap();
        let detail = event.0.detail.as_ref().unwrap();
        assert!(detail.groups.iter().any(|group| group == "platform"), "{detail:?}");
        assert_eq!(detail.key_id, kid);
        // The API server's own log has, under this id, who it was that asked as bob.
        let log = std::fs::read_to_string(audit_log).unwrap();
        let mut lines =
            log.lines().filter(|line| line.contains(&format!("\"auditID\":\"{}\"", detail.audit_id)));
        let line: Value = serde_json::from_str(lines.next_back().unwrap()).unwrap();
        assert_eq!(line["user"]["username"], "ada");
        assert_eq!(
            (&line["impersonatedUser"]["username"], &line["objectRef"]["resource"]),
            (&json!("bob"), &json!("operatorsessions"))
        );
    });
}

struct Opened(Event);

impl Opened {
    fn lease_text(&self) -> String {
        self.0.subject.map(|id| dayfly_core::ids::LeaseId::from_bytes(id).to_string()).unwrap_or_default()
    }
}

/// The sessions in the log of a stopped broker that are of this operator.
async fn sessions_of(world: &World, actor: &str) -> Vec<Opened> {
    let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng::new()));
    let store = SledStore::open(dayfly_store::Options::new(world.broker().store_dir(), clock, rng)).unwrap();
    let (mut next, mut found) = (Position::new(1), Vec::new());
    loop {
        let records = store.events(next, 256).await.unwrap();
        if records.is_empty() {
            store.close();
            return found;
        }
        for record in records {
            let event = record.read().unwrap();
            next = event.position.next();
            let of_actor = event.detail.as_ref().is_some_and(|detail| detail.actor == actor);
            if event.kind == EventKind::SessionIssued && of_actor {
                found.push(Opened(event));
            }
        }
    }
}
