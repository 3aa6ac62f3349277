//! Revoking while the broker is stopped: the rule is written into its store, and in force when it starts.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use anyhow::Context as _;
use dayfly_api::v1;
use dayfly_broker::revoke::can_reissue;
use dayfly_core::change::{Change, Outcome, Receipt};
use dayfly_core::clock::{SystemClock, SystemRng};
use dayfly_core::ports::{Clock, LeaseStore, Rng, Witness};
use dayfly_store::FileWitness;

use crate::config::Config;
use crate::run::{StartOptions, open_store};
use crate::services::to_revoke;

/// Writes a revocation into the store of a broker that is stopped, as the user who runs this.
///
/// # Errors
/// When the request is wrong, or the store is open elsewhere or behind its witness. Nothing was written then, unless it
/// says otherwise.
pub async fn revoke(config: &Config, request: v1::RevokeRequest) -> anyhow::Result<v1::RevokeResponse> {
    anyhow::ensure!(!request.dry_run, "a dry run needs the broker: ask it, or its socket");
    let request = to_revoke(request).map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let revocation = request.by_user(rustix::process::getuid().as_raw())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rng: Arc<dyn Rng> = Arc::new(SystemRng::new());
    let store = &config.store;
    let witness =
        FileWitness::new(&store.witness.file, &store.dir, store.witness.danger_witness_beside_store)?;
    let expected = witness.read().await?;
    let shown = store.dir.display();
    let owner = std::fs::metadata(&store.dir).with_context(|| format!("there is no store at {shown}"))?.uid();
    // What another user leaves there, root too, the broker could not write to.
    anyhow::ensure!(
        owner == rustix::process::geteuid().as_raw(),
        "the store {shown} is of user {owner}: run this as that user (sudo -u '#{owner}')"
    );
    let store =
        open_store(config, StartOptions::default(), expected, &config.limits(), &clock, &rng).await.context(
            "--store is for a broker that is stopped: one that runs takes `dayfly revoke`, or --socket",
        )?;
    let committed = store.commit(Change::Revoke(Box::new(revocation))).await;
    let rules = store.rules();
    let closing = Arc::clone(&store);
    tokio::task::spawn_blocking(move || closing.close()).await?;
    let rule = match committed? {
        Outcome::Committed(Receipt { rule: Some(rule), .. }) => rule,
        Outcome::InMemory(_) => {
            anyhow::bail!(
                "the store's disk is full: make room, and ask again, since the rule may not be written"
            )
        }
        other => anyhow::bail!("the store answered a revocation with {other:?}"),
    };
    witness.write(store.mark()).await.context("the rule is written; the witness is not")?;
    Ok(v1::RevokeResponse {
        can_reissue: can_reissue(&rules, &rule.selector, rule.after),
        resolved: rule.selector.to_string(),
        rule: Some(dayfly_api::rule(&rule)),
        ..v1::RevokeResponse::default()
    })
}
