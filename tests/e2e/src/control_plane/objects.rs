//! What tests make in the cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{ControlPlane, NODE};
use crate::process::until;

/// What tests make in the cluster, as `admin`. Errors are the API server's.
impl ControlPlane {
    /// Makes a namespace. Without the controller manager it has no service account `default`.
    pub async fn create_namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let namespace: Namespace = object(json!({ "metadata": { "name": name, "labels": labels } }))?;
        create(&Api::all(self.client()?), &namespace).await.map(drop)
    }

    /// Makes a service account, and gives its uid.
    pub async fn create_service_account(&self, namespace: &str, name: &str) -> Result<String> {
        let account: ServiceAccount = object(json!({ "metadata": { "name": name } }))?;
        create(&Api::namespaced(self.client()?, namespace), &account).await
    }

    /// Makes a node, and gives its uid.
    pub async fn create_node(&self, name: &str) -> Result<String> {
        let node: Node = object(json!({ "metadata": { "name": name } }))?;
        create(&Api::all(self.client()?), &node).await
    }

    /// Makes a pod of this service account on [`NODE`], phase `Pending`, and gives its uid.
    pub async fn create_pod(&self, namespace: &str, name: &str, service_account: &str) -> Result<String> {
        create(&Api::namespaced(self.client()?, namespace), &pod(name, service_account)?).await
    }

    /// Writes a pod's `status.phase` (`Running`, `Succeeded`, ...), as its kubelet would.
    pub async fn set_pod_phase(&self, namespace: &str, name: &str, phase: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client()?, namespace);
        let patch = Patch::Merge(json!({ "status": { "phase": phase } }));
        pods.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// A service-account token by TokenRequest, bound to a pod (name, uid) where one is given. No audiences means
    /// [`issuer`](Self::issuer). The API server wants an expiry of 600 seconds or more, and gives a token of exactly 3607
    /// seconds a year.
    pub async fn token(
        &self,
        namespace: &str,
        service_account: &str,
        audiences: &[&str],
        pod: Option<(&str, &str)>,
        expiration_seconds: i64,
    ) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, namespace);
        let bound =
            pod.map(|(name, uid)| json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }));
        let request: TokenRequest = object(json!({ "metadata": {}, "spec": {
            "audiences": audiences, "boundObjectRef": bound, "expirationSeconds": expiration_seconds,
        }}))?;
        let answer = accounts.create_token_request(service_account, &PostParams::default(), &request).await?;
        answer.status.and_then(|status| status.token).context("a TokenRequest without a token")
    }

    /// A never-expiring token of the old kind, by a Secret `<service account>-legacy`.
    ///
    /// # Errors
    /// Without [`Options::controller_manager`], which is what fills such Secrets; or when it does not within 60 seconds.
    pub async fn legacy_secret_token(&self, namespace: &str, service_account: &str) -> Result<String> {
        ensure!(
            self.options.controller_manager,
            "the controller manager makes legacy tokens: start with Options::controller_manager"
        );
        let secrets: Api<Secret> = Api::namespaced(self.client()?, namespace);
        let name = format!("{service_account}-legacy");
        let annotations = json!({ "kubernetes.io/service-account.name": service_account });
        let secret: Secret = object(json!({
            "metadata": { "name": name, "annotations": annotations }, "type": "kubernetes.io/service-account-token",
        }))?;
        create(&secrets, &secret).await?;
        let mut token = None;
        until(async || {
            token = secrets.get(&name).await?.data.and_then(|mut data| data.remove("token"));
            Ok(token.is_some())
        })
        .await?;
        Ok(String::from_utf8(token.context("waited for")?.0)?)
    }

    /// Deletes a pod. Without a kubelet only `Some(0)` (force) removes it; any other grace, in seconds, or `None` (the pod's
    /// own) leaves it terminating.
    pub async fn delete_pod(&self, namespace: &str, name: &str, grace: Option<u32>) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client()?, namespace);
        let how = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        pods.delete(name, &how).await?;
        Ok(())
    }

    /// Deletes a service account.
    pub async fn delete_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, namespace);
        accounts.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Runs kubectl with this kubeconfig, and gives it this to read. Gives what it printed, or said in refusal.
    pub async fn kubectl_with(
        &self,
        kubeconfig: &Path,
        arguments: &[&str],
        input: &str,
    ) -> Result<Result<String, String>> {
        let mut kubectl = tokio::process::Command::new(self.kubectl())
            .args(arguments)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl-cache"))
            .env("KUBERC", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run kubectl")?;
        let mut stdin = kubectl.stdin.take().context("kubectl without stdin")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = kubectl.wait_with_output().await?;
        let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
    }

    /// Applies manifests with `kubectl apply --server-side`. The error has what kubectl said.
    pub async fn apply_yaml(&self, manifests: &str) -> Result<()> {
        let kubeconfig = self.kubeconfig_for(&self.admin_token)?;
        let apply = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
        let applied = self.kubectl_with(&kubeconfig, &apply, manifests).await?;
        applied.map_err(|said| anyhow::anyhow!("kubectl apply: {said}"))?;
        Ok(())
    }
}

/// The pod that [`ControlPlane::create_pod`] makes: one container, on [`NODE`]. For tests that add labels, owner references
/// or images before they create it themselves.
pub fn pod(name: &str, service_account: &str) -> Result<Pod> {
    object(json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": NODE,
            "serviceAccountName": service_account,
            "containers": [{ "name": "main", "image": "registry.k8s.io/pause" }],
        },
    }))
}

fn object<K: DeserializeOwned>(json: Value) -> Result<K> {
    Ok(serde_json::from_value(json)?)
}

/// Creates it, and gives its uid.
async fn create<K>(api: &Api<K>, object: &K) -> Result<String>
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let created = api.create(&PostParams::default(), object).await?;
    created.uid().context("created without a uid")
}
