//! The signing keys of a store: those that a start makes sure of, those that are imported, and those that are missed.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use dayfly_core::change::{Change, Conflict, Outcome};
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ids::{ClusterName, KeyId, TargetName};
use dayfly_core::ports::{
    Clock, KeyFor, KeyUse, LeaseStore, Rng, SignError, Signer, SigningAlgorithm, TargetRef, Witness,
};
use dayfly_core::secret::Secret;
use dayfly_core::spiffe::ServedDomain;
use dayfly_keys::{FileKek, KeyRing, NewKey};
use dayfly_policy::PolicySet;
use dayfly_store::{FileWitness, SledStore};

use crate::background::policy_folders;
use crate::config::Config;
use crate::run::{StartOptions, open_store};

/// The keys of the store, and a first one of each use and algorithm that has none: committed, published, and only then
/// signing. All are made at once, so that verifiers have them long before a target needs them.
pub(crate) async fn key_ring(
    kek_file: &Path,
    domains: &[ServedDomain],
    store: &SledStore,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> anyhow::Result<KeyRing> {
    let ring = load(kek_file, store, clock, rng).await?;
    let svids = domains.iter().map(|domain| (KeyUse::Svid(domain.name().clone()), SigningAlgorithm::Es256));
    let made =
        [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa].map(|algorithm| (KeyUse::AccessToken, algorithm));
    for (key_use, algorithm) in made.into_iter().chain(svids) {
        if !ring.signs(&key_use, algorithm) {
            let key = ring.generate(key_use, algorithm)?;
            add(&ring, store, key).await?;
        }
    }
    Ok(ring)
}

async fn load(
    kek_file: &Path,
    store: &SledStore,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> anyhow::Result<KeyRing> {
    let sealed = store.keys().await?;
    let kek = if sealed.is_empty() {
        FileKek::open_or_create(kek_file, Arc::clone(rng))?
    } else {
        FileKek::open(kek_file, Arc::clone(rng))
            .context("the store's signing keys are sealed with the key-encryption key: put it back")?
    };
    Ok(KeyRing::load(&sealed, store.status().instance, Arc::new(kek), Arc::clone(clock))?)
}

async fn add(ring: &KeyRing, store: &SledStore, key: NewKey) -> anyhow::Result<KeyId> {
    match store.commit(Change::Key(key.sealed().clone())).await? {
        Outcome::Committed(_) => {}
        Outcome::Conflict(Conflict::KeyExists) => anyhow::bail!("the store has this signing key already"),
        other => anyhow::bail!("a signing key was not committed: {other:?}"),
    }
    let id = ring.publish(key);
    ring.activate(&id)?;
    Ok(id)
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
    /// What else is to be done before it signs.
    pub hints: Vec<String>,
}

/// Seals an RSA key from PEM into the store of a broker that is stopped. It signs for one target alone, by RS256, from
/// the next start on; several may be imported, and the newest signs.
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
        let ring = load(&config.keys.kek_file, &store, &clock, &rng).await?;
        let key = ring.import(pem, only)?;
        add(&ring, &store, key).await
    };
    let added = added.await;
    let closing = Arc::clone(&store);
    tokio::task::spawn_blocking(move || closing.close()).await?;
    witness.write(store.mark()).await?;
    let hints = hints(config, &cluster, &target);
    Ok(ImportedKey { id: added?, cluster, target, hints })
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
