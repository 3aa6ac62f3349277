//! The signing keys of a store: those that a start makes sure of, those that are imported, and those that are missed.

use std::sync::Arc;

use anyhow::Context as _;
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ids::{ClusterName, KeyId, TargetName};
use dayfly_core::keeper::KeyState;
use dayfly_core::ports::{
    Clock, KeyFor, KeyUse, LeaseStore, Rng, SignError, Signer, SigningAlgorithm, TargetRef, Witness,
};
use dayfly_core::secret::Secret;
use dayfly_core::signing::{KeyPurpose, KeyStage};
use dayfly_core::spiffe::ServedDomain;
use dayfly_keys::{FileKek, KeyLife, KeyRing, LifeError};
use dayfly_policy::PolicySet;
use dayfly_store::FileWitness;

use crate::background::policy_folders;
use crate::config::Config;
use crate::run::{StartOptions, open_store};

/// The keys of the store, and their lives: what was due is done, and each use and algorithm has one that signs. All are made
/// at the first start, so that verifiers have them long before a target needs them.
pub(crate) async fn key_ring(
    config: &Config,
    domains: &[ServedDomain],
    store: &Arc<dyn LeaseStore>,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> anyhow::Result<(Arc<KeyRing>, Arc<KeyLife>)> {
    let svids = domains.iter().map(|domain| (KeyUse::Svid(domain.name().clone()), SigningAlgorithm::Es256));
    let made =
        [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa].map(|algorithm| (KeyUse::AccessToken, algorithm));
    let checkpoints = [(KeyUse::Checkpoint, SigningAlgorithm::EdDsa)];
    let lists = [(KeyUse::StatusList, SigningAlgorithm::Es256)];
    let purposes = made.into_iter().chain(checkpoints).chain(svids).chain(lists);
    let purposes = purposes.map(|(key_use, algorithm)| KeyPurpose::of(key_use, algorithm));
    let purposes = purposes.chain(config.sessions.is_some().then_some(dayfly_keys::SESSION_KEYS)).collect();
    let (ring, life) = load(config, purposes, store, clock, rng).await?;
    match life.go_on().await {
        // It is tried again; what signs, signs on.
        Err(error @ LifeError::Store(_)) if !ring.is_empty() => {
            tracing::error!(%error, "the signing keys do not go on");
        }
        other => {
            other.context("the signing keys cannot go on")?;
        }
    }
    if !store.status().is_adopted() {
        life.replace_session_keys()
            .await
            .context("the copy's keys of operators' sessions are not replaced")?;
    }
    Ok((ring, Arc::new(life)))
}

async fn load(
    config: &Config,
    purposes: Vec<KeyPurpose>,
    store: &Arc<dyn LeaseStore>,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> anyhow::Result<(Arc<KeyRing>, KeyLife)> {
    let sealed = store.keys().await?;
    let (file, schedule) = (&config.keys.kek_file, config.keys.schedule());
    let kek = if sealed.iter().any(|key| key.stage.is_published()) {
        FileKek::open(file, Arc::clone(rng))
            .context("the store's signing keys are sealed with the key-encryption key: put it back")?
    } else {
        FileKek::open_or_create(file, Arc::clone(rng))?
    };
    let (instance, clock) = (store.status().instance, Arc::clone(clock));
    let ring = KeyRing::load(&sealed, instance, Arc::new(kek), Arc::clone(&clock), schedule.refresh());
    let ring = Arc::new(ring.with_context(|| format!("the key-encryption key is {}", file.display()))?);
    let kek = Some((file.clone(), Arc::clone(rng)));
    let life = KeyLife::new(Arc::clone(&ring), Arc::clone(store), clock, schedule, purposes, kek);
    Ok((ring, life))
}

/// An RSA key that was sealed for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedKey {
    /// Its id, the `kid` of what it will sign.
    pub id: KeyId,
    /// The cluster whose policy has the target.
    pub cluster: ClusterName,
    /// The only target it signs for.
    pub target: TargetName,
    /// Whether it is the next key: another signs for the target until this one was published long enough.
    pub next: bool,
    /// What else is to be done before it signs.
    pub hints: Vec<String>,
}

/// Seals an RSA key from PEM into the store of a broker that is stopped. It signs for one target alone, by RS256: the first
/// from the next start on, a further one once it was published long enough, and the earlier one retires then.
///
/// # Errors
/// When the key is not one that is taken, the store is open elsewhere or behind its witness, or the cluster is not one of
/// the configuration. Nothing was imported then.
pub async fn import_key(
    config: &Config,
    pem: &Secret,
    cluster: Option<ClusterName>,
    target: TargetName,
) -> anyhow::Result<ImportedKey> {
    dayfly_jose::SigningKey::import_rsa(pem)?;
    let cluster = match (cluster, config.clusters.as_slice()) {
        (Some(named), clusters) if clusters.iter().any(|cluster| cluster.name == named) => named,
        (Some(named), _) => anyhow::bail!("the configuration has no cluster {named}"),
        (None, [only]) => only.name.clone(),
        (None, _) => anyhow::bail!("the configuration has several clusters: name the target as CLUSTER/NAME"),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
    let witness = FileWitness::new(
        &config.store.witness.file,
        &config.store.dir,
        config.store.witness.danger_witness_beside_store,
    )?;
    let expected = witness.read().await?;
    let store = open_store(config, StartOptions::default(), expected, &config.limits(), &clock, &rng)
        .await
        .context("a key is imported while the broker is stopped")?;
    let only = TargetRef { cluster: cluster.clone(), target: target.clone() };
    let added = async {
        let store = Arc::clone(&store) as Arc<dyn LeaseStore>;
        let (_, life) = load(config, Vec::new(), &store, &clock, &rng).await?;
        anyhow::Ok(life.import(pem, only).await?)
    };
    let added = added.await;
    let closing = Arc::clone(&store);
    tokio::task::spawn_blocking(move || closing.close()).await?;
    witness.write(store.mark()).await?;
    let hints = hints(config, &cluster, &target);
    let KeyState { id, stage, .. } = added?;
    Ok(ImportedKey { id, cluster, target, next: stage == KeyStage::Next, hints })
}

/// What the policy folder says against the key's use; a folder that cannot be read says nothing.
fn hints(config: &Config, cluster: &ClusterName, target: &TargetName) -> Vec<String> {
    let folders = policy_folders(config);
    let folder = folders.iter().find(|folder| folder.cluster() == cluster);
    let Some(loaded) = folder.and_then(|folder| folder.load().ok()) else { return Vec::new() };
    let kind = loaded.set.target(target).and_then(|target| target.spec.kind());
    let hint = match kind.map(dayfly_policy::Kind::signed_by) {
        Some((KeyUse::AccessToken, algorithm)) if algorithm.is_imported() => return Vec::new(),
        Some(_) => format!(
            "Target {target} does not sign with RS256: set jwt.signingAlgorithm to RS256 for this key to be used"
        ),
        None => format!("the policy of cluster {cluster} has no valid Target {target} yet"),
    };
    vec![hint]
}

/// The targets of a policy that sign with an imported key and have none: what is asked for them is refused.
pub(crate) fn missed(policy: &PolicySet, cluster: &ClusterName, signer: &dyn Signer) -> Vec<TargetName> {
    let is_missed = |name: &TargetName, kind: dayfly_policy::Kind<'_>| {
        let (key_use, algorithm) = kind.signed_by();
        let target = TargetRef { cluster: cluster.clone(), target: name.clone() };
        let current = signer.current(&KeyFor { key_use, algorithm, target });
        matches!(current, Err(SignError::NotImported(..)))
    };
    let targets = policy
        .targets()
        .filter(|target| target.spec.kind().is_some_and(|kind| is_missed(&target.name, kind)));
    targets.map(|target| target.name.clone()).collect()
}
