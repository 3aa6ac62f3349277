//! temporary
#![allow(warnings, clippy::all, clippy::pedantic)]
use std::sync::Arc;
use std::time::{Duration, Instant};
use dayfly_core::clock::SystemClock;
use dayfly_core::ports::*;
use dayfly_core::secret::Secret;
mod control_plane;
mod process;
use control_plane::*;
use dayfly_kube::*;

fn aud(s: &str) -> dayfly_core::ids::Audience { s.parse().unwrap() }

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("info,dayfly_kube=debug").init();
    let mut cp = ControlPlane::start(Options { audit: true, controller_manager: true, ..Default::default() }).await?;
    cp.apply_yaml(&std::fs::read_to_string("deploy/rbac.yaml")?).await?;
    cp.create_namespace("payments", &[]).await?;
    let sa = cp.create_service_account("payments", "api").await?;
    let pod = cp.create_pod("payments", "api-0", "api").await?;
    let broker = cp.token("dayfly", "dayfly", &[], None, 3600).await?;
    let dir = tempfile::tempdir()?;
    let (ca, tok) = (dir.path().join("ca"), dir.path().join("tok"));
    std::fs::write(&ca, cp.ca_pem())?;
    std::fs::write(&tok, &broker)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let t = Instant::now();
    let running = connect(ClusterConfig {
        name: "east".parse()?, issuer: cp.issuer().into(),
        audiences: Audiences { workload: aud("dayfly"), operator: aud("dayfly-operator"), verifier: aud("dayfly-verifier") },
        api_audiences: vec![cp.issuer().into()],
        access: Access::Url { server: cp.url(), ca_file: Some(ca), token_file: Some(tok) },
        local_check: true, limits: Default::default(), clock,
    }).await?;
    let c = running.cluster();
    while !c.directory.ready() { tokio::time::sleep(Duration::from_millis(1)).await }
    println!("ready after {:?}", t.elapsed());
    let token = Secret::from(cp.token("payments", "api", &["dayfly"], Some(("api-0", &pod)), 3600).await?);
    let t = Instant::now();
    let id = c.reviewer.review(&token, &aud("dayfly")).await?;
    println!("first review {:?}: {:?}", t.elapsed(), id);
    let t = Instant::now();
    for _ in 0..10000 { c.reviewer.review(&token, &aud("dayfly")).await?; }
    println!("cached {:?} each", t.elapsed() / 10000);
    for auds in [vec![], vec!["dayfly-operator"], vec!["dayfly", "x"], vec!["dayfly", cp.issuer()]] {
        let tk = Secret::from(cp.token("payments", "api", &auds, Some(("api-0", &pod)), 3600).await?);
        println!("{auds:?}: {:?}", c.reviewer.review(&tk, &aud("dayfly")).await.map(|_| ()));
    }
    let legacy = Secret::from(cp.legacy_secret_token("payments", "api").await?);
    println!("legacy: {:?}", c.reviewer.review(&legacy, &aud("dayfly")).await.map(|_| ()));
    let mut tampered = token.expose().to_vec(); let n = tampered.len(); tampered[n-10] ^= 1;
    println!("tampered: {:?}", c.reviewer.review(&Secret::from(tampered), &aud("dayfly")).await.map(|_| ()));
    println!("sar: {:?}", c.authorizer.allowed(&id, &Action { verb: "revoke", resource: "owners", name: Some("payments".into()) }).await);
    cp.apply_yaml("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: rev}, rules: [{apiGroups: [dayfly.dev], resources: [owners], verbs: [revoke], resourceNames: [payments]}]}\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: rev}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: rev}, subjects: [{kind: ServiceAccount, name: api, namespace: payments}]}").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("sar after binding: {:?}, all: {:?}", c.authorizer.allowed(&id, &Action { verb: "revoke", resource: "owners", name: Some("payments".into()) }).await,
        c.authorizer.allowed(&id, &Action { verb: "revoke", resource: "owners", name: None }).await);

    // rate
    let mut tokens = Vec::new();
    for _ in 0..500 { tokens.push(Secret::from(cp.token("payments", "api", &["dayfly"], Some(("api-0", &pod)), 3600).await?)); }
    let t = Instant::now();
    let (r, a) = (&c.reviewer, aud("dayfly"));
    let all = futures_util::future::join_all(tokens.iter().map(|t| r.review(t, &a))).await;
    println!("500 distinct at once: {:?}, ok {}", t.elapsed(), all.iter().filter(|r| r.is_ok()).count());

    // new pod at once
    let (ns, name) = ("payments".parse()?, "api-1".parse()?);
    let pod1 = cp.create_pod("payments", "api-1", "api").await?;
    let t = Instant::now();
    println!("new pod: {:?} in {:?}", c.directory.pod(&ns, &name).await?, t.elapsed());
    let tk1 = Secret::from(cp.token("payments", "api", &["dayfly"], Some(("api-1", &pod1)), 3600).await?);
    c.reviewer.review(&tk1, &aud("dayfly")).await?;
    cp.delete_pod("payments", "api-1", Some(30)).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    println!("terminating: {:?}", c.directory.pod(&ns, &name).await?);
    cp.delete_pod("payments", "api-1", Some(0)).await?;
    let t = Instant::now();
    while c.directory.pod(&ns, &name).await?.is_some() { tokio::time::sleep(Duration::from_micros(200)).await }
    println!("deleted pod gone after {:?}; review still says {:?}", t.elapsed(), c.reviewer.review(&tk1, &aud("dayfly")).await.map(|_| ()));

    // quiet
    println!("quiet for 160 s");
    tokio::time::sleep(Duration::from_secs(160)).await;
    c.directory.pod(&ns, &"api-0".parse()?).await?.unwrap();
    let audit = std::fs::read_to_string(cp.audit_log())?;
    let by = |verb: &str, what: &str| audit.lines().filter(|l| l.contains("system:serviceaccount:dayfly:dayfly") && l.contains("\"RequestReceived\"") && l.contains(&format!("\"verb\":\"{verb}\"")) && l.contains(what)).count();
    let by2 = |verb: &str, what: &str| audit.lines().filter(|l| l.contains("\"username\":\"system:serviceaccount:dayfly:dayfly\"") && l.contains(&format!("\"verb\":\"{verb}\"")) && l.contains(what)).count();
    println!("audit: watch pods lines {} get pods {} list pods {} reviews {}", by2("watch", "/api/v1/pods"), by2("get", "/pods/"), by2("list", "/api/v1/pods"), by2("create", "tokenreviews"));
    println!("deleted pod's token now: {:?}", c.reviewer.review(&tk1, &aud("dayfly")).await.map(|_| ()));

    // kill
    cp.kill_api_server();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let t = Instant::now();
    println!("killed: {:?} in {:?}", c.reviewer.review(&token, &aud("dayfly")).await.map(|_| ()), t.elapsed());
    println!("held: {:?}", c.directory.pod(&ns, &"api-0".parse()?).await.map(|f| f.is_some()));
    println!("unseen: {:?}", c.directory.pod(&ns, &"nope".parse()?).await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    cp.restart_api_server().await?;
    let t = Instant::now();
    while c.reviewer.review(&token, &aud("dayfly")).await.is_err() { tokio::time::sleep(Duration::from_millis(20)).await }
    println!("review back after {:?}", t.elapsed());
    cp.create_pod("payments", "api-2", "api").await?;
    tokio::time::sleep(Duration::from_secs(6)).await;

    // rotation
    cp.restart_with_sa_keys(control_plane::SigningKey::Rs256).await?;
    let tk = Secret::from(cp.token("payments", "api", &["dayfly"], Some(("api-0", &pod)), 3600).await?);
    let t = Instant::now();
    loop {
        match c.reviewer.review(&tk, &aud("dayfly")).await { Ok(_) => break, Err(e) => { println!("rotated: {e}"); tokio::time::sleep(Duration::from_secs(1)).await } }
    }
    println!("rotated key accepted after {:?}", t.elapsed());

    // rbac lost
    let kubectl = |args: &[&str]| { let k = cp.kubeconfig_for(cp.admin_token()).unwrap(); std::process::Command::new(cp.kubectl()).arg("--kubeconfig").arg(k).args(args).status().unwrap() };
    kubectl(&["delete", "clusterrolebinding", "dayfly-broker"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tk = Secret::from(cp.token("payments", "api", &["dayfly"], Some(("api-0", &pod)), 3600).await?);
    println!("rbac lost: {:?}", c.reviewer.review(&tk, &aud("dayfly")).await.map(|_| ()));
    println!("rbac lost: {:?}", c.authorizer.allowed(&id, &Action { verb: "revoke", resource: "owners", name: None }).await);
    println!("rbac lost: {:?}", c.directory.pod(&ns, &"nope".parse()?).await);
    running.shutdown().await;
    let _ = (sa,);
    Ok(())
}
