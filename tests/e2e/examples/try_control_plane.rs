//! Throw-away.
use std::time::Instant;
use anyhow::*;
use dayfly_e2e::control_plane::*;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{Node, Pod, Namespace};
use kube::api::*;
use serde_json::json;

async fn review(cp: &ControlPlane, token: &str) -> Result<serde_json::Value> {
    let api: Api<TokenReview> = Api::all(cp.client()?);
    let tr: TokenReview = serde_json::from_value(json!({"metadata":{},"spec":{"token":token,"audiences":["dayfly"]}}))?;
    Ok(serde_json::to_value(api.create(&PostParams::default(), &tr).await?.status)?)
}
fn head(t: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(t.split('.').next().unwrap()).unwrap()).unwrap()
}
macro_rules! timed { ($n:expr, $e:expr) => {{ let t = Instant::now(); let r = $e; println!("{:>8.0?} {}", t.elapsed(), $n); r }} }

#[tokio::main]
async fn main() -> Result<()> {
    let cm = std::env::args().any(|a| a == "cm");
    let rsa = std::env::args().any(|a| a == "rsa");
    let mut cp = timed!("start", ControlPlane::start(Options { controller_manager: cm, audit: true,
        signing_key: if rsa { SigningKey::Rs256 } else { SigningKey::Es256 }, ..Default::default() }).await?);
    println!("{} {} {:?}", cp.url(), cp.issuer(), cp.dir());
    timed!("namespace", cp.create_namespace("pay", &[("team", "payments")]).await?);
    println!("{:?}", Api::<Namespace>::all(cp.client()?).get("pay").await?.metadata.labels);
    timed!("sa", cp.create_service_account("pay", "api").await?);
    let uid = timed!("pod", cp.create_pod("pay", "api-0", "api").await?);
    cp.set_pod_phase("pay", "api-0", "Running").await?;
    let p: Pod = Api::namespaced(cp.client()?, "pay").get("api-0").await?;
    println!("{:?} {:?}", p.status.unwrap().phase, p.spec.unwrap().node_name);
    let t = timed!("token", cp.token("pay", "api", &["dayfly"], Some(("api-0", &uid)), 600).await?);
    println!("{}", head(&t));
    let r = timed!("review", review(&cp, &t).await?);
    println!("{r}");
    let t0 = cp.token("pay", "api", &[], None, 600).await?;
    println!("api-audience as dayfly: {}", review(&cp, &t0).await?);
    cp.apply_yaml(r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reviewers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: api, namespace: pay}]
"#).await?;
    println!("bad yaml: {:?}", cp.apply_yaml("kind: Nope\napiVersion: v1\nmetadata: {name: x}").await.err().map(|e| e.to_string()));
    let api: Api<TokenReview> = Api::all(cp.client_for(&t0)?);
    let tr: TokenReview = serde_json::from_value(json!({"metadata":{},"spec":{"token":t,"audiences":["dayfly"]}}))?;
    println!("review as sa: {:?}", api.create(&PostParams::default(), &tr).await?.status.unwrap().authenticated);
    println!("nodes as sa: {:?}", Api::<Node>::all(cp.client_for(&t0)?).list(&ListParams::default()).await.err().map(|e| e.to_string()));
    let out = std::process::Command::new(cp.kubectl()).arg("--kubeconfig").arg(cp.kubeconfig_for(&t0)?).args(["auth", "whoami"]).output()?;
    println!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("legacy: {:?}", timed!("legacy", cp.legacy_secret_token("pay", "api").await).map_err(|e| format!("{e:#}")).map(|t| t.len()));
    timed!("kill", cp.kill_api_server());
    println!("dead: {}", review(&cp, &t).await.is_err());
    timed!("restart", cp.restart_api_server().await?);
    println!("after restart: {}", review(&cp, &t).await?["authenticated"]);
    timed!("rotate", cp.restart_with_sa_keys(if rsa { SigningKey::Es256 } else { SigningKey::Rs256 }).await?);
    println!("old: {}", review(&cp, &t).await?["authenticated"]);
    let t2 = timed!("token", cp.token("pay", "api", &["dayfly"], Some(("api-0", &uid)), 600).await?);
    println!("new: {} {}", head(&t2), review(&cp, &t2).await?["authenticated"]);
    println!("jwks {}", cp.client()?.request_text(http::Request::get("/openid/v1/jwks").body(vec![])?).await?);
    println!("disco {}", cp.client()?.request_text(http::Request::get("/.well-known/openid-configuration").body(vec![])?).await?);
    println!("version {}", cp.client()?.apiserver_version().await?.git_version);
    cp.delete_pod("pay", "api-0", Some(0)).await?;
    println!("pod gone: {:?}", Api::<Pod>::namespaced(cp.client()?, "pay").get_opt("api-0").await?.is_none());
    cp.delete_service_account("pay", "api").await?;
    println!("audit lines {}", std::fs::read_to_string(cp.audit_log())?.lines().count());
    if std::env::args().any(|a| a == "exit") { std::process::exit(0) }
    let bad = timed!("bad", ControlPlane::start(Options { api_server_flags: vec!["--nope".into()], ..Default::default() }).await);
    println!("{:?}", bad.map(drop).map_err(|e| format!("{e:#}")));
    timed!("drop", drop(cp));
    Ok(())
}
