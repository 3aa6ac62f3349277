//! A cluster of 500 teams on the stand-in for the Kubernetes API, their policy, and the broker's configuration.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dayfly_core::clock::SystemClock;
use dayfly_dev::StandIn;

use crate::fanout::STREAMS;
use crate::fill;
use crate::leases::{OWNERS, owner_name};
use crate::tls::Tls;

/// Pods with a token of their own, in each namespace.
const PODS: u64 = 2;
/// How long tokens live, in seconds: longer than any run.
const TOKEN_SECS: u64 = 7200;
/// How long the broker keeps a review, in seconds: the most there is, so that no review falls into what is measured.
const REVIEW_CACHE_SECS: u64 = 60;
/// The one target.
pub(crate) const TARGET: &str = "orders";
const VERIFIER_NAMESPACE: &str = "orders";
const VERIFIER: &str = "orders-api";
const OPERATORS: &str = "operators";
const OPERATOR: &str = "on-call";
/// Namespaces in one entry of a ceiling.
const CEILING: u64 = 250;

/// What the broker is run against.
pub(crate) struct World {
    /// The stand-in, which stops with this.
    _stand_in: StandIn,
    /// A thousand pods' tokens for the workloads' audience, no two alike.
    pub(crate) tokens: Vec<String>,
    /// A verifier's token.
    pub(crate) verifier_token: String,
    /// The token of an operator that may revoke everything.
    pub(crate) operator_token: String,
    /// The broker's configuration.
    pub(crate) config: PathBuf,
}

impl World {
    /// Makes all of it; `home` is where the store of so many leases is.
    pub(crate) async fn make(home: &Path, leases: u64, tls: &Tls) -> anyhow::Result<Self> {
        let stand_in = StandIn::start(([127, 0, 0, 1], 0).into(), Arc::new(SystemClock::new())).await?;
        let mut tokens = Vec::new();
        for number in 0..OWNERS {
            let namespace = owner_name(number);
            stand_in.create_namespace(&namespace)?;
            for pod in 0..PODS {
                tokens.push(pod_token(&stand_in, &namespace, &format!("service-{pod}"), "dayfly")?);
            }
        }
        stand_in.create_namespace(VERIFIER_NAMESPACE)?;
        let verifier_token = pod_token(&stand_in, VERIFIER_NAMESPACE, VERIFIER, "dayfly-verifier")?;
        stand_in.create_namespace(OPERATORS)?;
        let operator_token = pod_token(&stand_in, OPERATORS, OPERATOR, "dayfly-operator")?;
        stand_in.allow(&format!("system:serviceaccount:{OPERATORS}:{OPERATOR}"), "revoke", "owners", None);
        write_policy(&home.join("policy"))?;
        let kubeconfig = stand_in.broker_kubeconfig(home)?;
        let config = home.join("dayfly.toml");
        fs::write(&config, configuration(stand_in.issuer(), &kubeconfig, leases, tls)?)?;
        Ok(Self { _stand_in: stand_in, tokens, verifier_token, operator_token, config })
    }
}

fn pod_token(stand_in: &StandIn, namespace: &str, account: &str, audience: &str) -> anyhow::Result<String> {
    let pod = format!("{account}-5f7c9d8b46-x7k2q");
    stand_in.create_service_account(namespace, account)?;
    let uid = stand_in.create_pod(namespace, &pod, account)?;
    Ok(stand_in.token(namespace, account, audience, Some((&pod, &uid)), TOKEN_SECS)?)
}

/// An Owner and a Grant for each team, and the Target.
fn write_policy(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for team in (0..OWNERS).map(owner_name) {
        fs::write(dir.join(format!("{team}.yaml")), team_policy(&team))?;
    }
    fs::write(dir.join("target.yaml"), target_policy())?;
    Ok(())
}

fn team_policy(team: &str) -> String {
    let accounts: Vec<_> = (0..PODS).map(|pod| format!("service-{pod}")).collect();
    format!(
        "apiVersion: dayfly.dev/v1alpha1
kind: Owner
metadata: {{name: {team}}}
spec:
  displayName: Team {team}
  contacts: [{team}@example.com]
  namespaces: {{names: [{team}]}}
---
apiVersion: dayfly.dev/v1alpha1
kind: Grant
metadata: {{name: {TARGET}, namespace: {team}}}
spec:
  serviceAccounts: [{}]
  target: {TARGET}
  scope: [orders:read, orders:write]
  defaultTtl: 5m
  maxTtl: 15m
",
        accounts.join(", ")
    )
}

fn target_policy() -> String {
    let mut text = format!(
        "apiVersion: dayfly.dev/v1alpha1
kind: Target
metadata: {{name: {TARGET}}}
spec:
  jwt: {{audiences: ['https://orders.example.internal']}}
  maxTtl: 1h
  verifiers:
    - {{namespace: {VERIFIER_NAMESPACE}, serviceAccount: {VERIFIER}}}
  ceiling:
"
    );
    for first in (0..OWNERS).step_by(usize::try_from(CEILING).unwrap_or(1)) {
        let namespaces: Vec<_> = (first..OWNERS.min(first + CEILING)).map(owner_name).collect();
        // Writing into a String cannot fail.
        let _ = writeln!(text, "    - namespaces: [{}]", namespaces.join(", "));
        text.push_str("      scopes: [orders:read, orders:write]\n");
    }
    text
}

fn configuration(issuer: &str, kubeconfig: &Path, leases: u64, tls: &Tls) -> anyhow::Result<String> {
    let home = fs::canonicalize(kubeconfig)?;
    let home = home.parent().context("the kubeconfig is in no folder")?;
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    Ok(format!(
        "issuer = \"https://dayfly.bench.internal\"
listen = \"127.0.0.1:0\"

[tls]
cert_file = {cert}
key_file = {key}

[store]
dir = {store}
# Each lease issued beyond these lets the oldest go: expiry runs.
max_leases = {leases}

[store.witness]
file = {witness}
danger_witness_beside_store = true

[keys]
kek_file = {kek}

[[cluster]]
name = \"bench\"
issuer = \"{issuer}\"
policy = {policy}
kubeconfig = {kubeconfig}

[limits]
review_cache_secs = {REVIEW_CACHE_SECS}
# A few pods stand for many.
live_leases_per_pod = 1000000
live_leases_per_workload = 1000000
calls_per_second_of_one_workload = 100000
burst_of_one_workload = 100000
unverified_at_once = 1024
calls_of_one_pod = 128
calls_per_second_of_one_operator = 100000
burst_of_one_operator = 100000
calls_of_one_namespace = 1024
streams_of_one_verifier = {STREAMS}
",
        cert = quoted(&fs::canonicalize(&tls.cert_file)?),
        key = quoted(&fs::canonicalize(&tls.key_file)?),
        store = quoted(&fill::store(home)),
        witness = quoted(&home.join("witness.json")),
        kek = quoted(&home.join("kek")),
        policy = quoted(&home.join("policy")),
        kubeconfig = quoted(&home.join(kubeconfig.file_name().context("the kubeconfig has no name")?)),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn the_broker_takes_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls::make(dir.path()).unwrap();
        let world = World::make(dir.path(), 1000, &tls).await.unwrap();
        assert_eq!(world.tokens.iter().collect::<HashSet<_>>().len(), 1000);
        let config = dayfly_server::Config::load(&world.config).unwrap();
        assert_eq!((config.store.max_leases, config.clusters.len()), (1000, 1));
    }
}
